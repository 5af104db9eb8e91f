"""Context prediction: Classify in which of eight directions one tile of an image lies from a neighboring one.

Solving it requires recognizing objects and their parts.

Doersch, Gupta, Efros, "Unsupervised Visual Representation Learning by Context Prediction", ICCV 2015.
https://arxiv.org/abs/1505.05192

Every tile is encoded once, on its own, and the head pairs it with each of its neighbors: a tile belongs to up to eight
pairs, as in the paper. Shortcuts that need no recognition are prevented: lines that continue across a border by `gap`
and `jitter`, and chromatic aberration, which depends on the position in the lens, by `color`.

The defaults of `color` and `pixelate` are for images that were downscaled, as those of a folder are, to 160 pixels at
most: no aberration is left there, and after 900 steps on Imagenette the best layer gained 0.045 over random weights
instead of 0.025 with projected colors. For crops of large photos choose the paper's `--color project --pixelate 0.33`.

Letters: B images, K tiles, P ordered pairs of neighbors among them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.color import drop_channels, projection, recolor
from selftaught.augment.tiles import (
    Evening,
    grid_tiles,
    mosaic,
    normalize_tiles,
    pixelate,
    require_fit,
    tile_pixels,
)
from selftaught.augment.warp import bernoulli, random_crop, require_shares, to_device
from selftaught.contracts import Batch, Encoder, Outcome, Source, Task, Views
from selftaught.errors import UserError
from selftaught.modules.heads import dense, require_readable

STEPS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""The eight answers: rows down and columns to the right, from the first tile to the second."""

COARSEST = 10
"""Pixels along a tile that was shrunk, at least (released code: 10 to 95 of 96)."""

UNITS = 512
"""Of every layer of the head; 4096 in the paper, for a larger encoder."""


@dataclass(frozen=True)
class Context(Task):
    """Classify in which of eight directions one tile lies from another."""

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
    normalize: Evening = "color"
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
        """Refuse what cannot be cut."""
        require_shares("--scale", self.scale)
        require_fit(self.grid, self.tile, self.gap, self.jitter)
        if not 0 <= self.pixelate <= 1:
            raise UserError(f"--pixelate must be a share from 0 to 1, found {self.pixelate:g}: try 0.33.")

    def uses_tiles(self) -> bool:
        """It shows nothing else."""
        return True

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """A layer for each tile alone (fc6 of the paper), then two for a pair and the eight answers (fc7 to fc9)."""
        require_readable(encoder, tile_pixels(self.size, self.tile))
        channels = encoder.last.channels
        pair = nn.Sequential(
            dense(2 * UNITS, UNITS, affine=False), dense(UNITS, UNITS, affine=False), nn.Linear(UNITS, len(STEPS))
        )
        neighbours = nn.Module()
        neighbours.register_buffer("pairs", pairs(self.grid))
        return nn.ModuleDict({"tile": dense(channels, UNITS, affine=False), "pair": pair, "neighbours": neighbours})

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B * K, 3, t, t), tiles of an image in a row; what is asked of them is the same for all images."""
        count, side = len(batch), tile_pixels(self.size, self.tile)
        crop = random_crop(count, generator, scale=self.scale, flip=0.5 * self.flip)
        cut = grid_tiles(count, generator, grid=self.grid, tile=side / self.size, gap=self.gap, jitter=self.jitter)
        tiles = batch.warp(crop[:, None] @ cut, side).flatten(0, 1)
        if self.color == "project":
            tiles = recolor(tiles, *projection(torch.ones(len(tiles))), clamp=False)
        # One size a step for all tiles that are shrunk: each at its own would be a batch for each.
        coarse = int(torch.randint(min(COARSEST, side - 1), side, (), generator=generator))
        chosen = bernoulli(self.pixelate, len(tiles), generator)
        tiles = pixelate(tiles, chosen, coarse) if chosen.any() else tiles
        tiles = normalize_tiles(tiles, self.normalize)
        return {"images": self._dropped(tiles, generator) if self.color == "drop" else tiles}

    def _dropped(self, tiles: Tensor, generator: torch.Generator) -> Tensor:
        """Keep one colour of each tile; noise of a hundredth of its spread, as in the paper, is the rest."""
        kept = torch.randint(3, (len(tiles),), generator=generator)
        chosen = tiles[torch.arange(len(tiles)), to_device(kept, tiles.device)][:, None]
        mean, deviation = chosen.mean((2, 3), keepdim=True), chosen.std((2, 3), keepdim=True)
        noise = mean + deviation / 100 * to_device(torch.randn(tiles.shape, generator=generator), tiles.device)
        return drop_channels(tiles, kept, noise)

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """Cross-entropy, every direction with the same weight: a grid has fewer neighbours across corners."""
        first, second, direction = heads["neighbours"].get_buffer("pairs").unbind(1)  # (P,) each
        tiles = heads["tile"](encoder(views["images"])).reshape(-1, self.grid**2, UNITS)  # (B, K, UNITS)
        met = torch.cat([tiles[:, first], tiles[:, second]], 2)  # (B, P, 2 * UNITS)
        answers, asked = heads["pair"](met.flatten(0, 1)).float(), direction.repeat(len(tiles))
        often = F.one_hot(direction, len(STEPS)).sum(0)[asked] * len(tiles)  # pairs of the batch that lie alike
        weight = 1 / (len(STEPS) * often)  # (B * P,), sums to 1
        right = (answers.argmax(1) == asked).float()
        # A sum and not a product of vectors, which autocast would round to bf16.
        loss = (F.cross_entropy(answers, asked, reduction="none") * weight).sum()
        return loss, {"accuracy": (right * weight).sum()}

    def show(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """The tiles, each at its place."""
        return {"tiles": mosaic(views["images"].reshape(-1, self.grid**2, *views["images"].shape[1:]))}

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """One in eight."""
        return {"accuracy": 1 / len(STEPS)}


def pairs(grid: int) -> Tensor:
    """All ordered pairs of neighbours in a grid: (P, 3), first tile, second tile, direction from the first."""
    places = [(row, column) for row in range(grid) for column in range(grid)]
    return torch.tensor(
        [
            (first, second, STEPS.index(step))
            for first, (row, column) in enumerate(places)
            for second, (other_row, other_column) in enumerate(places)
            if (step := (other_row - row, other_column - column)) in STEPS
        ]
    )
