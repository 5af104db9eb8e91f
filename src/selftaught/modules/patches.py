"""Patches of images, and the decoder of masked autoencoders (He et al. 2022, section 3).

Letters: B images, S pixels along a view, L patches of p x p pixels, n visible patches, C and D channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def to_patches(images: Tensor, patch: int) -> Tensor:
    """(B, 3, S, S) -> (B, L, 3 p^2), row by row."""
    return F.unfold(images, patch, stride=patch).transpose(1, 2)


def from_patches(patches: Tensor, patch: int) -> Tensor:
    """(B, L, 3 p^2) -> (B, 3, S, S)."""
    side = patch * round(patches.shape[1] ** 0.5)
    return F.fold(patches.transpose(1, 2), (side, side), patch, stride=patch)


class PatchDecoder(nn.Module):
    """Predicts all patches from the encoded visible ones: a transformer over these and a mask token for each other.

    Args:
        channels: C, of the encoder.
        outputs: values per patch.
        length: L.
        width: D, a multiple of 4.
        depth: number of blocks.
    """

    def __init__(self, channels: int, outputs: int, length: int, width: int, depth: int) -> None:
        from timm.models.vision_transformer import Block  # here, because importing timm takes seconds

        super().__init__()
        self.embed = nn.Linear(channels, width)
        self.mask = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, length, width))
        self.blocks = nn.Sequential(*(Block(width, 4, qkv_bias=True) for _ in range(depth)))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, encoded: Tensor, order: Tensor) -> Tensor:
        """Predict all patches.

        Args:
            encoded: (B, n, C), the visible patches.
            order: (B, L), all patches, the visible ones first, in the order of `encoded`.

        Returns:
            (B, L, outputs), row by row.
        """
        visible = self.embed(encoded)
        hidden = self.mask.to(visible.dtype).expand(len(visible), order.shape[1] - visible.shape[1], -1)
        place = order.argsort(1)[..., None].expand(-1, -1, visible.shape[2])
        tokens = torch.cat([visible, hidden], 1).gather(1, place) + self.places
        predicted: Tensor = self.out(self.blocks(tokens))
        return predicted
