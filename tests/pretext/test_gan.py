import math

import pytest
import torch
from torch import nn

from selftaught.encoders import make_encoder
from selftaught.encoders.convnet import ConvNet
from selftaught.errors import UserError
from selftaught.pretext.gan import GAN
from toys import ToyEncoder, ToySource


def setting(task: GAN, encoder=None, count: int = 8, seed: int = 0):
    torch.manual_seed(0)
    source, encoder = ToySource(), encoder or ToyEncoder(size=task.size)
    batch = source.batch(torch.arange(count), torch.device("cpu"))
    return encoder, task.heads(encoder, source), task.views(batch, torch.Generator().manual_seed(seed))


class Given(nn.Module):
    """Answers as it was told, real and generated in turn."""

    def __init__(self, *answers: list[float]) -> None:
        super().__init__()
        self.answers = [torch.tensor(answer)[:, None] for answer in answers]

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        return self.answers.pop(0)


def test_the_loss_is_goodfellows_and_the_shares_are_counted():
    task = GAN(size=16)
    encoder, heads, views = setting(task, count=4)
    real, generated = [2.0, -1.0, 0.5, 3.0], [-2.0, 0.5, 1.0, -4.0]
    heads["real"] = Given(real, generated)
    loss, outputs = task.loss(encoder, heads, views)

    def probability(logit: float) -> float:
        return 1 / (1 + math.exp(-logit))

    value = sum(math.log(probability(x)) for x in real) / 4 + sum(math.log(1 - probability(x)) for x in generated) / 4
    assert loss.item() == pytest.approx(-value / 2, rel=1e-5)
    assert outputs["accuracy_on_real"] == 0.75
    assert outputs["accuracy_on_generated"] == 0.5


def test_the_generator_is_after_the_log_of_d():
    task = GAN(size=16)
    encoder, heads, views = setting(task, count=2)
    heads["real"] = Given([1.0, -3.0])
    expected = -sum(math.log(1 / (1 + math.exp(-x))) for x in (1.0, -3.0)) / 2
    assert task.critic_loss(encoder, heads, views)[0].item() == pytest.approx(expected, rel=1e-5)


def test_each_player_moves_its_own_weights_alone():
    """As the loop has it, who freezes the other; here the loss of the encoder must not reach the generator at all."""
    task = GAN(size=16)
    encoder, heads, views = setting(task)
    task.loss(encoder, heads, views)[0].backward()
    assert all(weight.grad is None for weight in heads["generator"].parameters())
    assert all(weight.grad.abs().sum() > 0 for weight in encoder.parameters())


def test_running_statistics_are_those_of_images_and_of_nothing_generated():
    task = GAN(size=16)
    encoder, heads, views = setting(task, ConvNet(size=16, width=8))
    torch.manual_seed(1)
    other = ConvNet(size=16, width=8)
    other.load_state_dict(encoder.state_dict())
    task.critic_loss(encoder, heads, views)
    task.loss(encoder, heads, views)
    other(views["images"])
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in encoder.state_dict().items())


def test_real_and_generated_are_batches_of_their_own():
    """Were they normed together, what is told of images would depend on what was generated."""
    task = GAN(size=16)
    encoder, heads, views = setting(task, ConvNet(size=16, width=8))
    asked = []
    heads["real"].register_forward_hook(lambda _, inputs, out: asked.append(out))
    task.loss(encoder, heads, views)
    task.loss(encoder, heads, {**views, "noise": -views["noise"]})
    assert torch.equal(asked[0], asked[2])
    assert not torch.equal(asked[1], asked[3])


@pytest.mark.parametrize("crop", [0.75, 1.0])
def test_views_and_pictures_have_the_side_of_a_crop(crop):
    task = GAN(size=16, crop=crop, latent=7)
    encoder, heads, views = setting(task)
    side = round(16 * crop)
    assert views["images"].shape == (8, 3, side, side)
    assert views["noise"].shape == (8, 7)
    assert task.visualize(encoder, heads, views)["generated"].shape == (8, 3, side, side)


@pytest.mark.slow
def test_the_generator_comes_to_make_the_mean_image_and_neither_wins():
    """Of an encoder without batch norm: normed in batches of their own, images and pictures have no mean colour."""
    task = GAN(size=16, crop=1.0, scale=(1.0, 1.0), flip=False)
    encoder, heads, views = setting(task, count=24)
    mean = views["images"].mean(0)
    before = (heads["generator"](views["noise"]).mean(0) - mean).square().mean()
    players = [[*heads["generator"].parameters()], [*encoder.parameters(), *heads["real"].parameters()]]
    optimizers = [torch.optim.Adam(weights, lr=1e-3, betas=(0.5, 0.99)) for weights in players]
    generator = torch.Generator().manual_seed(1)
    batch = ToySource().batch(torch.arange(24), torch.device("cpu"))
    made = []
    for _ in range(300):
        views = task.views(batch, generator)
        for ask, optimizer in zip((task.critic_loss, task.loss), optimizers, strict=True):
            loss = ask(encoder, heads, views)[0]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        made.append(heads["generator"](views["noise"]).detach().mean(0))
    # Over many steps, since a game goes round in rings.
    after = (torch.stack(made[100:]).mean(0) - mean).square().mean()
    assert after < 0.6 * before
    assert 0.5 < loss < 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"latent": 0}, "--latent must be from 1 to 16,384, got 0"),
        ({"generator_width": 0}, "--generator-width must be from 1 to 1,024, got 0"),
        ({"scale": (0.9, 0.1)}, "--scale must be two fractions"),
        ({"crop": 1.5}, "--crop, a fraction of --size, must be above 0 and at most 1, got 1.5"),
    ],
)
def test_what_cannot_be_asked_is_refused(wrong, says):
    with pytest.raises(UserError, match=says):
        GAN(**wrong)


def test_a_reader_of_tokens_is_refused():
    with pytest.raises(UserError, match="got one with token input, through which the generator gets no gradient"):
        GAN(size=16).heads(make_encoder("gpt", size=16), ToySource())


def test_views_too_small_for_a_generator_are_refused():
    with pytest.raises(UserError, match="at least 8 pixels, got 6"):
        GAN(size=8).heads(ToyEncoder(), ToySource())
