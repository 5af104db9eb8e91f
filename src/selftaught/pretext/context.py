"""Context prediction: Classify the relative position, one of eight directions, of two neighboring tiles of an image.

Solving it requires recognizing objects and their parts.

Doersch, Gupta, Efros, "Unsupervised Visual Representation Learning by Context Prediction", ICCV 2015.
https://arxiv.org/abs/1505.05192

Every tile is encoded once, separately, and the head classifies it with each of its neighbors: a tile belongs to up to
eight pairs, as in the paper. Guards against shortcuts: `gap` and `jitter` hide lines that continue across tile borders,
and `color` hides chromatic aberration, which depends on the position in the lens.

The defaults of `color` and `pixelate` are for downscaled images, such as the images of a folder, which have at most 160
pixels: they show no aberration, and after 900 steps on Imagenette the best layer gained 0.045 over random weights,
compared with 0.025 with projected colors. For crops of large photos use the paper's `--color project --pixelate 0.33`.

Letters: B images, K tiles, P ordered pairs of neighbors among them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.color import drop_channels, projection, recolor
from selftaught.augment.draws import common, randint, randn
from selftaught.augment.tiles import (
    TileNormalization,
    grid_tiles,
    mosaic,
    normalize_tiles,
    pixelate,
    require_fit,
    tile_pixels,
)
from selftaught.augment.warp import bernoulli, random_crop, require_shares, to_device
from selftaught.contracts import Batch, Encoder, Outputs, Source, Task, Views
from selftaught.errors import require_ranges
from selftaught.limits import FRACTION
from selftaught.modules.heads import dense

STEPS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""The eight classes: rows down and columns to the right, from the first tile to the second."""

COARSEST = 10
"""Minimum side in pixels of a downsampled tile (released code: 10 to 95 of 96)."""

UNITS = 512
"""Width of every layer of the head; 4096 in the paper, for a larger encoder."""


@dataclass(frozen=True)
class Context(Task):
    """Classify in which of eight directions one tile lies from a neighboring one."""

    predicts_transformation = True
    shortcut_guards: ClassVar[Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]]] = {
        "gap": ({"gap": 0.0, "jitter": 0.0}, {"gap": 0.1, "jitter": 0.0167}),
        "normalize": ({"normalize": "none"}, {"normalize": "color"}),
        "color": ({"color": "keep"}, {"color": "project"}),
        "pixelate": ({"pixelate": 0.0}, {"pixelate": 1 / 3}),
    }

    grid: int = 3
    """Tiles per side of the grid; all neighbors in it are paired, in both orders."""
    tile: float = 0.25
    """Side of a tile as a fraction of the view's side (paper: 96 of 398 pixels, 0.24)."""
    gap: float = 0.1
    """Distance between neighboring tiles as a fraction of the view's side: 0.4 of a tile (paper: 0.5 of one)."""
    jitter: float = 0.0167
    """Largest displacement of a tile in each direction, as a fraction of the view's side (paper: 7 pixels)."""
    normalize: TileNormalization = "color"
    """Normalization of each tile: its mean (mean, the paper), also its root mean square about it (rms, the released
    code), mean and standard deviation of each channel (color), or none."""
    color: Literal["project", "drop", "keep"] = "keep"
    """Guard against chromatic aberration: remove the green-magenta axis (project), replace two channels of each tile by
    noise (drop; as good in the paper, worse in our short runs), or none (keep)."""
    pixelate: float = 0.0
    """Fraction of the tiles that are downsampled, to 10 pixels at least, and upsampled again, against shortcuts in
    pixel-level statistics (paper: 1/3)."""
    scale: tuple[float, float] = (0.6, 1.0)
    """Smallest and largest area that the tiles are cut from, as a fraction of the image."""
    flip: bool = True
    """Mirror half of the images; the paper does not."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        require_shares("--scale", self.scale)
        require_fit(self.grid, self.tile, self.gap, self.jitter)
        require_ranges(self, pixelate=FRACTION)

    def view_sizes(self) -> dict[str, int]:
        """Tiles."""
        return {"tile": tile_pixels(self.size, self.tile)}

    def uses_tiles(self) -> bool:
        """Always: its views are tiles."""
        return True

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """A layer for single tiles (fc6 of the paper) and a classifier of pairs into eight directions (fc7 to fc9)."""
        channels = encoder.last.channels
        pair = nn.Sequential(
            dense(2 * UNITS, UNITS, affine=False), dense(UNITS, UNITS, affine=False), nn.Linear(UNITS, len(STEPS))
        )
        neighbors = nn.Module()
        neighbors.register_buffer("pairs", pairs(self.grid))
        return nn.ModuleDict({"tile": dense(channels, UNITS, affine=False), "pair": pair, "neighbors": neighbors})

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B * K, 3, t, t), the tiles of an image in a row; the classes are the same for all images."""
        count, side = len(batch), tile_pixels(self.size, self.tile)
        crop = random_crop(count, generator, scale=self.scale, flip=0.5 * self.flip)
        cut = grid_tiles(count, generator, grid=self.grid, tile=side / self.size, gap=self.gap, jitter=self.jitter)
        tiles = batch.warp(crop[:, None] @ cut, side).flatten(0, 1)
        if self.color == "project":
            tiles = recolor(tiles, *projection(torch.ones(len(tiles))), clamp=False)
        # One size per step for all downsampled tiles, so that they are one batch.
        coarse = int(torch.randint(min(COARSEST, side - 1), side, (), generator=common(generator)))
        chosen = bernoulli(self.pixelate, len(tiles), generator)
        tiles = pixelate(tiles, chosen, coarse) if chosen.any() else tiles
        tiles = normalize_tiles(tiles, self.normalize)
        return {"images": self._dropped(tiles, generator) if self.color == "drop" else tiles}

    def _dropped(self, tiles: Tensor, generator: torch.Generator) -> Tensor:
        """Replace two channels of each tile by noise: the other's mean and a hundredth of its deviation (the paper)."""
        channel = randint(3, len(tiles), generator=generator)
        chosen = tiles[torch.arange(len(tiles)), to_device(channel, tiles.device)][:, None]
        mean, deviation = chosen.mean((2, 3), keepdim=True), chosen.std((2, 3), keepdim=True)
        noise = mean + deviation / 100 * to_device(randn(*tiles.shape, generator=generator), tiles.device)
        return drop_channels(tiles, channel, noise)

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Cross-entropy, averaged per direction first: a grid has fewer diagonal neighbors than others."""
        first, second, direction = heads["neighbors"].get_buffer("pairs").unbind(1)  # (P,) each
        tiles = heads["tile"](encoder(views["images"])).reshape(-1, self.grid**2, UNITS)  # (B, K, UNITS)
        features = torch.cat([tiles[:, first], tiles[:, second]], 2)  # (B, P, 2 * UNITS)
        logits, classes = heads["pair"](features.flatten(0, 1)).float(), direction.repeat(len(tiles))
        class_count = F.one_hot(direction, len(STEPS)).sum(0)[classes] * len(tiles)  # pairs of the same class
        weight = 1 / (len(STEPS) * class_count)  # (B * P,), sums to 1
        correct = (logits.argmax(1) == classes).float()
        # A sum, not a product of vectors, which autocast would round to bf16.
        loss = (F.cross_entropy(logits, classes, reduction="none") * weight).sum()
        return loss, {"accuracy": (correct * weight).sum()}

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """The tiles at their positions."""
        return {"tiles": mosaic(views["images"].reshape(-1, self.grid**2, *views["images"].shape[1:]))}

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """1 / 8."""
        return {"accuracy": 1 / len(STEPS)}


def pairs(grid: int) -> Tensor:
    """All ordered pairs of neighbors in a grid: (P, 3), first tile, second tile, direction from the first."""
    places = [(row, column) for row in range(grid) for column in range(grid)]
    return torch.tensor(
        [
            (first, second, STEPS.index(step))
            for first, (row, column) in enumerate(places)
            for second, (other_row, other_column) in enumerate(places)
            if (step := (other_row - row, other_column - column)) in STEPS
        ]
    )
