"""SwAV, DINO, MAE and EMP-SSL against their papers' formulas, written out with loops and numpy."""

import math

import numpy as np
import pytest
import torch
from test_joint_embedding import CPU, Case, cosine, rotate

from selftaught.encoders.vit import ViT
from selftaught.errors import UserError
from selftaught.modules.losses import sinkhorn
from selftaught.modules.patches import from_patches, to_patches
from selftaught.pretext import task_class
from selftaught.pretext.emp import coding_rate
from toys import ToyEncoder, ToySource


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def networked(case: Case, *heads: torch.nn.Module) -> list[np.ndarray]:
    """Outputs of all views of an image, the global ones first: V times (B, K)."""
    views = case.views
    count = case.task.local_views
    with torch.no_grad():
        network = torch.nn.Sequential(case.encoder, *heads)
        found, local = network(views["global"]).numpy(), network(views["local"]).numpy()
    return [*(found[v::2] for v in range(2)), *(local[v::count] for v in range(count))]


def test_sinkhorn_has_the_marginals_of_a_transport_plan():
    scores = torch.rand(40, 5, generator=torch.Generator().manual_seed(0))
    codes = sinkhorn(scores, 0.05, 100)
    torch.testing.assert_close(codes.sum(1), torch.ones(40))
    torch.testing.assert_close(codes.sum(0), torch.full((5,), 8.0), rtol=1e-3, atol=1e-3)
    # The plan is the kernel times a factor per row and per column.
    logs = (codes.log() - scores / 0.05).numpy()
    centered = logs - logs.mean(0) - logs.mean(1, keepdims=True) + logs.mean()
    assert np.abs(centered).max() < 1e-3


def test_swav_predicts_codes_from_all_other_views():
    case = Case("swav", prototypes=4, dimensions=8, hidden=16, local_views=2)
    case.heads.eval()  # batch norms do not depend on which views are in a batch
    scores = networked(case, case.heads["projection"], case.heads["prototypes"])
    losses = []
    for view in range(2):
        q = np.exp(scores[view] / 0.05)
        for _ in range(3):
            q = q / q.sum(0)
            q = q / q.sum(1, keepdims=True)
        for other in range(4):
            if other != view:
                losses.append(-(q * np.log(softmax(scores[other] / 0.1))).sum(1).mean())
    assert len(losses) == 6
    assert case.loss() == pytest.approx(np.mean(losses), rel=1e-4)


def test_dino_is_the_cross_entropy_of_centered_and_sharpened_teacher_outputs():
    case = Case("dino", outputs=8, hidden=16, bottleneck=4, local_views=2)
    case.heads.eval()
    case.heads["center"].mean.copy_(0.1 * torch.randn(8))
    rotate(case.encoder)
    center = case.heads["center"].mean.numpy().copy()
    with torch.no_grad():
        outputs = case.heads["teacher"](case.views["global"]).numpy()
    student, progress, losses = networked(case, case.heads["head"]), 0.15, []
    temperature = 0.04 + 0.03 * 0.15 / 0.3
    for view in range(2):
        teacher = softmax((outputs[view::2] - center) / temperature)
        for other in range(4):
            if other != view:
                losses.append(-(teacher * np.log(softmax(student[other] / 0.1))).sum(1).mean())
    assert case.loss(progress) == pytest.approx(np.mean(losses), rel=1e-4)
    case.step(progress)
    expected = 0.9 * center + 0.1 * outputs.mean(0)
    np.testing.assert_allclose(case.heads["center"].mean.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_dinos_teacher_is_a_moving_average_whose_momentum_rises_to_one():
    case = Case("dino", outputs=8, hidden=16, bottleneck=4, teacher_momentum=0.9)
    before = [weight.clone() for weight in case.heads["teacher"].parameters()]
    rotate(case.encoder), rotate(case.heads["head"])
    case.step(0.5)
    online = [*case.encoder.parameters(), *case.heads["head"].parameters()]
    for old, weight, new in zip(before, online, case.heads["teacher"].parameters(), strict=True):
        torch.testing.assert_close(new, 0.95 * old + 0.05 * weight)  # halfway between 0.9 and 1


def test_dinos_temperature_rises_and_stays():
    task = task_class("dino")()
    assert [task.temperature_at(p) for p in (0.0, 0.3, 1.0)] == pytest.approx([0.04, 0.07, 0.07])


@pytest.mark.parametrize("name", ["swav", "dino"])
def test_local_views_are_half_as_large_and_belong_to_the_same_image(name):
    task = task_class(name)(size=16, local_views=3, jitter=(0.0,) * 4, grayscale=0.0, blur=0.0)
    source = ToySource()
    source.images = (torch.arange(24) / 48)[:, None, None, None].expand(24, 3, 16, 16).clone()
    views = task.views(source.batch(torch.arange(24), CPU), torch.Generator().manual_seed(0))
    assert views["global"].shape == (48, 3, 16, 16)
    assert views["local"].shape == (72, 3, 8, 8)
    torch.testing.assert_close(views["local"].mean((1, 2, 3)), (torch.arange(24) / 48).repeat_interleave(3))
    plain = task_class(name)(size=16, local_views=0)
    assert set(plain.views(source.batch(torch.arange(2), CPU), torch.Generator())) == {"global"}


class MaskedCase(Case):
    def __init__(self, **options: object) -> None:
        torch.manual_seed(0)
        self.source = ToySource()
        self.task = task_class("mae")(size=16, decoder_width=16, decoder_depth=1, **options)
        self.encoder = ViT(size=16, patch=4, depth=2, width=32, heads=2)
        self.heads = self.task.heads(self.encoder, self.source)
        self.views = self.task.views(self.source.batch(torch.arange(3), CPU), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("patch_norm", [True, False])
def test_maes_loss_is_that_of_masked_patches_alone_each_normalized(patch_norm):
    case, total, count = MaskedCase(patch_norm=patch_norm), 0.0, 0
    with torch.no_grad():
        predicted = from_patches(case.task.predicted(case.encoder, case.heads, case.views), 4).double().numpy()
    images, noise = case.views["images"].double().numpy(), case.views["noise"].flatten(1)[:, :16]
    for image, prediction, draws in zip(images, predicted, noise, strict=True):
        visible = set(draws.argsort()[:4].tolist())
        for place in set(range(16)) - visible:
            row, column = 4 * (place // 4), 4 * (place % 4)
            target = image[:, row : row + 4, column : column + 4]
            if patch_norm:
                target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
            total += np.square(prediction[:, row : row + 4, column : column + 4] - target).mean()
            count += 1
    assert count == 3 * 12
    assert case.loss() == pytest.approx(total / count, rel=1e-4)


def test_mae_sees_visible_patches_only():
    case = MaskedCase()
    before = case.task.predicted(case.encoder, case.heads, case.views)
    order, visible = case.task.order(case.encoder, case.views)
    patches = to_patches(case.views["images"], 4)
    hidden = torch.ones(3, 16, 1).scatter(1, order[:, :visible, None], 0.0)
    changed = {**case.views, "images": from_patches(patches * (1 - hidden), 4)}
    torch.testing.assert_close(case.task.predicted(case.encoder, case.heads, changed), before)
    seen = {**case.views, "images": from_patches(patches * hidden, 4)}
    assert not torch.allclose(case.task.predicted(case.encoder, case.heads, seen), before)


def test_patches_are_laid_out_row_by_row_and_back():
    images = torch.rand(2, 3, 12, 12)
    patches = to_patches(images, 4)
    torch.testing.assert_close(patches[1, 5], images[1, :, 4:8, 8:12].flatten())
    torch.testing.assert_close(from_patches(patches, 4), images)


def test_the_coding_rate_is_the_log_determinant_by_numpy():
    z = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    for found, each in zip(coding_rate(z, 0.2), z.double().numpy(), strict=True):
        _, logdet = np.linalg.slogdet(np.eye(5) + 5 / (7 * 0.2) * each.T @ each)
        assert float(found) == pytest.approx(logdet / 2, rel=1e-5)


def test_emp_is_similarity_to_the_mean_and_the_rate_of_each_patch():
    case = Case("emp", patches=3, dimensions=8, hidden=16, invariance=2.0, epsilon=0.5)
    with torch.no_grad():
        z = case.heads["projection"](case.encoder(case.views["images"])).double().numpy()
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    similarity, rate = 0.0, 0.0
    for image in range(6):
        own = z[3 * image : 3 * image + 3]
        similarity += sum(cosine(patch, own.mean(0)) for patch in own) / 18
    for number in range(3):
        patch = z[number::3]
        rate += np.linalg.slogdet(np.eye(8) + 8 / (6 * 0.5) * patch.T @ patch)[1] / 2 / 3
    assert case.loss() == pytest.approx(-2.0 * similarity - rate, rel=1e-4)
    assert math.isfinite(rate)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("swav", {"epsilon": 0.0}, "--epsilon must be from 0.001"),
        ("swav", {"local_views": -1}, "--local-views must be from 0 to 1,000, got -1"),
        ("dino", {"teacher_temperature": (0.0, 0.1)}, "--teacher-temperature must be from 0.001"),
        ("dino", {"center_momentum": 2.0}, "--center-momentum must be from 0 to 1"),
        ("mae", {"masked": 1.0}, "--masked must be above 0 and below 1"),
        ("mae", {"decoder_width": 30}, "--decoder-width must be a multiple of 4, got 30"),
        ("emp", {"patches": 1}, "--patches must be from 2 to 1,000, got 1"),
    ],
)
def test_invalid_settings_are_refused(name, options, text):
    with pytest.raises(UserError, match=text):
        task_class(name)(**options)


def test_mae_refuses_an_encoder_without_tokens():
    with pytest.raises(UserError, match="choose --encoder vit"):
        task_class("mae")(size=16).heads(ToyEncoder(), ToySource())
