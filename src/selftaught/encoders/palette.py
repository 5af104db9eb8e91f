"""Colours as tokens: each pixel becomes the nearest of a few hundred colours that k-means found in the images.

Chen et al. 2020 (iGPT), section "Context Reduction": k-means of (R, G, B) with k = 512, so 9 bits, which makes
sequences three times shorter than those of red, green and blue in turn.

The palette is a buffer: it travels with weights and checkpoints. It depends on the images alone and on no seed.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.warp import identity
from selftaught.contracts import Source
from selftaught.errors import UserError

IMAGES, PIXELS = 1024, 65_536
"""The most images that are read for a palette, evenly spread over the source, and the most of their pixels."""


class Palette(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, side * side) int64, row by row: the index of each pixel's nearest colour.

    Args:
        size: K, how many colours; until `fit` evenly random ones.
        side: of the picture that is read, in pixels; images of another size are resized to it first.
    """

    colors: Tensor
    """(K, 3) in [0, 1]."""

    def __init__(self, size: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("colors", torch.rand(size, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, L) int64."""
        return nearest(self._pixels(images), self.colors)

    def pictures(self, tokens: Tensor) -> Tensor:
        """(B, L) int64 -> (B, 3, side, side) in [0, 1]."""
        return self.colors[tokens].transpose(1, 2).reshape(-1, 3, self.side, self.side)

    def fit(self, source: Source) -> None:
        """Learn the colours of the images.

        Raises:
            UserError: the images have fewer colours.
        """
        generator = torch.Generator().manual_seed(0)
        pixels = torch.cat(
            [self._pixels(b.warp(identity(len(b)), self.side)).flatten(0, 1) for b in source.sample(IMAGES)]
        )
        kept = torch.randperm(len(pixels), generator=generator)[:PIXELS]
        found, counts = torch.unique(pixels[kept], dim=0, return_counts=True)
        if len(found) < len(self.colors):
            raise UserError(
                f"a palette of {len(self.colors)} needs as many colours in the images, found {len(found)} among "
                f"{len(kept):,} pixels of {source.name}: give --colors {max(2, len(found))} or fewer."
            )
        self.colors.copy_(k_means(found, counts.float(), len(self.colors), generator))

    def _pixels(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, L, 3)."""
        if images.shape[-2:] != (self.side, self.side):
            images = F.adaptive_avg_pool2d(images, self.side)
        return images.flatten(2).transpose(1, 2)


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """The index of the centre nearest to each point: (..., C) and (K, C) -> (...) int64."""
    # |x - c|^2 = |x|^2 - 2 (x c - |c|^2 / 2). Not under autocast: bfloat16 cannot tell neighbouring colours apart.
    with torch.autocast(points.device.type, enabled=False):
        scores = torch.addmm(centres.square().sum(1) / -2, points.flatten(0, -2), centres.T)
        return scores.max(1).indices.view(points.shape[:-1])  # argmax takes twice as long on a CPU


def k_means(points: Tensor, weights: Tensor, count: int, generator: torch.Generator, iterations: int = 20) -> Tensor:
    """Centres of weighted points, from the seeds of k-means++ (Arthur and Vassilvitskii 2007) by Lloyd's steps.

    Args:
        points: (n, C) float32, all different.
        weights: (n,) above 0: how often each point was seen.
        count: K, at most n.
        generator: draws the seeds.
        iterations: of Lloyd.

    Returns:
        (K, C) float32, all different.
    """
    assert len(points) >= count
    chosen = torch.empty(count, dtype=torch.int64)
    distance = torch.ones(len(points), dtype=torch.float64)
    for number, draw in enumerate(torch.rand(count, generator=generator, dtype=torch.float64)):
        total = (distance * weights).cumsum(0)  # a point that is a seed has distance 0 and is not drawn again
        chosen[number] = torch.searchsorted(total, draw * total[-1], right=True)
        off = (points - points[chosen[number]]).square().sum(1)
        distance = off.double() if number == 0 else torch.minimum(distance, off)
    centres = points[chosen]
    for _ in range(iterations):
        owner = nearest(points, centres)
        mass = torch.zeros(count).index_add_(0, owner, weights)
        moved = torch.zeros_like(centres).index_add_(0, owner, points * weights[:, None]) / mass[:, None]
        centres = torch.where(mass[:, None] > 0, moved, centres)  # nobody's centre stays where it is
    return centres
