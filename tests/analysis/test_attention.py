"""Attention maps: the formula written out, rotated copies, transformers, and encoders without positions."""

import pytest
import torch
from torch import nn

from selftaught.analysis.attention import activation_map, attention_maps, spatial
from selftaught.contracts import Encoder, Layer
from selftaught.encoders import make_encoder
from selftaught.errors import UserError
from selftaught.figures.attention import OPACITY, overlay
from toys import ToyEncoder


class Flat(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.layers, self.input_mode, self.preprocess = {"flat": Layer(3, 0)}, "color", nn.Identity()

    def features(self, inputs):
        return {"flat": inputs.mean((2, 3))}


def images(count: int = 2, side: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_the_formula_is_that_of_the_paper():
    feature = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    for power in (1, 2, 4, 0.5):
        made = activation_map(feature, power)
        for b in range(2):
            for y in range(3):
                for x in range(4):
                    expected = sum(abs(float(feature[b, c, y, x])) ** power for c in range(5))
                    assert made[b, y, x] == pytest.approx(expected, rel=1e-5)


def test_every_layer_has_a_map_for_every_power():
    encoder = ToyEncoder().eval()
    maps = attention_maps(encoder, images(), powers=(1, 3))
    assert {name: tuple(m.shape) for name, m in maps.items()} == {"first": (2, 2, 8, 8), "second": (2, 2, 4, 4)}
    with torch.no_grad():
        features = encoder.features(encoder.preprocess(images()))
    torch.testing.assert_close(maps["second"][:, 1], features["second"].pow(3).sum(1))
    assert list(attention_maps(encoder, images(), layers=("second",))) == ["second"]


def test_a_flipped_image_has_a_flipped_map_where_the_filters_are_symmetric():
    encoder = ToyEncoder().eval()
    for convolution in (encoder.first, encoder.second):
        convolution.weight.data = (convolution.weight + convolution.weight.flip(3)) / 2
        convolution.stride = (1, 1)
    plain = attention_maps(encoder, images())["second"]
    torch.testing.assert_close(attention_maps(encoder, images().flip(3))["second"], plain.flip(3))


def test_a_transformer_shows_the_attention_that_patches_receive():
    encoder = make_encoder("vit", size=16, patch=4, depth=2, width=24, heads=2).eval()
    given = images(2)
    maps = attention_maps(encoder, given, powers=(1, 2))
    assert list(maps) == ["mean", "head 1", "head 2"]
    with torch.no_grad():
        weights = encoder.attention(given)
    received = torch.stack([sum(weights[:, 1, query, key] for query in range(16)) / 16 for key in range(16)], 1)
    torch.testing.assert_close(maps["head 2"][:, 0], received.view(2, 4, 4))
    torch.testing.assert_close(maps["mean"][:, 1].sum((1, 2)), torch.ones(2))
    assert list(attention_maps(encoder, given, layers=("block01",))) == ["block01"]


def test_sequences_on_a_square_are_maps_and_others_have_no_positions():
    sequence = torch.arange(2 * 9 * 4.0).view(2, 9, 4)
    found = spatial(sequence)
    assert found is not None
    assert found[1, 3, 2, 1] == sequence[1, 7, 3]
    assert spatial(torch.zeros(2, 8, 4)) is None
    assert spatial(torch.zeros(2, 1, 4)) is None
    assert spatial(torch.zeros(2, 4)) is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"layers": ("secnd",)}, "did you mean second"),
        ({"powers": ()}, "--powers expects numbers above 0 and up to 16, got none"),
        ({"powers": (1, -2)}, "got 1 -2"),
        ({"powers": (float("nan"),)}, "got nan"),
    ],
)
def test_wrong_layers_and_powers_are_refused(options, text):
    with pytest.raises(UserError, match=text):
        attention_maps(ToyEncoder(), images(), **options)


def test_an_encoder_without_positions_or_with_infinite_activations_is_refused():
    with pytest.raises(UserError, match="no layer of this encoder has positions"):
        attention_maps(Flat(), images())
    with pytest.raises(UserError, match="flat has no positions"):
        attention_maps(Flat(), images(), layers=("flat",))
    encoder = ToyEncoder()
    encoder.first.weight.data.fill_(torch.nan)
    with pytest.raises(UserError, match="infinity or NaN"):
        attention_maps(encoder, images())


def test_overlays_go_from_black_to_the_brightest_color_over_the_gray_image():
    shown = torch.full((1, 3, 8, 8), 0.5)
    maps = torch.zeros(1, 2, 8, 8)
    maps[0, 0, 2, 3] = 7.0
    drawn = overlay(shown, maps)
    assert drawn.shape == (1, 2, 3, 8, 8)
    brightness = drawn.mean(2)
    assert brightness[0, 0].argmax() == 2 * 8 + 3
    torch.testing.assert_close(brightness[0, 0, 0, 0], torch.tensor((1 - OPACITY) * 0.5), atol=0.01, rtol=0)
    assert brightness[0, 1].std() < 1e-6  # a constant map
