"""Jigsaw puzzles: Classify which of a fixed set of permutations was applied to the nine tiles of an image.

Solving it requires recognizing the parts of objects and their arrangement.

Noroozi, Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016.
https://arxiv.org/abs/1603.09246

Every tile is encoded separately; only the head combines tiles. Guards against shortcuts: the gap hides lines that
continue across tile borders, `normalize` removes the brightness and contrast that neighbors share, and `shift` and
`grayscale` hide the chromatic aberration of lenses.

Letters: B images, K tiles, P permutations (puzzles) per image.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.color import color_matrices, projection, recolor
from selftaught.augment.draws import randint
from selftaught.augment.tiles import grid_tiles, mosaic, normalize_tiles, require_fit, shift_channels, tile_pixels
from selftaught.augment.warp import bernoulli, random_crop, require_shares, to_device
from selftaught.contracts import Batch, Encoder, Outputs, Source, Task, Views
from selftaught.errors import UserError, require_ranges
from selftaught.limits import FRACTION, VIEWS, Range
from selftaught.modules.heads import classifier, dense
from selftaught.modules.permutations import distant_permutations, require_permutations
from selftaught.modules.processes import processes

UNITS = 512
"""Width of the head's layer for a single tile, as in the paper (1024 in the released code); the layer for all tiles has
twice as many, where the paper's has 4096 for a larger encoder."""

SHIFT = Range(0, 0.25)


@dataclass(frozen=True)
class Jigsaw(Task):
    """Classify which permutation, of a set with large Hamming distances, was applied to the tiles of an image."""

    predicts_transformation = True
    shortcut_guards: ClassVar[Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]]] = {
        "gap": ({"gap": 0.0}, {"gap": 1 / 12}),
        "normalize": ({"normalize": False}, {"normalize": True}),
        "shift": ({"shift": 0.0}, {"shift": 1 / 32}),
        "grayscale": ({"grayscale": 0.0}, {"grayscale": 1.0}),
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
    grayscale: float = 0.3
    """Fraction of the images that are converted to grayscale (0.5 in the released code)."""
    project: float = 0.0
    """Fraction of the other images whose green-magenta axis, the one of chromatic aberration, is removed (0.5 in the
    released code, where `shift` is 0)."""
    scale: tuple[float, float] = (0.6, 1.0)
    """Smallest and largest area that the puzzle is cut from, as a fraction of the image."""
    flip: bool = True
    """Mirror half of the images, as later recipes do; the paper does not."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        require_shares("--scale", self.scale)
        if self.grid not in (2, 3):
            raise UserError(f"--grid must be 2 or 3 tiles per side, got {self.grid}.")
        require_fit(self.grid, self.tile, self.gap, self.gap / 2)
        require_permutations(self.grid**2, self.permutations)
        require_ranges(self, grayscale=FRACTION, project=FRACTION, puzzles=VIEWS, shift=SHIFT)

    def view_sizes(self) -> dict[str, int]:
        """Tiles."""
        return {"tile": tile_pixels(self.size, self.tile)}

    def uses_tiles(self) -> bool:
        """Always: its views are tiles."""
        return True

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """A layer for single tiles, a classifier of all tiles in order (fc6 to fc8 of the paper), the permutations."""
        channels, tiles = encoder.last.channels, self.grid**2
        table = nn.Module()
        table.register_buffer("permutations", distant_permutations(tiles, self.permutations).clone())
        order = classifier(tiles * UNITS, self.permutations, "mlp", hidden=2 * UNITS)
        return nn.ModuleDict({"tile": dense(channels, UNITS), "order": order, "table": table})

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B * K, 3, t, t), tiles row by row, unshuffled; `order` (B, P), class indices of permutations."""
        count, side = len(batch), tile_pixels(self.size, self.tile)
        margin = math.ceil(self.shift * side)
        crop = random_crop(count, generator, scale=self.scale, flip=0.5 * self.flip)
        cut = grid_tiles(
            count, generator, grid=self.grid, tile=side / self.size, gap=self.gap, margin=margin / self.size
        )
        tiles = batch.warp(crop[:, None] @ cut, side + 2 * margin).flatten(0, 1)
        # Grayscale after the channel shift, because a gray tile with shifted channels would not be gray.
        tiles = self._recolored(shift_channels(tiles, margin, generator), count, generator)
        classes = randint(self.permutations, count, self.puzzles, generator=generator)
        return {
            "images": normalize_tiles(tiles) if self.normalize else tiles,
            "order": to_device(classes, tiles.device),
        }

    def _recolored(self, tiles: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Convert some images to grayscale and project some of the others; all tiles of an image alike."""
        one, none = torch.ones(count), torch.zeros(count)
        grayscale = bernoulli(self.grayscale, count, generator)
        to_gray, _ = color_matrices(one, one, one, none, grayscale)
        without_green, of_mean = projection(bernoulli(self.project, count, generator))
        linear = (without_green @ to_gray).repeat_interleave(self.grid**2, 0)
        return recolor(tiles, linear, of_mean.repeat_interleave(self.grid**2, 0), clamp=False)

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Cross-entropy over the set of permutations."""
        logits, classes = self._logits(encoder, heads, views), views["order"].flatten()
        accuracy = (logits.argmax(1) == classes).float().mean()
        return F.cross_entropy(logits, classes), {"accuracy": accuracy}

    def _logits(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> Tensor:
        """Encode each tile once, then classify each permutation of the features: (B * P, permutations)."""
        tiles = _by_image(heads["tile"](encoder(views["images"])), self.grid)  # (B, K, UNITS)
        classes = views["order"]  # (B, P)
        if heads.training and classes.numel() * processes().count < 2:
            raise UserError(
                "the batch norm of the jigsaw head needs at least two puzzles per batch, got one; increase "
                "--batch-size or --puzzles."
            )
        order = _permutations(heads)[classes].flatten(1)  # (B, P * K): position in the puzzle -> tile
        shuffled = tiles.gather(1, order[..., None].expand(-1, -1, tiles.shape[2]))
        return heads["order"](shuffled.reshape(classes.numel(), -1)).float()

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """The first puzzle of each image, and the predicted arrangement of its tiles."""
        tiles = _by_image(views["images"], self.grid)
        permutations = _permutations(heads)
        puzzle = _in_order(tiles, permutations[views["order"][:, 0]])
        predicted = self._logits(encoder, heads, {**views, "order": views["order"][:, :1]}).argmax(1)
        return {"puzzle": mosaic(puzzle), "laid": mosaic(_in_order(puzzle, permutations[predicted].argsort(1)))}

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """1 / number of permutations."""
        return {"accuracy": 1 / self.permutations}


def _permutations(heads: nn.ModuleDict) -> Tensor:
    """The set of permutations, (permutations, K)."""
    return heads["table"].get_buffer("permutations")


def _by_image(tiles: Tensor, grid: int) -> Tensor:
    """(B * K, ...) -> (B, K, ...)."""
    return tiles.reshape(-1, grid**2, *tiles.shape[1:])


def _in_order(tiles: Tensor, places: Tensor) -> Tensor:
    """(B, K, ...) and (B, K) -> (B, K, ...), with tile places[k] at position k."""
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None], places]
