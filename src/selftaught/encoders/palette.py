"""Color palette: quantizes each pixel to the nearest of K colors, the k-means centers of the pixels of the images.

Chen et al. 2020 (iGPT), section "Context Reduction": k-means of (R, G, B) with k = 512, so 9 bits, which makes
sequences three times shorter than separate tokens for red, green and blue.

The palette is a buffer, so it is part of weights and checkpoints. It depends only on the images, not on the seed.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.warp import identity
from selftaught.contracts import Source
from selftaught.errors import UserError

IMAGES, PIXELS = 1024, 65_536
"""Maximum number of images (evenly spaced in the source) and of their pixels that a palette is fitted on."""


class Palette(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, side * side) int64, row by row: the index of the color nearest to each pixel.

    Args:
        size: K, number of colors; before `fit` they are uniformly random.
        side: side of the quantized image in pixels; images of another size are resized to it first.
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
        """Fit the palette by k-means on pixels of the images.

        Raises:
            UserError: the images have fewer than K colors.
        """
        generator = torch.Generator().manual_seed(0)
        pixels = torch.cat(
            [self._pixels(b.warp(identity(len(b)), self.side)).flatten(0, 1) for b in source.sample(IMAGES)]
        )
        sample = torch.randperm(len(pixels), generator=generator)[:PIXELS]
        distinct, counts = torch.unique(pixels[sample], dim=0, return_counts=True)
        if len(distinct) < len(self.colors):
            raise UserError(
                f"a palette of {len(self.colors)} needs as many distinct colors, but {len(sample):,} pixels of "
                f"{source.name} have {len(distinct)}: give --colors {max(2, len(distinct))} or fewer."
            )
        self.colors.copy_(k_means(distinct, counts.float(), len(self.colors), generator))

    def _pixels(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, L, 3)."""
        if images.shape[-2:] != (self.side, self.side):
            images = F.adaptive_avg_pool2d(images, self.side)
        return images.flatten(2).transpose(1, 2)


def nearest(points: Tensor, centers: Tensor) -> Tensor:
    """The index of the center nearest to each point: (..., C) and (K, C) -> (...) int64."""
    # |x - c|^2 = |x|^2 - 2 (x c - |c|^2 / 2). No autocast: bfloat16 cannot distinguish neighboring colors.
    with torch.autocast(points.device.type, enabled=False):
        scores = torch.addmm(centers.square().sum(1) / -2, points.flatten(0, -2), centers.T)
        return scores.max(1).indices.view(points.shape[:-1])  # argmax takes twice as long on a CPU


def k_means(points: Tensor, weights: Tensor, count: int, generator: torch.Generator, iterations: int = 20) -> Tensor:
    """K-means of weighted points: k-means++ seeding (Arthur and Vassilvitskii 2007), then Lloyd's iterations.

    Args:
        points: (n, C) float32, all different.
        weights: (n,) above 0: multiplicity of each point.
        count: K, at most n.
        generator: samples the seeds.
        iterations: number of Lloyd's iterations.

    Returns:
        Centers (K, C) float32, all different.
    """
    assert len(points) >= count
    chosen = torch.empty(count, dtype=torch.int64)
    distance = torch.ones(len(points), dtype=torch.float64)
    for number, draw in enumerate(torch.rand(count, generator=generator, dtype=torch.float64)):
        total = (distance * weights).cumsum(0)  # a point that is a seed has distance 0 and is not drawn again
        chosen[number] = torch.searchsorted(total, draw * total[-1], right=True)
        off = (points - points[chosen[number]]).square().sum(1)
        distance = off.double() if number == 0 else torch.minimum(distance, off)
    centers = points[chosen]
    for _ in range(iterations):
        owner = nearest(points, centers)
        mass = torch.zeros(count).index_add_(0, owner, weights)
        means = torch.zeros_like(centers).index_add_(0, owner, points * weights[:, None]) / mass[:, None]
        centers = torch.where(mass[:, None] > 0, means, centers)  # empty clusters keep their center
    return centers
