"""Decoders: from the map of an encoder's last layer back to a picture.

No connections skip the middle: all that a decoder knows of the image has passed the layer it reads, as in the nets of
Zhang et al. 2016 (colorization) and Pathak et al. 2016 (inpainting), so that layer has to learn it.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Layer
from selftaught.errors import UserError
from selftaught.modules.heads import require_map
from selftaught.modules.precision import at_least_float32


class Decoder(nn.Module):
    """(B, C, h, w), a map -> (B, channels, side, side), by up-convolutions that double it and halve its channels.

    A 3 x 3 convolution to `width` channels, then 4 x 4 up-convolutions of stride 2 (as in Zhang et al. and DCGAN), each
    with batch norm and ReLU; how many, the layer's stride decides. Where doubling does not meet `side`, because the
    view is no multiple of the stride or `side` no power of two of it, the last map is resized bilinearly. A 1 x 1
    convolution computes the output; nothing follows it, so the output is unbounded.

    Args:
        layer: the map to decode.
        channels: of the picture.
        size: pixels along the view that the encoder was shown.
        side: pixels along the picture; None means `size`.
        width: channels of the smallest map.

    Raises:
        UserError: the layer has no positions, or the view is smaller than one of its steps.
    """

    def __init__(self, layer: Layer, channels: int, size: int, side: int | None = None, width: int = 128) -> None:
        super().__init__()
        require_map(layer, "a decoder")
        if size < layer.stride:
            raise UserError(
                f"the views must span a step of the encoder's last layer, {layer.stride} pixels, found {size}: "
                "give a larger --size."
            )
        self.side = size if side is None else side
        doublings = max(0, round(math.log2(self.side * layer.stride / size)))
        widths = [max(16, width // 2**n) for n in range(doublings + 1)]
        self.blocks = nn.Sequential(_normed(nn.Conv2d(layer.channels, width, 3, padding=1, bias=False)))
        for inputs, outputs in pairwise(widths):
            self.blocks.append(_normed(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)))
        self.read = nn.Conv2d(widths[-1], channels, 1)

    def forward(self, seen: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, channels, side, side)."""
        if seen.ndim != 4:
            raise UserError(
                f"a decoder needs an encoder whose last layer is a map (B, C, H, W), found {tuple(seen.shape)}: "
                "choose another --encoder."
            )
        seen = self.blocks(seen)
        if seen.shape[-1] != self.side:
            # PyTorch has no antialiased interpolation in bfloat16 on CPUs.
            full = at_least_float32(seen)
            seen = F.interpolate(full, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True)
        read: Tensor = self.read(seen)
        return read


class ChannelwiseDense(nn.Module):
    """(B, C, h, w) -> (B, C, h, w): what one position answers may come from all of them.

    The channel-wise fully connected layer of Pathak et al. 2016, section 3.1: one dense map per channel from all
    positions to all positions, without weights between channels, then a convolution of stride 1 that passes between
    channels. C (h w)^2 weights, where a dense layer would have C^2 (h w)^2. Without it a decoder is local, and the
    middle of a hole would be answered by what the encoder found in the middle of a hole.

    Args:
        channels: C.
        height: h.
        width: w.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.shape = channels, height, width
        bound = (height * width) ** -0.5  # as torch's own dense layers begin
        self.weight = nn.Parameter(torch.empty(channels, height * width, height * width).uniform_(-bound, bound))
        self.across = _normed(nn.Conv2d(channels, channels, 1, bias=False))

    def forward(self, seen: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        if tuple(seen.shape[1:]) != self.shape:
            raise UserError(
                f"a channel-wise dense layer reads the map it was built for, {self.shape}, found "
                f"{tuple(seen.shape[1:])}: show views of one --size."
            )
        spread = seen.flatten(2).transpose(0, 1) @ self.weight  # (C, B, h w)
        mixed: Tensor = self.across(spread.transpose(0, 1).reshape(seen.shape))
        return mixed


def _normed(convolution: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))
