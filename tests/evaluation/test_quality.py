"""Feature quality: the formulas written out with numpy, and features whose quality is known."""

import numpy as np
import pytest
import torch
from torch import nn

from probe_toys import Small
from selftaught.errors import UserError
from selftaught.evaluation.quality import QualityStatistics, batch_statistics


def features(count: int = 90, channels: int = 12, seed: int = 0) -> torch.Tensor:
    """Correlated features with a mean, as a ReLU gives them."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator)
    return (torch.randn(count, channels, generator=generator) @ mixing).relu() + 0.1


def measured(x: torch.Tensor, views: tuple[torch.Tensor, torch.Tensor] | None = None, batch: int = 90):
    statistics = QualityStatistics(x.shape[1])
    for rows in torch.split(torch.arange(len(x)), batch):
        statistics.add(x[rows], None if views is None else (views[0][rows], views[1][rows]))
    return statistics.result()


@pytest.mark.parametrize("batch", [90, 40])
def test_rank_and_std_are_the_formulas_of_the_papers(batch):
    x = features()
    found = measured(x, batch=batch)
    z = x.double().numpy()
    shares = np.linalg.svd(z, compute_uv=False)
    shares = shares / shares.sum() + 1e-7
    assert found.rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    assert found.std == pytest.approx(unit.std(0).mean(), rel=1e-9)
    assert (found.channels, found.images, found.dead) == (12, 90, 0)


def test_alignment_and_uniformity_are_those_of_loops_over_pairs():
    x, first, second = (features(20, seed=seed) for seed in range(3))
    found = measured(x, (first, second))
    unit, one, other = (nn.functional.normalize(y.double(), dim=1) for y in (x, first, second))
    pairs = [(i, j) for i in range(20) for j in range(i)]
    potentials = [float(torch.exp(-2 * (unit[i] - unit[j]).norm() ** 2)) for i, j in pairs]
    assert found.uniformity == pytest.approx(np.log(np.mean(potentials)))
    assert found.alignment == pytest.approx(
        np.mean([float((a - b).norm() ** 2) for a, b in zip(one, other, strict=True)])
    )


def test_uniformity_over_batches_is_the_mean_over_the_pairs_within_them():
    x = features(30)
    potentials = []
    for rows in torch.split(torch.arange(30), 12):
        unit = nn.functional.normalize(x[rows].double(), dim=1)
        potentials += [
            float(torch.exp(-2 * (unit[i] - unit[j]).norm() ** 2)) for i in range(len(rows)) for j in range(i)
        ]
    assert measured(x, batch=12).uniformity == pytest.approx(np.log(np.mean(potentials)))


def test_features_on_a_line_have_rank_one_and_equal_ones_no_spread():
    direction, scale = torch.rand(8) + 0.1, torch.rand(50, 1) + 0.5
    line = measured(scale * direction)
    assert line.rank == pytest.approx(1, abs=1e-3)
    assert line.std == pytest.approx(0, abs=1e-6)  # one direction: the same unit feature
    constant = measured(direction.expand(50, 8))
    assert constant.uniformity == pytest.approx(0, abs=1e-9)
    assert constant.dead == 8


def test_isotropic_features_have_full_rank_and_the_standard_deviation_of_a_sphere():
    x = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    found = measured(x, batch=500)
    assert found.rank > 15.9
    assert found.std == pytest.approx(16**-0.5, rel=0.01)
    assert found.uniformity < -3


def test_dead_channels_are_counted_whether_they_are_off_or_constant():
    x = features()
    x[:, 3], x[:, 7] = 0, 2.5
    assert measured(x, batch=13).dead == 2


def test_features_that_are_not_finite_are_our_error():
    x = features()
    x[5, 1] = torch.nan
    with pytest.raises(UserError, match="diverged"):
        measured(x)


def test_batch_statistics_normalize_the_batch_and_leave_no_trace():
    encoder = Small().train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    images = torch.rand(6, 3, 4, 4)
    with torch.no_grad(), batch_statistics(encoder):
        found = encoder.norm(encoder.convolution(images))
        assert not encoder.training
    assert found.mean((0, 2, 3)) == pytest.approx(torch.zeros(4), abs=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert encoder.norm.track_running_stats
    assert all(module.training for module in encoder.modules())
