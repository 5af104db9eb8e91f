"""Decoders: from the feature map of an encoder's last layer to an image.

There are no skip connections, as in the networks of Zhang et al. 2016 (colorization) and Pathak et al. 2016
(inpainting): the last layer is the decoder's only input, so it has to encode all that the decoder needs.
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
    """(B, C, h, w), a map -> (B, channels, side, side), by transposed convolutions that double its side.

    A 3 x 3 convolution to `width` channels, then 4 x 4 transposed convolutions of stride 2 that halve the channels (as
    in Zhang et al. and DCGAN), each with batch norm and ReLU; their number depends on the layer's stride. Where
    doubling does not give `side`, because the view is not a multiple of the stride or `side` not a power of two times
    the map, the last map is resized bilinearly. A 1 x 1 convolution computes the output, which is unbounded.

    Args:
        layer: the layer to decode.
        channels: channels of the output.
        size: side in pixels of the view that the encoder processes.
        side: side in pixels of the output; None means `size`.
        width: channels of the smallest map.

    Raises:
        UserError: the layer has no positions, or the view is smaller than its stride.
    """

    def __init__(self, layer: Layer, channels: int, size: int, side: int | None = None, width: int = 128) -> None:
        super().__init__()
        require_map(layer, "a decoder")
        if size < layer.stride:
            raise UserError(
                f"views must be at least as large as the stride of the encoder's last layer, {layer.stride} pixels, "
                f"got {size}; increase --size."
            )
        self.side = size if side is None else side
        doublings = max(0, round(math.log2(self.side * layer.stride / size)))
        widths = [max(16, width // 2**n) for n in range(doublings + 1)]
        self.blocks = nn.Sequential(_normed(nn.Conv2d(layer.channels, width, 3, padding=1, bias=False)))
        for inputs, outputs in pairwise(widths):
            self.blocks.append(_normed(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)))
        self.output = nn.Conv2d(widths[-1], channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, channels, side, side)."""
        if features.ndim != 4:
            raise UserError(
                f"a decoder needs an encoder whose last layer is a map (B, C, H, W), got {tuple(features.shape)}; "
                "choose another --encoder."
            )
        features = self.blocks(features)
        if features.shape[-1] != self.side:
            # PyTorch has no antialiased interpolation in bfloat16 on CPUs.
            features = F.interpolate(
                at_least_float32(features),
                (self.side, self.side),
                mode="bilinear",
                align_corners=False,
                antialias=True,
            )
        decoded: Tensor = self.output(features)
        return decoded


class ChannelwiseDense(nn.Module):
    """(B, C, h, w) -> (B, C, h, w): every output position depends on all input positions.

    The channel-wise fully connected layer of Pathak et al. 2016, section 3.1: one dense map per channel from all
    positions to all positions, without weights between channels, then a convolution of stride 1 that mixes channels. It
    has C (h w)^2 weights, where a dense layer has C^2 (h w)^2. Without it a decoder is local, and the middle of a
    masked region would be predicted from the features of masked pixels.

    Args:
        channels: C.
        height: h.
        width: w.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.shape = channels, height, width
        bound = (height * width) ** -0.5  # initialization of nn.Linear
        self.weight = nn.Parameter(torch.empty(channels, height * width, height * width).uniform_(-bound, bound))
        self.across = _normed(nn.Conv2d(channels, channels, 1, bias=False))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        if tuple(features.shape[1:]) != self.shape:
            raise UserError(
                f"the channel-wise dense layer was built for maps of shape {self.shape}, got "
                f"{tuple(features.shape[1:])}; all views must have the same --size."
            )
        spread = features.flatten(2).transpose(0, 1) @ self.weight  # (C, B, h w)
        mixed: Tensor = self.across(spread.transpose(0, 1).reshape(features.shape))
        return mixed


def _normed(convolution: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))
