"""Style transfer: Gatys et al.'s losses as loops, gradients, what the optimization reaches, and what is refused."""

import pytest
import torch

from selftaught.analysis.style import (
    StyleTransfer,
    _Objective,
    channel_scale,
    content_loss,
    default_layers,
    gram,
    style_loss,
    stylize,
    total_variation,
)
from selftaught.encoders import make_encoder
from selftaught.errors import UserError
from toys import ToyEncoder


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return ToyEncoder()


def test_the_style_loss_is_equations_3_and_4_of_the_paper():
    x, a = random(3, 2, 4).double(), random(3, 2, 4, seed=1).double()
    channels, positions = 3, 8
    flat_x, flat_a = x.reshape(3, 8).tolist(), a.reshape(3, 8).tolist()
    total = 0.0
    for i in range(channels):
        for j in range(channels):
            g = sum(flat_x[i][k] * flat_x[j][k] for k in range(positions))
            other = sum(flat_a[i][k] * flat_a[j][k] for k in range(positions))
            total += (g - other) ** 2
    expected = total / (4 * channels**2 * positions**2)
    assert float(style_loss(x, gram(a))) == pytest.approx(expected, rel=1e-12)


def test_the_style_does_not_depend_on_places_and_size():
    x = random(3, 4, 4)
    shuffled = x.flatten(1)[:, torch.randperm(16, generator=torch.Generator().manual_seed(0))].view(3, 2, 8)
    torch.testing.assert_close(gram(shuffled), gram(x))
    torch.testing.assert_close(gram(x.repeat(1, 2, 3)), gram(x))
    assert content_loss(x, shuffled.view(3, 4, 4)) > 0.01


def test_content_loss_and_total_variation_are_written_out():
    x, y = random(2, 2, 3), random(2, 2, 3, seed=1)
    pairs = zip(x.flatten().tolist(), y.flatten().tolist(), strict=True)
    assert float(content_loss(x, y)) == pytest.approx(sum((p - q) ** 2 for p, q in pairs) / 12 / 2, rel=1e-5)
    image = random(3, 3, 4)
    down = [(image[c, r + 1, k] - image[c, r, k]) ** 2 for c in range(3) for r in range(2) for k in range(4)]
    right = [(image[c, r, k + 1] - image[c, r, k]) ** 2 for c in range(3) for r in range(3) for k in range(3)]
    expected = float(sum(down) / len(down) + sum(right) / len(right))
    assert float(total_variation(image)) == pytest.approx(expected, rel=1e-5)


def test_channels_are_divided_by_their_mean_activation():
    x, y = random(3, 2, 2) * torch.tensor([1.0, 5.0, 0.0])[:, None, None], random(3, 4, 4, seed=1)
    y[2] = 0
    scale = channel_scale(x, y)
    for channel in (0, 1):
        expected = (x[channel].mean() + y[channel].mean()) / 2
        torch.testing.assert_close(scale[channel].squeeze(), expected)
    assert 0 < scale[2] <= 0.01 * scale.max()  # a dead channel stays finite


def test_the_gradient_is_that_of_finite_differences(encoder):
    settings = StyleTransfer(style_weight=3, tv_weight=2)
    layers = ("first", "second")
    objective = _Objective(
        encoder.double(), random(3, 8, 8).double(), random(3, 12, 8, seed=1).double(), layers, layers, settings
    )
    image = random(3, 8, 8, seed=2).double()
    loss = lambda given: objective.loss(given)  # noqa: E731
    gradient = torch.autograd.functional.jacobian(loss, image)
    for place in ((0, 1, 1), (2, 7, 4)):
        step = torch.zeros_like(image)
        step[place] = 1e-4
        slope = (objective.loss(image + step) - objective.loss(image - step)) / 2e-4
        torch.testing.assert_close(slope.float(), gradient[place].float(), rtol=0.01, atol=1e-4)


def test_the_content_alone_is_recovered_from_noise_and_the_style_alone_from_the_content(encoder):
    content, style = random(3, 16, 16), random(3, 20, 12, seed=1) ** 3
    settings = StyleTransfer(content_layers=("first",), style_weight=0, steps=40, init="noise", seed=3)
    alone = stylize(encoder, content, style, settings)
    assert alone.losses[-1] < 0.15 * alone.losses[0]  # not 0: units that are off for the noise have no gradient
    assert alone.image.min() >= 0
    assert alone.image.max() <= 1
    styled = stylize(encoder, content, style, StyleTransfer(style_weight=1000, steps=40))
    assert styled.losses[-1] < 0.2 * styled.losses[0]
    assert all(later <= earlier for earlier, later in zip(styled.losses, styled.losses[1:], strict=False))
    assert (styled.image.mean() - style.mean()).abs() < (content.mean() - style.mean()).abs()


def test_the_same_seed_gives_the_same_image_and_another_seed_another_one(encoder):
    def made(seed):
        return stylize(
            encoder, random(3, 12, 12), random(3, 12, 12, seed=1), StyleTransfer(steps=3, init="noise", seed=seed)
        )

    assert torch.equal(made(0).image, made(0).image)
    assert not torch.equal(made(0).image, made(1).image)


def test_total_variation_makes_images_smoother(encoder):
    content, style = random(3, 16, 16), random(3, 16, 16, seed=1)
    rough, smooth = (stylize(encoder, content, style, StyleTransfer(steps=15, tv_weight=w)).image for w in (0, 100))
    assert total_variation(smooth) < 0.5 * total_variation(rough)


def test_it_can_be_stopped_and_keeps_the_image_so_far(encoder):
    seen = []

    def stop(loss):
        seen.append(loss)
        return len(seen) == 3

    result = stylize(encoder, random(3, 12, 12), random(3, 12, 12, seed=1), StyleTransfer(steps=50), stop)
    assert result.steps == 3
    assert list(result.losses[1:]) == seen
    assert not torch.equal(result.image, random(3, 12, 12))


def test_default_layers_are_spread_over_the_depth():
    assert default_layers(["a", "b", "c"]) == (("c",), ("a", "b", "c"))
    assert default_layers(list("abcde")) == (("d",), tuple("abcde"))
    assert default_layers(["a"]) == (("a",), ("a",))
    content, style = default_layers([str(n) for n in range(12)])
    assert content == ("8",)
    assert style == ("0", "3", "6", "8", "11")


@pytest.mark.parametrize("name", ["vit", "gpt", "pixels"])
def test_other_encoders_are_refused_in_a_sentence(name):
    with pytest.raises(UserError, match="style transfer needs the feature maps of a convolutional encoder"):
        stylize(make_encoder(name, size=16), random(3, 16, 16), random(3, 16, 16), StyleTransfer())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"steps": 0}, "--steps must be from 1 to 1,000,000,000,000, got 0"),
        ({"style_weight": -1}, "--style-weight must be from 0 to 1,000,000, got -1"),
        ({"tv_weight": float("nan")}, "--tv-weight"),
        ({"init": "both"}, "--init must be content or noise, got 'both'"),
    ],
)
def test_wrong_settings_are_refused(options, text):
    with pytest.raises(UserError, match=text):
        StyleTransfer(**options)


def test_an_unknown_layer_and_infinite_weights_are_refused(encoder):
    with pytest.raises(UserError, match="did you mean second"):
        stylize(encoder, random(3, 16, 16), random(3, 16, 16), StyleTransfer(style_layers=("secnd",)))
    encoder.first.weight.data.fill_(torch.inf)
    with pytest.raises(UserError, match="infinity or NaN"):
        stylize(encoder, random(3, 16, 16), random(3, 16, 16), StyleTransfer())
