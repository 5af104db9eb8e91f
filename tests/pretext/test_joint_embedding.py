"""Losses of joint-embedding tasks against their papers' formulas, written out with loops and numpy."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from selftaught.contracts import Task
from selftaught.errors import UserError
from selftaught.modules.processes import Processes, using
from selftaught.pretext import task_class
from toys import ToyEncoder, ToySource

CPU = torch.device("cpu")
TWO_VIEWS = ("simclr", "moco", "byol", "simsiam", "vicreg", "barlow")


class Case:
    """A task with small heads, six images and their views."""

    def __init__(self, name: str, **options: object) -> None:
        torch.manual_seed(0)
        self.source = ToySource()
        self.task: Task = task_class(name)(size=16, **options)
        self.encoder = ToyEncoder()
        self.heads = self.task.heads(self.encoder, self.source)
        self.views = self.task.views(self.source.batch(torch.arange(6), CPU), torch.Generator().manual_seed(0))

    def loss(self, progress: float = 0.0) -> float:
        return float(self.task.loss(self.encoder, self.heads, self.views, progress)[0].detach())

    def step(self, progress: float = 0.0) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            outputs = self.task.loss(self.encoder, self.heads, self.views, progress)[1]
            self.task.after_step(self.encoder, self.heads, self.views, outputs, progress)
        return outputs

    def embedded(self, head: str) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of the first and the second views, each a batch of its own."""
        with torch.no_grad():
            first, second = (self.heads[head](self.encoder(self.views["images"][v::2])) for v in (0, 1))
        return first.double().numpy(), second.double().numpy()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def rotate(module: nn.Module) -> None:
    """Changes all parameters, as an optimizer step does."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.1 * torch.randn_like(weight))


def test_nt_xent_is_the_double_loop_of_simclrs_equation_1():
    case = Case("simclr", temperature=0.5, dimensions=8)
    with torch.no_grad():
        z = case.heads["projection"](case.encoder(case.views["images"])).double().numpy()
    total, right = 0.0, 0
    for i in range(12):
        positive = i + 1 if i % 2 == 0 else i - 1
        denominator = sum(math.exp(cosine(z[i], z[k]) / 0.5) for k in range(12) if k != i)
        total -= math.log(math.exp(cosine(z[i], z[positive]) / 0.5) / denominator)
        right += max((k for k in range(12) if k != i), key=lambda k: cosine(z[i], z[k])) == positive
    assert case.loss() == pytest.approx(total / 12, rel=1e-5)
    accuracy = case.task.loss(case.encoder, case.heads, case.views)[1]["accuracy"]
    assert float(accuracy) == pytest.approx(right / 12)


def test_moco_is_info_nce_over_the_own_key_and_the_queue():
    case = Case("moco", queue=10, dimensions=8, temperature=0.3)
    rotate(case.encoder)  # so that queries and keys come from different networks
    queries, keys = case.embedded("projection")[0], None
    with torch.no_grad():
        keys = case.heads["key"](case.views["images"][1::2]).double().numpy()
    queue, total = case.heads["queue"].entries.double().numpy(), 0.0
    for query, key in zip(queries, keys, strict=True):
        positive = math.exp(cosine(query, key) / 0.3)
        total -= math.log(positive / (positive + sum(math.exp(cosine(query, k) / 0.3) for k in queue)))
    assert case.loss() == pytest.approx(total / 6, rel=1e-5)


def test_mocos_queue_has_the_latest_keys_in_the_place_of_the_oldest():
    case, latest = Case("moco", queue=10, dimensions=8), []
    initial = case.heads["queue"].entries.clone()
    for step in range(4):
        case.views = case.task.views(case.source.batch(torch.arange(6), CPU), torch.Generator().manual_seed(step))
        latest += list(case.step()["keys"])
        entries = case.heads["queue"].entries
        kept = [initial[i] for i in range(len(latest), 10)]
        expected = {tuple(key.tolist()) for key in [*latest[-10:], *kept]}
        assert {tuple(key.tolist()) for key in entries} == expected
        torch.testing.assert_close(entries.norm(dim=1), torch.ones(10))


def test_a_batch_larger_than_mocos_queue_leaves_its_last_keys():
    case = Case("moco", queue=4, dimensions=8)
    keys = case.step()["keys"]
    assert {tuple(k.tolist()) for k in case.heads["queue"].entries} == {tuple(k.tolist()) for k in keys[-4:]}


def test_mocos_keys_are_normalized_in_strided_groups_and_stay_in_order():
    task = task_class("moco")(groups=2)
    images = torch.rand(6, 3, 4, 4)
    norm = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48, affine=False))
    expected = torch.empty(6, 48)
    for group in ([0, 2, 4], [1, 3, 5]):
        flat = images[group].flatten(1)
        expected[group] = (flat - flat.mean(0)) / (flat.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(task._keys(norm, images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [2, 4, 12])
def test_mocos_keys_stay_in_order_where_a_process_has_fewer_images_than_there_are_groups(count):
    images, encoded = torch.arange(12.0)[:, None], []

    def encode(rows):
        encoded.append(rows)
        return rows

    for rank in range(count):
        place = Processes()
        place.rank, place.count = rank, count
        own = images.chunk(count)[rank]
        with using(place):
            assert torch.equal(task_class("moco")(groups=8)._keys(encode, own), own)
    groups = [torch.cat(encoded[group::6]).flatten().tolist() for group in range(6)]  # two images in each
    assert groups == [[float(group), group + 6.0] for group in range(6)]


@pytest.mark.parametrize(
    ("name", "head", "field"), [("moco", "key", "key_momentum"), ("byol", "target", "target_momentum")]
)
def test_a_momentum_encoder_is_the_moving_average_of_the_weights_alone(name, head, field):
    case = Case(name, **{field: 0.9})
    average = case.heads[head]
    before = [weight.clone() for weight in average.parameters()]
    assert not any(weight.requires_grad for weight in average.parameters())
    rotate(case.encoder), rotate(case.heads["projection"])
    progress = 0.25
    case.step(progress)
    m = 0.9 if name == "moco" else 1 - 0.1 * (math.cos(math.pi * progress) + 1) / 2
    online = [*case.encoder.parameters(), *case.heads["projection"].parameters()]
    for old, weight, new in zip(before, online, average.parameters(), strict=True):
        torch.testing.assert_close(new, m * old + (1 - m) * weight)
    # Batch norms of the target have statistics of its own batches, as in the released code.
    for norm in (each for each in average.modules() if isinstance(each, nn.BatchNorm1d)):
        assert int(norm.num_batches_tracked) == 2
        assert norm.running_mean.abs().sum() > 0


def test_byols_momentum_rises_from_its_start_to_one():
    case = Case("byol", target_momentum=0.9)
    average, before = case.heads["target"], [w.clone() for w in case.heads["target"].parameters()]
    rotate(case.encoder)
    case.step(1.0)
    assert all(torch.equal(old, new) for old, new in zip(before, average.parameters(), strict=True))


def test_byol_is_the_squared_distance_of_unit_vectors_in_both_directions():
    case = Case("byol", dimensions=8, hidden=16)
    rotate(case.heads["target"])
    images = case.views["images"]
    total = 0.0
    for online, other in ((images[::2], images[1::2]), (images[1::2], images[::2])):
        with torch.no_grad():
            predicted = case.heads["prediction"](case.heads["projection"](case.encoder(online))).numpy()
            target = case.heads["target"](other).numpy()
        for p, t in zip(predicted, target, strict=True):
            total += float(np.square(p / np.linalg.norm(p) - t / np.linalg.norm(t)).sum()) / 6
    assert case.loss() == pytest.approx(total, rel=1e-4)


def test_simsiam_stops_the_gradient_of_the_embedding_it_predicts():
    case = Case("simsiam", dimensions=8, bottleneck=4)
    first, second = case.views["images"][::2], case.views["images"][1::2]
    heads = case.heads
    reference = copy.deepcopy(case.encoder)
    z = [heads["projection"](reference(view)) for view in (first, second)]
    fixed = [each.detach().numpy() for each in z]
    p = [heads["prediction"](each) for each in z]
    loss = torch.zeros(())
    for predicted, target in ((p[0], fixed[1]), (p[1], fixed[0])):
        for a, b in zip(predicted, torch.from_numpy(np.stack(target)), strict=True):
            loss = loss - (a @ b) / a.norm() / b.norm() / 12
    loss.backward()
    found, _ = case.task.loss(case.encoder, heads, case.views)
    assert float(found.detach()) == pytest.approx(float(loss.detach()), rel=1e-5)
    for weight in heads.parameters():
        weight.grad = None
    found.backward()
    for weight, expected in zip(case.encoder.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, expected.grad, rtol=1e-3, atol=1e-5)


def test_vicreg_is_its_three_terms_by_numpy():
    case = Case("vicreg", dimensions=8, invariance=3.0, variance=2.0, covariance=5.0)
    a, b = case.embedded("expander")
    expected = 3.0 * np.square(a - b).mean()
    for z in (a, b):
        std = np.sqrt(np.var(z, axis=0, ddof=1) + 1e-4)
        expected += 2.0 * np.maximum(0, 1 - std).mean()
        covariance = np.cov(z, rowvar=False)
        expected += 5.0 * sum(covariance[i, j] ** 2 for i in range(8) for j in range(8) if i != j) / 8
    assert case.loss() == pytest.approx(expected, rel=1e-4)


def test_barlow_twins_is_the_cross_correlation_by_numpy():
    case = Case("barlow", dimensions=8, redundancy=0.1)
    with torch.no_grad():
        a, b = (case.heads["projection"][:-1](case.encoder(case.views["images"][v::2])) for v in (0, 1))
    correlation = np.corrcoef(a.numpy(), b.numpy(), rowvar=False)[:8, 8:]
    expected = sum((1 - correlation[i, i]) ** 2 for i in range(8))
    expected += 0.1 * sum(correlation[i, j] ** 2 for i in range(8) for j in range(8) if i != j)
    assert case.loss() == pytest.approx(expected, rel=1e-2)  # batch norm adds 1e-5 to small variances


@pytest.mark.parametrize("name", ["byol", "simsiam"])
def test_the_logged_spread_is_zero_for_equal_embeddings_and_one_for_random_ones(name):
    from selftaught.modules.losses import unit_std

    assert float(unit_std(torch.ones(50, 8))) == pytest.approx(0, abs=1e-6)
    assert float(unit_std(torch.randn(4000, 16, generator=torch.Generator().manual_seed(0)))) == pytest.approx(
        1, abs=0.02
    )
    case = Case(name)
    assert 0 < float(case.step()["std"]) <= 1.1


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_views_are_pairs_of_different_views_of_an_image(name):
    task = task_class(name)(size=16, jitter=(0.0,) * 4, grayscale=0.0, blur=0.0, view_area=(1.0, 1.0))
    source = ToySource()
    source.images = (torch.arange(24) / 48)[:, None, None, None].expand(24, 3, 16, 16).clone()
    views = task.views(source.batch(torch.arange(24), CPU), torch.Generator().manual_seed(0))["images"]
    assert views.shape == (48, 3, 16, 16)
    first = views[::2].mean((1, 2, 3))
    torch.testing.assert_close(first, torch.arange(24) / 48, rtol=1e-4, atol=1e-4)
    views = task_class(name)(size=16).views(ToySource().batch(torch.arange(24), CPU), torch.Generator().manual_seed(0))
    assert (views["images"][::2] - views["images"][1::2]).abs().mean((1, 2, 3)).min() > 0


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("simclr", {"temperature": 0.0}, "--temperature must be from 0.001 to 1,000, got 0.0; the default is 0.2."),
        ("simclr", {"jitter": (0.4, 0.4, 0.4, 0.9)}, "--jitter must be"),
        ("moco", {"queue": 0}, "--queue must be from 1 to"),
        ("moco", {"key_momentum": 1.5}, "--key-momentum must be from 0 to 1, got 1.5"),
        ("byol", {"target_momentum": -0.1}, "--target-momentum must be from 0 to 1"),
        ("simsiam", {"bottleneck": 0}, "--bottleneck must be from 1 to"),
        ("vicreg", {"covariance": -1.0}, "--covariance must be from 0 to"),
        ("barlow", {"view_area": (0.5, 0.2)}, "--view-area must be"),
    ],
)
def test_invalid_settings_are_refused(name, options, text):
    with pytest.raises(UserError, match=text):
        task_class(name)(**options)
