import math

import pytest
import torch
from torch.nn.functional import max_pool2d

from selftaught.encoders.alexnet import AlexNet
from selftaught.errors import UserError


@pytest.mark.parametrize(
    ("size", "sides"),
    [
        (224, (55, 27, 13, 13, 13)),  # Krizhevsky et al. 2012, figure 2
        (128, (31, 15, 7, 7, 7)),
        (96, (48, 24, 12, 12, 12)),
        (64, (32, 16, 8, 8, 8)),
        (32, (32, 16, 8, 8, 8)),
    ],
)
def test_map_sizes_match_the_paper(size, sides):
    features = AlexNet(size=size).eval().features(torch.rand(1, 3, size, size))
    shapes = {name: tuple(f.shape[1:]) for name, f in features.items()}
    widths = (96, 256, 384, 384, 256)
    assert shapes == {f"conv{n}": (w, s, s) for n, w, s in zip(range(1, 6), widths, sides, strict=True)}


@pytest.mark.parametrize(("form", "kernel"), [("large", 11), ("small", 5)])
def test_number_of_parameters_equals_a_count_by_hand(form, kernel):
    convolutions = 96 * 3 * kernel**2 + 256 * 96 * 25 + 384 * 256 * 9 + 384 * 384 * 9 + 256 * 384 * 9
    norms = 2 * (96 + 256 + 384 + 384 + 256)
    assert sum(p.numel() for p in AlexNet(form=form).parameters()) == convolutions + norms


@pytest.mark.parametrize(("form", "padding"), [("large", 0), ("small", 1)])
def test_conv1_and_conv2_are_taken_before_their_pools(form, padding):
    encoder = AlexNet(form=form, size=96).eval()
    found = encoder.features(torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)))
    for name, before in (("conv2", "conv1"), ("conv3", "conv2")):
        _, convolution, norm, _ = encoder.convolutions[name]
        pooled = max_pool2d(found[before], 3, 2, padding)
        torch.testing.assert_close(found[name], norm(convolution(pooled)).clamp(min=0))
    for name, before in (("conv4", "conv3"), ("conv5", "conv4")):
        convolution, norm, _ = encoder.convolutions[name]
        torch.testing.assert_close(found[name], norm(convolution(found[before])).clamp(min=0))


def test_weights_are_initialized_normal_by_fan_out():
    torch.manual_seed(0)
    weight = AlexNet().convolutions["conv3"][1].weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 384)), rel=0.01)


def test_unknown_variant_is_rejected():
    with pytest.raises(UserError, match=r"no form of AlexNet called 'smal': did you mean small\?"):
        AlexNet(form="smal")
