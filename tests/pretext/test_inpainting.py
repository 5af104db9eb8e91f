import io
import math

import pytest
import torch
from torch import nn

from selftaught.errors import UserError
from selftaught.pretext.inpainting import Inpainting, make_critic, mean_color
from toys import ToyEncoder, ToySource

HOLES = ("center", "blocks", "free")


class Fixed(nn.Module):
    """Answers what it was given, and remembers what it was asked."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, asked: torch.Tensor) -> torch.Tensor:
        self.asked = asked
        return self.answer


def setting(task: Inpainting, count: int = 6, seed: int = 0):
    torch.manual_seed(0)
    source, encoder = ToySource(), ToyEncoder(size=task.size)
    batch = source.batch(torch.arange(count), torch.device("cpu"))
    return encoder, task.heads(encoder, source), task.views(batch, torch.Generator().manual_seed(seed))


def learn(task: Inpainting, of_critic: bool, steps: int):
    """The loss of one player before and after it learned while the other stood still."""
    encoder, heads, views = setting(task, count=12)
    loss = task.critic_loss if of_critic else task.loss
    critic = list(heads["critic"].parameters()) if "critic" in heads else []
    others = [w for w in (*encoder.parameters(), *heads.parameters()) if not any(w is c for c in critic)]
    optimizer = torch.optim.Adam(critic if of_critic else others, lr=3e-3)
    trail = []
    for _ in range(steps):
        trail.append(loss(encoder, heads, views)[0])
        optimizer.zero_grad()
        trail[-1].backward()
        optimizer.step()
    return trail[0].item(), trail[-1].item()


@pytest.mark.parametrize("holes", HOLES)
def test_what_is_hidden_is_not_seen_and_what_is_shown_is(holes):
    task = Inpainting(size=16, holes=holes, overlap=0.1)
    encoder, heads, views = setting(task)
    encoder.eval(), heads.eval()
    hidden, images = views["hidden"], views["images"]
    answer = task._prediction(encoder, heads, views)
    other = {**views, "images": torch.where(hidden, 1 - images, images)}
    assert torch.equal(task._prediction(encoder, heads, other), answer)
    other = {**views, "images": torch.where(hidden, images, 1 - images)}
    assert not torch.allclose(task._prediction(encoder, heads, other), answer)


def test_the_hole_is_filled_with_the_mean_colour_of_the_images():
    task, source = Inpainting(size=16), ToySource()
    encoder, heads, views = setting(task)
    expected = source.images.double().mean((0, 2, 3)).float()
    torch.testing.assert_close(mean_color(source, 16).flatten(), expected)
    shown = task.visualize(encoder, heads, views)["filled"][..., :16]
    for image, hidden, holed in zip(views["images"], views["hidden"][:, 0], shown, strict=True):
        torch.testing.assert_close(holed[:, hidden], expected[:, None].expand(3, int(hidden.sum())))
        assert torch.equal(holed[:, ~hidden], image[:, ~hidden])


@pytest.mark.parametrize("holes", HOLES)
@pytest.mark.parametrize(("overlap", "width", "weight"), [(0.0, 0, 10.0), (1 / 16, 1, 10.0), (0.13, 2, 3.0)])
def test_the_loss_is_the_mean_square_in_the_hole_with_a_heavier_rim_around_it(holes, overlap, width, weight):
    task = Inpainting(size=16, holes=holes, overlap=overlap, overlap_weight=weight)
    encoder, heads, views = setting(task, count=3)
    decoded = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    heads["decoder"] = Fixed(decoded)
    loss, outputs = task.loss(encoder, heads, views)
    total, pixels, off, holed = 0.0, 0, 0.0, 0
    for image in range(3):
        hidden = {(y, x) for y, x in views["hidden"][image, 0].nonzero().tolist()}
        for y in range(16):
            for x in range(16):
                near = any((y + v, x + u) in hidden for v in range(-width, width + 1) for u in range(-width, width + 1))
                if not near:
                    continue
                errors = [
                    math.tanh(decoded[image, c, y, x]) - (2 * views["images"][image, c, y, x].item() - 1)
                    for c in range(3)
                ]
                inside = (y, x) in hidden
                total += (1 if inside else weight) * sum(e**2 for e in errors) / 3
                pixels += 1
                off += sum(abs(e) for e in errors) / 6 * inside
                holed += inside
    assert loss.item() == pytest.approx(total / pixels, rel=1e-4)
    assert outputs["hole_error"].item() == pytest.approx(off / holed, rel=1e-4)


@pytest.mark.parametrize("holes", HOLES)
def test_a_perfect_decoder_has_no_loss_and_shows_the_image_itself(holes):
    task = Inpainting(size=16, holes=holes)
    encoder, heads, views = setting(task)
    heads["decoder"] = Fixed(torch.atanh(2 * views["images"] - 1))
    assert task.loss(encoder, heads, views)[0] < 1e-10
    holed, filled, true = task.visualize(encoder, heads, views)["filled"].split(16, 3)
    torch.testing.assert_close(filled, true, atol=1e-5, rtol=0)
    assert torch.equal(true, views["images"])
    assert not torch.allclose(holed, true)


@pytest.mark.parametrize("holes", HOLES)
def test_what_is_shown_keeps_the_true_pixels_around_the_hole(holes):
    task = Inpainting(size=16, holes=holes)
    encoder, heads, views = setting(task)
    heads["decoder"] = Fixed(torch.full((6, 3, 16, 16), -20.0))
    _, filled, true = task.visualize(encoder, heads, views)["filled"].split(16, 3)
    hidden = views["hidden"].expand(-1, 3, -1, -1)
    assert torch.equal(filled[~hidden], true[~hidden])
    assert (filled[hidden] == 0).all()


@pytest.mark.parametrize("holes", HOLES)
def test_the_critic_sees_the_filling_alone_or_the_whole_view_with_its_hole_filled(holes):
    task = Inpainting(size=16, holes=holes, adversarial=0.3)
    encoder, heads, views = setting(task)
    heads["decoder"] = Fixed(torch.full((6, 3, 16, 16), 20.0))
    heads["critic"] = critic = Fixed(torch.tensor([[2.0], [-1.0]]))
    loss, outputs = task.loss(encoder, heads, views)
    filled = torch.where(views["hidden"], 1.0, 2 * views["images"] - 1)
    assert torch.equal(critic.asked, filled[..., 4:12, 4:12] if holes == "center" else filled)
    fooled = -(math.log(1 / (1 + math.exp(-2))) + math.log(1 / (1 + math.exp(1)))) / 2  # the mean of -log D
    assert outputs["adversarial"].item() == pytest.approx(fooled)
    assert loss.item() == pytest.approx(0.7 * outputs["l2"].item() + 0.3 * fooled)


def test_the_critics_loss_is_the_cross_entropy_of_real_and_filled():
    task = Inpainting(size=16, holes="free", adversarial=0.001)
    encoder, heads, views = setting(task)

    class Brightness(nn.Module):
        def forward(self, pictures):
            return 3 * pictures.mean((1, 2, 3))[:, None]

    heads["critic"] = Brightness()
    heads["decoder"] = Fixed(torch.full((6, 3, 16, 16), 20.0))
    loss, outputs = task.critic_loss(encoder, heads, views)
    real = 3 * (2 * views["images"] - 1).mean((1, 2, 3))
    made = 3 * torch.where(views["hidden"], 1.0, 2 * views["images"] - 1).mean((1, 2, 3))
    right = [*(1 / (1 + (-real).exp())), *(1 - 1 / (1 + (-made).exp()))]
    assert loss.item() == pytest.approx(-sum(math.log(p) for p in right) / 12, rel=1e-5)
    assert outputs["accuracy_on_real"].item() == pytest.approx(sum(p > 0.5 for p in right[:6]) / 6)
    assert outputs["accuracy_on_filled"].item() == pytest.approx(sum(p > 0.5 for p in right[6:]) / 6)


def test_each_player_learns_from_its_own_loss_alone():
    task = Inpainting(size=16, holes="center", adversarial=0.5)
    encoder, heads, views = setting(task)
    critic = set(heads["critic"].parameters())
    others = {*encoder.parameters(), *heads.parameters()} - critic
    task.critic_loss(encoder, heads, views)[0].backward()
    assert all(weight.grad is None for weight in others)
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in critic)
    for weight in critic:
        weight.grad = None
        weight.requires_grad_(False)
    task.loss(encoder, heads, views)[0].backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in others)


@pytest.mark.parametrize("holes", HOLES)
def test_either_player_wins_while_the_other_stands_still(holes):
    before, after = learn(Inpainting(size=16, holes=holes, adversarial=0.001), True, 40)
    assert before == pytest.approx(math.log(2), abs=0.1)
    assert after < 0.7 * before
    before, after = learn(Inpainting(size=16, holes=holes, adversarial=0.5), False, 40)
    assert after < 0.8 * before


def test_an_untrained_critic_guesses():
    scores = []
    task = Inpainting(size=16, holes="free", adversarial=0.001)
    assert task.chance(ToySource(), 12) == {"accuracy_on_real": 0.5, "accuracy_on_filled": 0.5}
    assert Inpainting(size=16).chance(ToySource(), 12) == {}
    encoder, heads, views = setting(task)
    for seed in range(100):
        torch.manual_seed(seed)
        heads["critic"] = make_critic(16)
        scores.append([float(share) for share in task.critic_loss(encoder, heads, views)[1].values()])
    mean, std = torch.tensor(scores).mean(0), torch.tensor(scores).std(0)
    assert ((mean - 0.5).abs() < 4 * std / 10).all()


def test_saving_restores_the_opponent_too():
    task = Inpainting(size=16, adversarial=0.1)
    encoder, heads, views = setting(task)
    task.critic_loss(encoder, heads, views)
    file = io.BytesIO()
    torch.save([encoder.state_dict(), heads.state_dict()], file)
    expected = task.loss(encoder, heads, views)[0]
    torch.manual_seed(1)
    other, others = ToyEncoder(size=16), task.heads(ToyEncoder(size=16), ToySource())
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other.load_state_dict(saved[0]), others.load_state_dict(saved[1])
    assert torch.equal(task.loss(other, others, views)[0], expected)


def test_the_critics_weights_have_norm_one():
    layers = [module for module in make_critic(16) if hasattr(module, "parametrizations")]
    assert len(layers) == 3
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("side", [3, 5, 16, 30, 32, 64])
def test_the_critic_reads_every_pixel(side):
    torch.manual_seed(0)
    pictures = torch.randn(2, 3, side, side, requires_grad=True)
    judged = make_critic(side, width=8)(pictures)
    assert judged.shape == (2, 1)
    judged.sum().backward()
    read = pictures.grad.abs().sum((0, 1)) > 0
    assert read[: side - side % 4, : side - side % 4].all()


@pytest.mark.slow
@pytest.mark.parametrize("holes", HOLES)
def test_it_learns_more_than_the_mean_colour_of_each_hole(holes):
    task = Inpainting(size=16, holes=holes, scale=(1.0, 1.0))
    _, after = learn(task, False, 200)
    views = setting(task, count=12)[2]
    truth, hidden = 2 * views["images"] - 1, views["hidden"]
    means = (truth * hidden).sum((2, 3), keepdim=True) / hidden.sum((2, 3), keepdim=True)
    assert after < 0.8 * ((truth - means).square().mean(1, keepdim=True) * hidden).sum() / hidden.sum()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"share": 0.0}, "masked fraction of the area, must be above 0 and below 1, got 0;"),
        ({"cells": 0}, "--cells must be from 1 to 256, got 0"),
        ({"overlap": 0.5}, "--overlap must be at least 0 and below 0.5"),
        ({"overlap_weight": 0.0}, "--overlap-weight must be above 0"),
        ({"adversarial": 1.0}, "--adversarial must be at least 0 and below 1"),
        ({"scale": (0.9, 0.1)}, "--scale must be two fractions"),
    ],
)
def test_what_cannot_be_asked_is_refused(wrong, says):
    with pytest.raises(UserError, match=says):
        Inpainting(**wrong)


def test_an_encoder_without_a_map_is_refused():
    class Flat(ToyEncoder):
        def features(self, inputs):
            return {"second": super().features(inputs)["second"].flatten(2).transpose(1, 2)}

    with pytest.raises(UserError, match=r"a map \(B, C, H, W\), got \(1, 16, 16\)"):
        Inpainting(size=16).heads(Flat(), ToySource())
