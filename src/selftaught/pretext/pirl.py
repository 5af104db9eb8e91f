"""PIRL: Contrast each image and a transformed copy of it (shuffled tiles, or rotated) with all other images.

The positive of both is the image's entry in a memory bank, so features become invariant to the transformation, where
predicting it (jigsaw, rotation) makes them depend on it. Without the transformed copy (`weight` 0) this is instance
discrimination, as in `npid`.

Misra, van der Maaten, "Self-Supervised Learning of Pretext-Invariant Representations", CVPR 2020.
https://arxiv.org/abs/1912.01991

Letters: B images, m negatives, D dimensions, S pixels along a view, t along a tile.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from selftaught.augment.tiles import grid_tiles, mosaic, tile_pixels
from selftaught.augment.warp import random_crop, require_shares, to_device
from selftaught.contracts import Batch, Encoder, Outcome, Source, Views
from selftaught.errors import UserError
from selftaught.modules.bank import unit
from selftaught.modules.heads import MIN_TILE, embedding, require_input_size
from selftaught.modules.instances import InstanceDiscrimination, memory

TILES = 9


@dataclass(frozen=True)
class PIRL(InstanceDiscrimination):
    """Contrast each image and a transformed copy of it with all other images."""

    transform: Literal["auto", "jigsaw", "rotation", "both"] = "auto"
    """Transformation to be invariant to: the order of nine tiles (jigsaw, the paper), quarter turns, or both. auto is
    jigsaw where tiles have 16 pixels per side or more, so from --size 64 on, else rotation: smaller tiles contain
    too little, and tiles of 8 pixels taught nothing."""
    weight: float = 0.5
    """Lambda, the weight of the transformed image in the loss (paper: 0.5); 0 leaves it out."""
    puzzle_scale: tuple[float, float] = (0.6, 1.0)
    """Smallest and largest area that is cut into tiles, as a fraction of the image (paper: at least 0.6)."""
    tile: float = 1 / 4
    """Side of a tile as a fraction of --size, placed at random in its third of the view (paper: 64 of 255 pixels)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_shares("--puzzle-scale", self.puzzle_scale)
        if not 0 < self.tile <= 1 / 3:
            raise UserError(f"--tile must be above 0 and at most 1/3 of the view's side, got {self.tile:g}; try 0.25.")
        if not 0 <= self.weight <= 1:
            raise UserError(f"--weight must be in [0, 1], got {self.weight}; the paper uses 0.5.")

    def uses_tiles(self) -> bool:
        """Whether the transformation includes shuffled tiles."""
        return self._shuffles

    @property
    def _shuffles(self) -> bool:
        return self.weight > 0 and self._transform != "rotation"

    @property
    def _turns(self) -> bool:
        return self.weight > 0 and self._transform != "jigsaw"

    @property
    def _transform(self) -> str:
        """The transformation, with auto resolved."""
        if self.transform != "auto":
            return self.transform
        return "jigsaw" if int(self.size * self.tile + 1e-6) >= MIN_TILE else "rotation"

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """Adds g, the projections of rotated images (`turned`) and of tiles (`tile`, `tiles`)."""
        heads = super().heads(encoder, source)
        channels, d = encoder.last.channels, self.dimensions
        if self._turns:
            heads["turned"] = embedding(channels, d, self.head, self.projection_norm)
        if self._shuffles:
            require_input_size(encoder, tile_pixels(self.size, self.tile))
            heads["tile"], heads["tiles"] = (
                nn.Linear(channels, d),
                embedding(TILES * d, d, self.head, self.projection_norm),
            )
        return heads

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """Images, their transformed copies and the negatives.

        Returns:
            `images` (B, 3, S, S); `turned` the same, from another crop; `tiles` (B * 9, 3, t, t), those of an image in
            a row and shuffled; `index` (B,); `drawn` (m + 1,), the negatives of all: see `bank`.
        """
        views = super().views(batch, generator)
        if self._turns:
            turned = self.augmented(batch, generator)
            turns = torch.randint(4, (len(batch),), generator=generator)  # 0 included, as in the paper
            for turn in (1, 2, 3):
                chosen = to_device((turns == turn).nonzero().flatten(), turned.device)
                turned[chosen] = torch.rot90(turned[chosen], turn, (2, 3))
            views["turned"] = turned
        if self._shuffles:
            views["tiles"] = self._shuffled_tiles(batch, generator)
        return views

    def _shuffled_tiles(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Nine tiles of each image in a random order, each with its own color jitter: (B * 9, 3, t, t)."""
        count, side = len(batch), tile_pixels(self.size, self.tile)
        crop = random_crop(count, generator, scale=self.puzzle_scale, flip=0.5 * self.flip)
        cut = grid_tiles(count, generator, tile=side / self.size, gap=1 / 3 - side / self.size)
        order = torch.rand(count, TILES, generator=generator).argsort(1)
        shuffled = cut.gather(1, order[..., None, None].expand(cut.shape))
        return self.recolored(batch.warp(crop[:, None] @ shuffled, side).flatten(0, 1), generator)

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """Lambda * NCE(m_I, g(v_It)) + (1 - lambda) * NCE(m_I, f(v_I)), where m_I is the image's entry in the bank.

        With both transformations the first term is the mean over them, each with its own g.
        """
        features, *transformed = self._anchors(encoder, heads, views)
        entries = memory(heads).recall(views["index"], views["drawn"])
        own, outcome = self.compared(heads, features, entries)
        # The negatives are compared with g(v_It) too, not with f(v_I).
        others = [self.compared(heads, anchors, entries) for anchors in transformed]
        if not others:
            return (1 - self.weight) * own.mean(), {**outcome, "features": features}
        loss = self.weight * torch.stack([loss for loss, _ in others]).mean() + (1 - self.weight) * own.mean()
        accuracy = torch.stack([logged["accuracy"] for _, logged in others]).mean()
        return loss, {**outcome, "features": features, "transformed_accuracy": accuracy}

    def _anchors(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> list[Tensor]:
        """f(v_I), then g(v_It) of every transformation: (B, D) each, L2-normalized."""
        anchors = []
        if self._shuffles:
            # Tiles first, so that whole images have slightly more weight in the running statistics of batch norms,
            # which are recomputed on whole images before a probe.
            tiles = heads["tile"](encoder(views["tiles"])).reshape(len(views["index"]), -1)
            anchors.append(unit(heads["tiles"](tiles)))
        if self._turns:
            image, turned = encoder(torch.cat([views["images"], views["turned"]])).chunk(2)
            anchors.append(unit(heads["turned"](turned)))
        else:
            image = encoder(views["images"])
        return [unit(heads["project"](image)), *anchors]

    def show(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """The images and their transformed copies."""
        shown = {"images": views["images"]}
        if self._turns:
            shown["turned"] = views["turned"]
        if self._shuffles:
            tiles = views["tiles"]
            shown["shuffled"] = mosaic(tiles.reshape(-1, TILES, *tiles.shape[1:]))
        return shown

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """1 / (m + 1) for both; transformed images first, as they are what distinguishes PIRL."""
        level = super().chance(source, batch_size)
        return {"transformed_accuracy": level["accuracy"], **level} if self.weight else level
