"""The probes `mlp` and `conv`."""

import pytest
import torch
from test_logistic import quiet

from probe_toys import Given, Plain, noise
from selftaught.errors import UserError
from selftaught.evaluation.features import Viewing
from selftaught.evaluation.probes import ConvProbe, MLPProbe, SGDProbe

VIEWING = Viewing(4, torch.device("cpu"), batch_size=32)


def exclusive_or(count: int, seed: int) -> Given:
    """Red and green are bright or dark at random; the class is whether they are alike: no hyperplane parts that."""
    generator = torch.Generator().manual_seed(seed)
    bright = torch.rand(count, 2, generator=generator) < 0.5
    images = 0.1 * torch.rand(count, 3, 4, 4, generator=generator)
    images[:, :2] += 0.8 * bright[:, :, None, None]
    return Given(images, (bright[:, 0] == bright[:, 1]).long())


def test_non_linear_probes_solve_what_a_linear_one_cannot() -> None:
    train, test = exclusive_or(320, 0), exclusive_or(200, 1)
    found = {
        probe: probe.evaluate(Plain(), train, test, VIEWING, 0, quiet)["mean"].accuracy
        for probe in (SGDProbe(epochs=8), MLPProbe(epochs=8, hidden=32), ConvProbe(epochs=4))
    }
    linear, mlp, conv = found.values()
    assert linear < 0.8
    assert mlp > 0.98
    assert conv > 0.98


def test_the_conv_probe_uses_positions() -> None:
    """Horizontal or vertical stripes: the averages over positions are the same, and flips change neither."""

    def stripes(count: int, seed: int) -> Given:
        source = noise(count, seed)
        rows = torch.tensor([1.0, 0.0, 0.0, 1.0]).view(4, 1).expand(4, 4)
        source.images = 0.2 * source.images
        source.images += torch.where(source.labels[:, None, None, None] > 0, rows, rows.T)
        return source

    found = ConvProbe(epochs=4).evaluate(Plain(), stripes(320, 0), stripes(200, 1), VIEWING, 0, quiet)
    assert found["image"].accuracy > 0.95
    assert found["mean"].accuracy < 0.7


@pytest.mark.parametrize(
    ("feature", "shape"),
    [((2, 5, 16, 16), (5, 8, 8)), ((2, 5, 4, 4), (5, 4, 4)), ((2, 9, 7), (7, 1, 1)), ((2, 7), (7, 1, 1))],
)
def test_maps_of_the_conv_probe_have_at_most_eight_rows(feature: tuple[int, ...], shape: tuple[int, ...]) -> None:
    assert ConvProbe().inputs(torch.zeros(feature), VIEWING).shape[1:] == shape


def test_schedules_are_those_of_the_release() -> None:
    mlp = [MLPProbe().rate(epoch / 50, 128) for epoch in (0, 19.9, 20, 40, 45)]
    assert mlp == pytest.approx([0.1, 0.1, 0.02, 0.004, 0.0008])
    conv = [ConvProbe().rate(epoch / 100, 128) for epoch in (34.9, 35, 70, 85)]
    assert conv == pytest.approx([0.1, 0.02, 0.004, 0.0008])


def test_the_same_seed_gives_the_same_scores_and_leaves_the_global_generator() -> None:
    train, test = exclusive_or(64, 0), exclusive_or(64, 1)
    for probe in (MLPProbe(epochs=2, hidden=8), ConvProbe(epochs=1)):
        state = torch.get_rng_state()
        first, again = (probe.evaluate(Plain(), train, test, VIEWING, 3, quiet)["image"].scores for _ in range(2))
        assert first.equal(again)
        assert torch.get_rng_state().equal(state)


def test_mistakes_are_told() -> None:
    for options in ({"epochs": 0}, {"hidden": 0}, {"learning_rate": 0.0}, {"momentum": 2.0}, {"weight_decay": -1.0}):
        with pytest.raises(UserError, match=f"--{next(iter(options)).replace('_', '-')} must be"):
            MLPProbe(**options)
