import pytest
import torch

from selftaught.contracts import Layer
from selftaught.errors import UserError
from selftaught.modules.decoders import ChannelwiseDense, Decoder


@pytest.mark.parametrize(
    ("stride", "size", "side"),
    [(8, 32, 32), (8, 32, 8), (16, 64, 16), (4, 30, 30), (4, 32, 12), (2, 32, 8), (1, 16, 4), (16, 16, 16)],
)
def test_decoder_has_the_requested_side_and_uses_every_position(stride, size, side):
    seen = torch.randn(2, 6, -(-size // stride), -(-size // stride), requires_grad=True)
    picture = Decoder(Layer(6, stride), 5, size, side, width=16)(seen)
    assert picture.shape == (2, 5, side, side)
    picture.square().sum().backward()
    assert (seen.grad.abs().sum((0, 1)) > 0).all()


@pytest.mark.parametrize(("stride", "size", "side"), [(4, 30, 30), (8, 48, 48), (4, 32, 12), (8, 32, 32)])
def test_bf16_decoder_differs_by_rounding_only(stride, size, side):
    torch.manual_seed(0)
    decoder = Decoder(Layer(6, stride), 5, size, side, width=16)
    seen = torch.randn(4, 6, -(-size // stride), -(-size // stride), requires_grad=True)
    expected = decoder(seen)
    with torch.autocast("cpu", torch.bfloat16):
        found = decoder(seen).float()
    assert (found - expected).square().mean().sqrt() < 0.02 * expected.std()
    found.square().sum().backward()
    assert (seen.grad.abs().sum((0, 1)) > 0).all()


def test_a_map_position_corresponds_to_a_stride_in_the_image():
    torch.manual_seed(0)
    decoder = Decoder(Layer(3, 4), 3, 64, width=16).eval()
    seen = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        here, there = decoder(seen), decoder(seen.roll((1, 2), (2, 3)))
    inside = slice(20, 44)  # away from the border, which is padded
    torch.testing.assert_close(there.roll((-4, -8), (2, 3))[..., inside, inside], here[..., inside, inside])
    assert here[..., inside, inside].std() > 1e-3


def test_decoder_outputs_are_local():
    torch.manual_seed(0)
    decoder = Decoder(Layer(3, 8), 3, 64, width=16).eval()
    seen = torch.randn(1, 3, 8, 8)
    changed = seen.clone()
    changed[..., :2, :2] += 1
    with torch.no_grad():
        moved = (decoder(changed) - decoder(seen)).abs().sum((0, 1))
    assert (moved[:16, :16] > 0).any()
    assert (moved[48:, 48:] == 0).all()


def test_layers_without_positions_are_rejected():
    with pytest.raises(UserError, match="without positions"):
        Decoder(Layer(16, 0), 3, 32)
    with pytest.raises(UserError, match=r"got \(2, 16, 8\)"):
        Decoder(Layer(8, 2), 3, 8)(torch.zeros(2, 16, 8))


def test_views_smaller_than_the_stride_are_rejected():
    with pytest.raises(UserError, match="8 pixels, got 6"):
        Decoder(Layer(16, 8), 3, 6)


@pytest.mark.parametrize(("channels", "height", "width"), [(256, 6, 6), (5, 3, 4)])
def test_channelwise_dense_layer_mixes_positions_per_channel_then_channels(channels, height, width):
    count = sum(weight.numel() for weight in ChannelwiseDense(channels, height, width).parameters())
    assert count == channels * (height * width) ** 2 + channels**2 + 2 * channels  # the last for the norm
    dense = channels**2 * (height * width) ** 2
    assert count < dense / channels + channels**2 + 2 * channels + 1


def test_channelwise_dense_layer_equals_loops():
    torch.manual_seed(0)
    layer = ChannelwiseDense(3, 2, 4).eval()
    seen = torch.randn(2, 3, 2, 4)
    spread = torch.zeros(2, 3, 8)
    for image in range(2):
        for channel in range(3):
            for here in range(8):
                for there in range(8):
                    weight = layer.weight[channel, here, there]
                    spread[image, channel, there] += (weight * seen[image, channel, here // 4, here % 4]).detach()
    convolution, norm, _ = layer.across
    mixed = torch.einsum("oi,bip->bop", convolution.weight[..., 0, 0], spread)
    expected = (mixed / (norm.running_var[0] + norm.eps) ** 0.5).relu().view(2, 3, 2, 4)
    torch.testing.assert_close(layer(seen), expected)


def test_after_a_channelwise_dense_layer_outputs_depend_on_all_positions():
    torch.manual_seed(0)
    seen = torch.randn(1, 4, 8, 8, requires_grad=True)
    picture = Decoder(Layer(4, 8), 3, 64, width=16)(ChannelwiseDense(4, 8, 8)(seen))
    picture[..., :8, :8].sum().backward()
    assert (seen.grad.abs().sum((0, 1)) > 0).all()


def test_channelwise_dense_layer_rejects_other_map_sizes():
    with pytest.raises(UserError, match=r"built for maps of shape \(4, 8, 8\), got \(4, 4, 4\)"):
        ChannelwiseDense(4, 8, 8)(torch.zeros(1, 4, 4, 4))
