import math

import pytest
import torch
from torch import nn

from selftaught.augment.lab import gamut, lab_to_rgb, rgb_to_lab
from selftaught.errors import UserError
from selftaught.pretext.colorization import Colorization, soft_bins
from toys import ToyEncoder, ToySource

CPU = torch.device("cpu")


class Fixed(nn.Module):
    """Answers what it was given."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(answer)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.answer


class Colored(ToySource):
    """Images of one colour each, none halfway between bins; hue goes round with the index; the last ones are grey."""

    def __init__(self, count: int = 12, grey: int = 0) -> None:
        super().__init__(count)
        angle = torch.arange(count) / count * 2 * math.pi
        chroma = 32 * (torch.arange(count) < count - grey)
        lab = torch.stack([torch.full((count,), 60.0), chroma * angle.cos(), chroma * angle.sin()], 1)
        self.lab = lab
        self.images = lab_to_rgb(lab[:, :, None, None].expand(-1, -1, 16, 16))


def setting(task: Colorization, source: ToySource, indices=range(6)):
    torch.manual_seed(0)
    encoder = ToyEncoder(size=task.size, input_mode="lightness")
    views = task.views(source.batch(torch.tensor(list(indices)), CPU), torch.Generator().manual_seed(0))
    return encoder, task.heads(encoder, source), views


def test_colors_are_the_mean_lab_of_a_position():
    color = pytest.importorskip("skimage.color")
    views = setting(Colorization(crop=1.0, size=16), ToySource())[2]
    lab = torch.from_numpy(color.rgb2lab(views["images"].permute(0, 2, 3, 1).double().numpy()))
    expected = lab[..., 1:].reshape(6, 4, 4, 4, 4, 2).mean((2, 4)).permute(0, 3, 1, 2)
    torch.testing.assert_close(views["colors"].double(), expected, atol=0.01, rtol=0)


@pytest.mark.parametrize("neighbors", [1, 5, 10])
def test_soft_bins_by_brute_force(neighbors):
    centers, colors = gamut(), 25 * torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    near, share = soft_bins(colors, centers, neighbors)
    for color, which, part in zip(colors.tolist(), near, share, strict=True):
        away = sorted((math.dist(color, center), number) for number, center in enumerate(centers.tolist()))[:neighbors]
        gauss = {number: math.exp(-(far**2) / (2 * 5**2)) for far, number in away}
        found = dict(zip(which.tolist(), part.tolist(), strict=True))
        assert found == pytest.approx({n: g / sum(gauss.values()) for n, g in gauss.items()}, abs=1e-3)


def test_weights_are_equation_4_of_the_paper():
    source, centers = Colored(), gamut()
    heads = setting(Colorization(crop=1.0, size=16), source)[1]
    q, points = len(centers), centers.tolist()
    counts = torch.zeros(q)
    for color in source.lab[:, 1:]:
        counts[(centers - color).norm(dim=1).argmin()] += 1
    prior = torch.zeros(q)
    for i in range(q):  # each bin's share spread by a Gaussian of deviation 5
        kernel = torch.tensor([math.exp(-(math.dist(points[i], point) ** 2) / 50) for point in points])
        prior += counts[i] / counts.sum() * kernel / kernel.sum()
    weights = 1 / (0.5 * prior + 0.5 / q)
    torch.testing.assert_close(heads["bins"].weights, weights / (prior * weights).sum(), rtol=1e-4, atol=1e-5)
    assert (prior * heads["bins"].weights).sum().item() == pytest.approx(1, abs=1e-4)


def test_weights_are_finite_however_far_a_bin_is_from_all_that_was_seen():
    weights = setting(Colorization(crop=1.0, size=16, uniform=0.0), Colored())[1]["bins"].weights
    assert weights.isfinite().all()
    assert weights.amin() > 0


def test_with_uniform_1_all_bins_weigh_the_same():
    heads = setting(Colorization(crop=1.0, size=16, uniform=1.0), Colored())[1]
    torch.testing.assert_close(heads["bins"].weights, torch.ones(len(gamut())))


def test_loss_is_equation_2_of_the_paper():
    source, task = Colored(), Colorization(crop=1.0, size=16)
    encoder, heads, views = setting(task, source)
    logits = torch.randn(6, len(gamut()), 4, 4)
    heads["color"] = Fixed(logits)
    expected = 0.0
    for image in range(6):  # of one colour, so its 16 positions have one target
        near, share = (found[0] for found in soft_bins(source.lab[image : image + 1, 1:], gamut(), 5))
        weight = heads["bins"].weights[(gamut() - source.lab[image, 1:]).norm(dim=1).argmin()]
        z = logits[image].softmax(0).flatten(1)
        expected -= weight * (share[:, None] * z[near].log()).sum() / 16 / 6
    torch.testing.assert_close(task.loss(encoder, heads, views)[0], expected, rtol=1e-3, atol=0)


def test_regression_squares_the_error():
    source, task = Colored(), Colorization(crop=1.0, size=16, target="mean")
    encoder, heads, views = setting(task, source)
    heads["color"] = Fixed(torch.zeros(6, 2, 4, 4))
    loss, outputs = task.loss(encoder, heads, views)
    assert loss.item() == pytest.approx((32 / 50) ** 2, rel=1e-3)
    assert outputs["ab_error"].item() == pytest.approx(32, rel=1e-3)


@pytest.mark.parametrize("target", ["classes", "mean"])
def test_gray_images_have_no_gradient(target):
    source, task = Colored(grey=4), Colorization(crop=1.0, size=16, target=target)
    encoder, heads, views = setting(task, source, range(12))
    logits = torch.randn(12, heads["color"].output.out_channels, 4, 4)
    heads["color"] = fixed = Fixed(logits)
    loss, outputs = task.loss(encoder, heads, views)
    loss.backward()
    assert (fixed.answer.grad[:8] != 0).any()
    assert (fixed.answer.grad[8:] == 0).all()
    heads["color"] = Fixed(logits[:8])
    alone, of_alone = task.loss(encoder, heads, {name: tensor[:8] for name, tensor in views.items()})
    torch.testing.assert_close(loss, alone)
    torch.testing.assert_close(outputs["ab_error"], of_alone["ab_error"])


def test_a_batch_of_grey_images_has_a_loss_of_nothing_and_finite_gradients():
    source, task = Colored(grey=4), Colorization(crop=1.0, size=16)
    encoder, heads, views = setting(task, source, range(8, 12))
    loss = task.loss(encoder, heads, views)[0]
    loss.backward()
    assert loss == 0
    assert all(weight.grad.isfinite().all() for weight in (*encoder.parameters(), *heads.parameters()))


def test_a_source_of_grey_images_is_refused():
    source = Colored(grey=12)
    with pytest.raises(UserError, match="all 12 checked images of toy are gray"):
        setting(Colorization(crop=1.0, size=16), source)


@pytest.mark.parametrize("temperature", [1.0, 0.38])
def test_the_annealed_mean_is_equation_5_of_the_paper(temperature):
    task = Colorization(crop=1.0, size=16, temperature=temperature)
    heads = setting(task, Colored())[1]
    logits = 3 * torch.randn(6, len(gamut()), 4, 4)
    z = logits.softmax(1)
    f = (z.log() / temperature).exp() / (z.log() / temperature).exp().sum(1, keepdim=True)
    expected = torch.einsum("bqhw,qc->bchw", f, gamut())
    found = task._decoded(logits.permute(0, 2, 3, 1), heads).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_colder_means_come_nearer_to_the_mode():
    heads = setting(Colorization(crop=1.0, size=16), Colored())[1]
    red, green = ((gamut() - torch.tensor(c)).norm(dim=1).argmin() for c in ([50.0, 40.0], [-50.0, 40.0]))
    logits = torch.full((len(gamut()),), -30.0)
    logits[red], logits[green] = math.log(0.7), math.log(0.3)
    a = [Colorization(crop=1.0, temperature=t)._decoded(logits, heads)[0].item() for t in (1.0, 0.38, 0.05)]
    assert a == pytest.approx([20, 50 * (1 - 2 / (1 + (7 / 3) ** (1 / 0.38))), 50], abs=0.1)


def test_the_answer_knows_the_lightness_alone():
    task = Colorization(crop=1.0, size=16)
    encoder, heads, views = setting(task, Colored())
    encoder.eval(), heads.eval()
    with torch.no_grad():
        answers = task._prediction(encoder, heads, views["images"])
        darker = task._prediction(encoder, heads, 0.5 * views["images"])
    torch.testing.assert_close(answers, answers[:1].expand_as(answers), atol=1e-4, rtol=0)
    assert (darker - answers).abs().max() > 1e-2


def test_grey_answer_and_truth_are_shown_side_by_side():
    source, task = Colored(), Colorization(crop=1.0, size=16, target="mean")
    encoder, heads, views = setting(task, source)
    heads["color"] = Fixed(source.lab[:6, 1:, None, None].expand(-1, -1, 4, 4) / 50)  # the truth
    with torch.no_grad():
        grey, answered, true = task.visualize(encoder, heads, views)["colorized"].split(16, 3)
    assert (grey.amax(1) - grey.amin(1)).max() < 1e-4
    torch.testing.assert_close(rgb_to_lab(grey)[:, :1], rgb_to_lab(true)[:, :1], atol=0.01, rtol=0)
    torch.testing.assert_close(answered, true, atol=1e-3, rtol=0)
    assert torch.equal(true, views["images"])


@pytest.mark.parametrize("target", ["classes", "mean"])
def test_it_learns_colors_that_follow_from_lightness(target):
    source = Colored()
    lightness = torch.linspace(30, 80, 12)
    source.lab[:, 0] = lightness
    source.images = lab_to_rgb(source.lab[:, :, None, None].expand(-1, -1, 16, 16))
    task = Colorization(crop=1.0, size=16, target=target)
    encoder, heads, views = setting(task, source, range(12))
    optimizer = torch.optim.Adam([*encoder.parameters(), *heads.parameters()], lr=1e-2)
    for _ in range(40):
        loss, outputs = task.loss(encoder, heads, views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert outputs["ab_error"] < 10  # 32 for the answer grey, and for that of the opposite hue 64


def test_autocast_changes_no_target():
    colors, centers = 25 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), gamut()
    expected = soft_bins(colors, centers, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = soft_bins(colors, centers, 5)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"shrink": 0}, "--shrink must be from 1 to 4,096, got 0"),
        ({"neighbors": 0}, "--neighbors must be from 1 to 1,000, got 0"),
        ({"uniform": 1.5}, "--uniform must be from 0 to 1"),
        ({"temperature": 0.0}, "--temperature must be from 0.001"),
        ({"scale": (0.0, 1.0)}, "--scale must be two fractions"),
    ],
)
def test_what_cannot_be_asked_is_refused(wrong, says):
    with pytest.raises(UserError, match=says):
        Colorization(crop=1.0, **wrong)


@pytest.mark.parametrize(
    ("size", "says"), [(3, "at least 4 pixels per side for --shrink 4, got 3"), (4, "16 pixels, got")]
)
def test_a_size_the_decoder_cannot_meet_is_refused(size, says):
    encoder = ToyEncoder(input_mode="lightness")
    if size == 4:
        encoder.layers["second"] = type(encoder.layers["second"])(16, 16)
    with pytest.raises(UserError, match=says):
        Colorization(crop=1.0, size=size).heads(encoder, ToySource())
