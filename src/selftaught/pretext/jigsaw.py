"""Jigsaw: in which of many known orders were these nine tiles shuffled? To know, one must know parts and where they go.

Noroozi, Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016.
https://arxiv.org/abs/1603.09246

Every tile is encoded alone and only the head sees several, so what is learned describes a part by itself. Puzzles can
also be solved without looking at what is shown: by lines that go on from tile to tile (hence the gap), by brightness
and contrast that neighbours share (hence `normalize`) and by the colour fringes of lenses (hence `shift` and `grey`).

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
from selftaught.augment.warp import coin, moved, random_crop, require_shares
from selftaught.contracts import Batch, Encoder, Outcome, Source, Task, Views
from selftaught.errors import UserError
from selftaught.parts.heads import classifier, dense, require_readable
from selftaught.parts.permutations import distant_permutations, require_permutations

UNITS = 512
"""Of the head's layer for one tile, as in the paper (1024 in the released code); that for all tiles has twice as many,
where the paper's has 4096 for a larger encoder."""


@dataclass(frozen=True)
class Jigsaw(Task):
    """Find the permutation by which the tiles of an image were shuffled, among a set of distant ones."""

    tiled = True
    guards: ClassVar[Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]]] = {
        "gap": ({"gap": 0.0}, {"gap": 1 / 12}),
        "normalize": ({"normalize": False}, {"normalize": True}),
        "shift": ({"shift": 0.0}, {"shift": 1 / 32}),
        "grey": ({"grey": 0.0}, {"grey": 1.0}),
    }

    permutations: int = 1000
    """How many orders there are to tell apart, chosen to differ in as many places as can be. 1000 transfers best in the
    paper (as we recall its ablation); with 10 or 35 the puzzle is easy and teaches less."""
    puzzles: int = 4
    """Orders in which each image's tiles are asked for in one step; 1 in the paper (69 over all its training). Tiles
    are encoded alone, so more orders of the same tiles cost only the head."""
    grid: int = 3
    """Tiles along a side, 3 as in the paper, or 2."""
    tile: float = 1 / 4
    """Side of a tile as a share of the view's: 64 of 255 pixels in the paper."""
    gap: float = 1 / 12
    """Mean distance between tiles as a share of the view's side, each tile straying by up to half of it: 64-pixel tiles
    in 85-pixel cells in the paper. 0 lets the tiles touch, and lines go on from one to the next."""
    normalize: bool = True
    """Give every tile the same mean and deviation, as in the paper; the released code leaves it out."""
    shift: float = 1 / 32
    """Colours of a tile are moved apart by up to this share of its side, rounded up to pixels: 2 of 64 in the paper. 0
    leaves lens fringes as they are."""
    grey: float = 0.3
    """Share of the images that are made grey (the paper; 0.5 in the released code)."""
    project: float = 0.0
    """Share of the other images that lose the green-magenta axis, in which lenses draw fringes (0.5 in the released
    code, where `shift` is 0)."""
    scale: tuple[float, float] = (0.6, 1.0)
    """Share of the image's area that the puzzle is cut from, smallest and largest."""
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
            "order": moved(asked, tiles.device),
        }

    def _recolored(self, tiles: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Some images grey, some of the others projected; all tiles of an image alike."""
        one, none = torch.ones(count), torch.zeros(count)
        grey = coin(self.grey, count, generator)
        to_grey, _ = color_matrices(one, one, one, none, grey)
        without_green, of_mean = projection(coin(self.project, count, generator))
        linear = (without_green @ to_grey).repeat_interleave(self.grid**2, 0)
        return recolor(tiles, linear, of_mean.repeat_interleave(self.grid**2, 0), clamp=False)

    def loss(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> tuple[Tensor, Outcome]:
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

    def chance(self, source: Source) -> dict[str, float]:
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
