"""The losses of rendered scenes against formulas written out, and domain adaptation."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_tasks import encoder_for

from selftaught.contracts import Source
from selftaught.errors import UserError
from selftaught.modules.domain import POOL, FeaturePool, draw_slots
from selftaught.modules.scene_losses import (
    contours_errors,
    contours_loss,
    depth_errors,
    depth_loss,
    normals_errors,
    normals_loss,
)
from selftaught.pretext.synthetic import Synthetic
from toys import ToySource

REAL = torch.tensor([False, True, False])
"""The image in the middle is a photo."""
RENDERED = ~REAL


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scenes(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Depth with unknown pixels, normals with undefined ones, and contours of three images."""
    depth = torch.rand(3, 1, 4, 4, generator=generator(seed)) * 9 + 1
    depth[:, :, 0, 0] = 0
    normals = torch.nn.functional.normalize(torch.randn(3, 3, 4, 4, generator=generator(seed + 1)), dim=1)
    normals[:, :, 1, 1] = 0
    contours = (torch.rand(3, 1, 4, 4, generator=generator(seed + 2)) < 0.3).float()
    contours[:, :, 3, 3] = 1
    return depth, normals, contours


def test_the_depth_loss_is_that_of_the_released_code():
    depth, _, _ = scenes()
    prediction = torch.randn(depth.shape, generator=generator(5))
    losses = []
    for image in (0, 2):
        errors = [
            float(prediction[image, 0, y, x]) - math.log(float(depth[image, 0, y, x]))
            for y in range(4) for x in range(4) if depth[image, 0, y, x] > 0
        ]  # fmt: skip
        mean = sum(errors) / len(errors)
        losses.append(0.5 * (sum(error**2 for error in errors) / len(errors) + 0.5 * mean**2))
    assert float(depth_loss(prediction, depth, RENDERED)) == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_the_loss_of_normals_is_one_minus_the_cosine():
    _, normals, _ = scenes()
    prediction = torch.randn(normals.shape, generator=generator(6))
    losses, angles = [], []
    for image in (0, 2):
        for y in range(4):
            for x in range(4):
                truth, guess = normals[image, :, y, x].tolist(), prediction[image, :, y, x].tolist()
                if any(truth):
                    cosine = sum(a * b for a, b in zip(truth, guess, strict=True)) / math.hypot(*guess)
                    losses.append(1 - cosine)
                    angles.append(math.degrees(math.acos(cosine)))
    assert float(normals_loss(prediction, normals, RENDERED)) == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    errors = normals_errors(prediction, normals, RENDERED)
    assert float(errors["normals_degrees"]) == pytest.approx(sum(angles) / len(angles), rel=1e-4)


def test_each_image_weighs_its_contours_by_their_rarity():
    _, _, contours = scenes()
    prediction = torch.randn(contours.shape, generator=generator(7))
    losses = []
    for image in (0, 2):
        edges = float(contours[image].sum())
        entropy = 0.0
        for guess, truth in zip(prediction[image].flatten().tolist(), contours[image].flatten().tolist(), strict=True):
            probability = 1 / (1 + math.exp(-guess))
            entropy -= math.log(probability if truth else 1 - probability)
        losses.append(entropy / 16 * (16 - edges) / edges)
    assert float(contours_loss(prediction, contours, RENDERED)) == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_images_with_few_contours_do_not_count():
    contours = torch.zeros(2, 1, 32, 32)
    contours[0, 0, 0, :6] = 1  # 6 of 1,024 are fewer than 350 of 227 x 227
    contours[1, 0, 0, :8] = 1
    prediction = torch.zeros_like(contours)
    both = torch.tensor([True, True])
    assert float(contours_loss(prediction, contours, both)) == pytest.approx(math.log(2) * (1024 - 8) / 8, rel=1e-5)


def test_nothing_depends_on_the_targets_of_real_images():
    depth, normals, contours = scenes()
    for loss, truth, channels in (
        (depth_loss, depth, 1), (normals_loss, normals, 3), (contours_loss, contours, 1),
        (depth_errors, depth, 1), (normals_errors, normals, 3), (contours_errors, contours, 1),
    ):  # fmt: skip
        prediction = torch.randn(3, channels, 4, 4, generator=generator(8))
        photo = REAL[:, None, None, None]
        changed, other = torch.where(photo, prediction + 3, prediction), torch.where(photo, truth * 0.5, truth)
        torch.testing.assert_close(loss(changed, other, RENDERED), loss(prediction, truth, RENDERED))


def test_a_batch_without_rendered_images_has_no_loss():
    depth, normals, contours = scenes()
    for loss, truth in ((depth_loss, depth), (normals_loss, normals), (contours_loss, contours)):
        prediction = torch.randn(truth.shape, generator=generator(9))
        assert float(loss(prediction, truth, torch.zeros(3, dtype=torch.bool))) == 0


def test_errors_are_zero_for_the_truth_and_those_of_constants_are_not():
    depth, normals, contours = scenes()
    errors = {
        **depth_errors(depth.clamp(min=1e-3).log(), depth, RENDERED),
        **normals_errors(normals, normals, RENDERED),
        **contours_errors(contours * 2 - 1, contours, RENDERED),
    }
    assert float(errors["depth_rmse"]) == pytest.approx(0, abs=1e-5)
    assert float(errors["normals_degrees"]) < 0.1
    assert float(errors["contours_f1"]) == 1
    known = torch.cat([depth[image][depth[image] > 0].log() for image in (0, 2)])
    assert float(errors["depth_rmse_constant"]) == pytest.approx(float(known.std(correction=0)), rel=1e-5)
    share = float(contours[[0, 2]].mean())
    assert float(errors["contours_f1_constant"]) == pytest.approx(2 * share / (1 + share), rel=1e-5)
    assert float(errors["normals_degrees_constant"]) > 30


def test_normals_are_mirrored_with_their_image():
    source, task = ToySource(), Synthetic(size=16, crop=1.0, scale=(1.0, 1.0))
    views = task.views(source.batch(torch.arange(24), torch.device("cpu")), generator())
    normals = source.dense["normals"]
    mirrored = torch.stack([-normals[:, 0], normals[:, 1], normals[:, 2]], 1).flip(3)
    flips = []
    for index, image in enumerate(source.images):
        flips.append(torch.allclose(views["images"][index], image.flip(2), atol=1e-4))
        assert flips[-1] or torch.allclose(views["images"][index], image, atol=1e-4)
        expected = mirrored[index] if flips[-1] else normals[index]
        torch.testing.assert_close(views["normals"][index], expected, atol=1e-3, rtol=0)
    assert 0 < sum(flips) < 24


def test_the_pool_returns_what_was_stored_and_only_that():
    pool, slots = FeaturePool(torch.Size([2, 1, 1])), torch.tensor([3, -1, 7])
    first, second = torch.ones(3, 2, 1, 1), torch.full((3, 2, 1, 1), 2.0)
    assert torch.equal(pool.exchanged(first, slots), first)  # an empty pool exchanges nothing
    pool.store(first, slots)
    assert pool.filled.nonzero().flatten().tolist() == [3, 7]
    assert pool.exchanged(second, torch.tensor([3, 7, 5]))[:, 0, 0, 0].tolist() == [1, 1, 2]
    pool.store(second, torch.tensor([-1, -1, -1]))
    assert pool.filled.sum() == 2
    assert pool.entries[[3, 7]].eq(1).all()


def test_half_of_the_features_are_exchanged_with_different_slots():
    slots = draw_slots(100, generator(), torch.device("cpu"))
    used = slots[slots >= 0]
    assert 30 < len(used) < 70
    assert len(used.unique()) == len(used)
    assert used.max() < POOL
    assert (draw_slots(POOL + 10, generator(), torch.device("cpu"))[POOL:] == -1).all()


@pytest.fixture
def adapted() -> tuple[Synthetic, torch.nn.Module, torch.nn.ModuleDict, dict]:
    source: Source = ToySource()
    task = Synthetic(size=16, real=Path("photos"))
    torch.manual_seed(0)
    encoder = encoder_for(task)
    heads = task.heads(encoder, source)
    return task, encoder, heads, task.views(source.batch(torch.arange(12), torch.device("cpu")), generator())


@torch.no_grad()
def test_the_adversarial_loss_takes_rendered_features_for_real_ones(adapted):
    task, encoder, heads, views = adapted
    losses = [replace(task, adversarial=weight).loss(encoder, heads, views)[0] for weight in (1.0, 3.0)]
    logits = heads["critic"](encoder.features(encoder.preprocess(views["images"]))["second"])
    expected = [-logits[image].sigmoid().log().mean() for image in range(12) if not views["real"][image]]
    assert float(losses[1] - losses[0]) == pytest.approx(2 * float(sum(expected)) / len(expected), rel=1e-3)


@torch.no_grad()
def test_the_critic_has_the_opposite_aim(adapted):
    task, encoder, heads, views = adapted
    logits = heads["critic"](encoder.features(encoder.preprocess(views["images"]))["second"])
    real = [-logits[image].sigmoid().log().mean() for image in range(12) if views["real"][image]]
    rendered = [-(-logits[image]).sigmoid().log().mean() for image in range(12) if not views["real"][image]]
    loss, outputs = task.critic_loss(encoder, heads, views)
    assert float(loss) == pytest.approx(float(sum(real) / len(real) + sum(rendered) / len(rendered)) / 2, rel=1e-4)
    assert 0 <= float(outputs["accuracy_on_real"]) <= 1


@torch.no_grad()
def test_earlier_features_reach_the_critic(adapted):
    task, encoder, heads, views = adapted
    before = task.critic_loss(encoder, heads, views)[0]
    task.after_step(encoder, heads, views, {"pooled": torch.full((12, *heads["pool"].entries.shape[1:]), 9.0)})
    stored = int(((views["slots"] >= 0) & ~views["real"]).sum())
    assert int(heads["pool"].filled.sum()) == stored > 0
    assert task.critic_loss(encoder, heads, views)[0] != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"predict": ()}, "--predict expects"),
        ({"predict": ("depth", "depth")}, "each once, got depth depth"),
        ({"depth_weight": 0.0}, "--depth-weight must be above 0"),
        ({"adversarial": -1.0}, "--adversarial must be above 0"),
        ({"critic_lr_scale": 0.0}, "--critic-lr-scale must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Synthetic(**options)


def test_an_unknown_layer_is_refused():
    task = Synthetic(size=16, real=Path("photos"), adapt_layer="secnd")
    with pytest.raises(UserError, match="second"):
        task.heads(encoder_for(task), ToySource())
