"""Jigsaw: Classify by which of a fixed set of permutations the nine tiles of an image were shuffled.

Solving it requires recognizing the parts of objects and their arrangement.

Noroozi, Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016.
https://arxiv.org/abs/1603.09246

Every tile is encoded on its own; only the head combines tiles. Shortcuts that need no recognition are prevented: lines
that continue from tile to tile by the gap, brightness and contrast that neighbors share by `normalize`, and chromatic
aberration of lenses by `shift` and `grey`.

Letters: B images, K tiles, P puzzles of one image.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.color import color_matrices, projection, recolor
from selftaught.augment.tiles import grid_tiles, mosaic, normalize_tiles, require_fit, shift_channels, tile_pixels
from selftaught.augment.warp import bernoulli, random_crop, require_shares, to_device
from selftaught.contracts import Batch, Encoder, Outcome, Source, Task, Views
from selftaught.errors import UserError
from selftaught.modules.heads import classifier, dense, require_readable
from selftaught.modules.permutations import distant_permutations, require_permutations

UNITS = 512
"""Of the head's layer for one tile, as in the paper (1024 in the released code); that for all tiles has twice as many,
where the paper's has 4096 for a larger encoder."""


@dataclass(frozen=True)
class Jigsaw(Task):
    """Classify by which permutation, of a set with large Hamming distances, the tiles of an image were shuffled."""

    predicts_transformation = True
    shortcut_guards: ClassVar[Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]]] = {
        "gap": ({"gap": 0.0}, {"gap": 1 / 12}),
        "normalize": ({"normalize": False}, {"normalize": True}),
        "shift": ({"shift": 0.0}, {"shift": 1 / 32}),
        "grey": ({"grey": 0.0}, {"grey": 1.0}),
    }

    permutations: int = 100
    """Number of permutations, chosen for large Hamming distances. The paper's 1000 need its 350,000 iterations: after
    two minutes on Imagenette they gained 0.007 over random weights, 100 gained 0.022 and 10 gained 0.023."""
    puzzles: int = 4
    """Permutations per image and step; 1 in the paper (69 over its training). Tiles are encoded once, so further
    permutations of the same tiles cost only the head."""
    grid: int = 3
    """Tiles per side: 3, as in the paper, or 2."""
    tile: float = 1 / 4
    """Side of a tile as a fraction of the view's side (paper: 64 of 255 pixels)."""
    gap: float = 1 / 12
    """Mean distance between tiles as a fraction of the view's side; each tile is displaced by up to half of it (paper:
    64-pixel tiles in 85-pixel cells). With 0 tiles touch, and lines continue across their borders."""
    normalize: bool = True
    """Give every tile the same mean and standard deviation, as in the paper; the released code does not."""
    shift: float = 1 / 32
    """Largest displacement between the color channels of a tile, as a fraction of its side, rounded up to pixels
    (paper: 2 of 64). 0 leaves chromatic aberration as it is."""
    grey: float = 0.3
    """Fraction of the images that are converted to grayscale (0.5 in the released code)."""
    project: float = 0.0
    """Fraction of the other images whose green-magenta axis, the one of chromatic aberration, is removed (0.5 in the
    released code, where `shift` is 0)."""
    scale: tuple[float, float] = (0.6, 1.0)
    """Smallest and largest area that the puzzle is cut from, as a fraction of the image."""
    flip: bool = True
    """Mirror half of the images, as later recipes do; the paper does not."""

    def __post_init__(self) -> None:
        """Refuse what cannot be cut or asked."""
        require_shares("--scale", self.scale)
        if self.grid not in (2, 3):
            raise UserError(f"a jigsaw has a grid of 2 or 3 tiles a side, found {self.grid}: give --grid 3.")
        require_fit(self.grid, self.tile, self.gap, self.gap / 2)
        require_permutations(self.grid**2, self.permutations)
        for name in ("grey", "project"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise UserError(f"--{name} must be a share of the images from 0 to 1, found {share:g}: try 0.3.")
        if self.puzzles < 1 or not 0 <= self.shift <= 0.25:
            raise UserError(
                "a jigsaw needs at least one puzzle and a shift of at most a quarter of a tile's side, found --puzzles "
                f"{self.puzzles} and --shift {self.shift:g}: leave them out."
            )

    def uses_tiles(self) -> bool:
        """It shows nothing else."""
        return True

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """A layer for each tile alone, one for all tiles in their order (fc6, fc7 and fc8 of the paper), the orders."""
        require_readable(encoder, tile_pixels(self.size, self.tile))
        channels, tiles = encoder.last.channels, self.grid**2
        orders = nn.Module()
        orders.register_buffer("known", distant_permutations(tiles, self.permutations).clone())
        order = classifier(tiles * UNITS, self.permutations, "mlp", hidden=2 * UNITS)
        return nn.ModuleDict({"tile": dense(channels, UNITS), "order": order, "orders": orders})

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B * K, 3, t, t), tiles of an image in a row and in place; `order` (B, P), an index of the known."""
        count, side = len(batch), tile_pixels(self.size, self.tile)
        margin = math.ceil(self.shift * side)
        crop = random_crop(count, generator, scale=self.scale, flip=0.5 * self.flip)
        cut = grid_tiles(
            count, generator, grid=self.grid, tile=side / self.size, gap=self.gap, margin=margin / self.size
        )
        tiles = batch.warp(crop[:, None] @ cut, side + 2 * margin).flatten(0, 1)
        # Colours last: a grey tile whose channels were moved apart would not be grey.
        tiles = self._recolored(shift_channels(tiles, margin, generator), count, generator)
        asked = torch.randint(self.permutations, (count, self.puzzles), generator=generator)
        return {
            "images": normalize_tiles(tiles) if self.normalize else tiles,
            "order": to_device(asked, tiles.device),
        }

    def _recolored(self, tiles: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Some images grey, some of the others projected; all tiles of an image alike."""
        one, none = torch.ones(count), torch.zeros(count)
        grey = bernoulli(self.grey, count, generator)
        to_grey, _ = color_matrices(one, one, one, none, grey)
        without_green, of_mean = projection(bernoulli(self.project, count, generator))
        linear = (without_green @ to_grey).repeat_interleave(self.grid**2, 0)
        return recolor(tiles, linear, of_mean.repeat_interleave(self.grid**2, 0), clamp=False)

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """Cross-entropy over the known orders."""
        answers, asked = self._answers(encoder, heads, views), views["order"].flatten()
        accuracy = (answers.argmax(1) == asked).float().mean()
        return F.cross_entropy(answers, asked), {"accuracy": accuracy}

    def _answers(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> Tensor:
        """Encode each tile once, lay its feature wherever a puzzle has the tile: (B * P, permutations)."""
        tiles = _by_image(heads["tile"](encoder(views["images"])), self.grid)  # (B, K, UNITS)
        shuffled = views["order"]  # (B, P)
        if heads.training and shuffled.numel() < 2:
            raise UserError(
                "the batch norm of the jigsaw's head needs at least two puzzles, found one: give a larger --batch-size "
                "or --puzzles."
            )
        places = _known(heads)[shuffled].flatten(1)  # (B, P * K): puzzle place -> which tile lies there
        laid = tiles.gather(1, places[..., None].expand(-1, -1, tiles.shape[2]))
        return heads["order"](laid.reshape(shuffled.numel(), -1)).float()

    def show(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """The first puzzle of each image, and how the encoder would lay it."""
        tiles = _by_image(views["images"], self.grid)
        known = _known(heads)
        puzzle = _in_order(tiles, known[views["order"][:, 0]])
        guessed = self._answers(encoder, heads, {**views, "order": views["order"][:, :1]}).argmax(1)
        return {"puzzle": mosaic(puzzle), "laid": mosaic(_in_order(puzzle, known[guessed].argsort(1)))}

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """One in as many as there are permutations."""
        return {"accuracy": 1 / self.permutations}


def _known(heads: nn.ModuleDict) -> Tensor:
    """The set of permutations, (permutations, K)."""
    return heads["orders"].get_buffer("known")


def _by_image(tiles: Tensor, grid: int) -> Tensor:
    """(B * K, ...) -> (B, K, ...)."""
    return tiles.reshape(-1, grid**2, *tiles.shape[1:])


def _in_order(tiles: Tensor, places: Tensor) -> Tensor:
    """(B, K, ...) and (B, K) -> (B, K, ...), at place k the tile places[k]."""
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None], places]
