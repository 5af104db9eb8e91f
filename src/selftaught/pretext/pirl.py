"""PIRL: which of all the images is this, shuffled or turned? Jigsaw and rotation upside down: not to see them at all.

A task that asks for a transformation teaches features that vary with it; what an image shows does not. So here a
transformed image has to come out as the image itself does, and unlike all others: as its entry of the memory bank.
Without the transformed image (`weight` 0) this is instance discrimination, as in `npid`.

Misra, van der Maaten, "Self-Supervised Learning of Pretext-Invariant Representations", CVPR 2020.
https://arxiv.org/abs/1912.01991

Letters: B images, N all images, m negatives, D dimensions.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from selftaught.augment.color import random_color, recolor, require_jitter
from selftaught.augment.tiles import grid_tiles, mosaic, require_fit, tile_pixels
from selftaught.augment.warp import moved, random_crop, require_shares
from selftaught.bank import BankKind, MemoryBank, draw, ranked_first, require_bank, require_others, unit
from selftaught.contracts import Batch, Encoder, Outcome, Source, Task, Views
from selftaught.errors import UserError
from selftaught.heads import require_readable
from selftaught.losses import nce

TILES = 9


@dataclass(frozen=True)
class PIRL(Task):
    """Tell each image, and each transformed image, from all other images."""

    tiled = True

    transform: Literal["jigsaw", "rotation", "both"] = "jigsaw"
    """What must make no difference: the order of nine tiles, quarter turns, or each of the two."""
    weight: float = 0.5
    """Lambda: the share of the transformed image in the loss (paper: 0.5). 0 leaves it out."""
    negatives: int = 4096
    """Other images that each image is compared with in a step, at most all there are. The paper's best results have
    32000, its analysis 4096, which costs an eighth."""
    temperature: float = 0.07
    """What cosines are divided by (paper: 0.07); lower minds only the most similar images."""
    normalizer: Literal["sum", "constant"] = "sum"
    """What an exponential is held against: each image's own sum at each step, as in the paper, or a constant from the
    first batch, as in the released code."""
    memory: float = 0.5
    """Share of an entry that stays when it is renewed (paper: 0.5)."""
    dimensions: int = 128
    """Length of what is remembered of an image (paper: 128)."""
    bank: BankKind = "device"
    """Where the memory bank is kept: on the device; half: there in half precision; host: in half precision in
    the memory of the host."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Share of the image's area that is shown, smallest and largest, untransformed or turned."""
    puzzle_scale: tuple[float, float] = (0.6, 1.0)
    """The same for what is cut into tiles (paper: at least 0.6)."""
    tile: float = 1 / 4
    """Side of a tile as a share of the view's, at random in its third (paper: 64 of 255 pixels)."""
    flip: bool = True
    """Mirror half of the images."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.2)
    """How far brightness, contrast, saturation (factors about 1) and hue (share of the circle) are changed, of every
    tile for itself (released code: 0.4 0.4 0.4 0.2)."""
    grey: float = 0.2
    """Share of the views, or tiles, that lose all colour, without which colour alone would tell images apart."""

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        require_bank(self.negatives, self.temperature, self.memory)
        require_shares("--scale", self.scale)
        require_shares("--puzzle-scale", self.puzzle_scale)
        require_jitter(self.jitter, self.grey)
        require_fit(3, self.tile, 1 / 3 - self.tile, (1 / 3 - self.tile) / 2)
        if not 0 <= self.weight <= 1:
            raise UserError(f"--weight must be a share in [0, 1], found {self.weight}: try 0.5.")

    @property
    def _shuffles(self) -> bool:
        return self.weight > 0 and self.transform != "rotation"

    @property
    def _turns(self) -> bool:
        return self.weight > 0 and self.transform != "jigsaw"

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """f, the projection (`project`), g of turned images (`turned`), g of tiles (`tile`, `tiles`), and the bank."""
        require_others(self.negatives, len(source))
        channels, d = list(encoder.layers.values())[-1].channels, self.dimensions
        heads = {"project": nn.Linear(channels, d), "bank": MemoryBank(len(source), d, self.bank)}
        if self._turns:
            heads["turned"] = nn.Linear(channels, d)
        if self._shuffles:
            require_readable(encoder, tile_pixels(self.size, self.tile))
            heads |= {"tile": nn.Linear(channels, d), "tiles": nn.Linear(TILES * d, d)}
        return nn.ModuleDict(heads)

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """What is compared with what.

        Returns:
            `images` (B, 3, S, S); `turned` the same, from another crop; `tiles` (B * 9, 3, t, t), those of an image in
            a row and shuffled; `index` (B,); `drawn` (m + 1,), the negatives of all: see `bank`.
        """
        views = {"images": self._recolored(batch.warp(self._crop(batch, generator), self.size), generator)}
        if self._turns:
            turned = self._recolored(batch.warp(self._crop(batch, generator), self.size), generator)
            turns = torch.randint(4, (len(batch),), generator=generator)  # none is one of them, as in the paper
            for turn in (1, 2, 3):
                chosen = moved((turns == turn).nonzero().flatten(), turned.device)
                turned[chosen] = torch.rot90(turned[chosen], turn, (2, 3))
            views["turned"] = turned
        if self._shuffles:
            views["tiles"] = self._shuffled_tiles(batch, generator)
        drawn = draw(min(self.negatives + 1, batch.population), batch.population, generator)
        return {**views, "index": batch.index, "drawn": moved(drawn, batch.index.device)}

    def _crop(self, batch: Batch, generator: torch.Generator) -> Tensor:
        return random_crop(len(batch), generator, scale=self.scale, flip=0.5 * self.flip)

    def _recolored(self, images: Tensor, generator: torch.Generator) -> Tensor:
        factors = dict(zip(("brightness", "contrast", "saturation", "hue"), self.jitter, strict=True))
        return recolor(images, *random_color(len(images), generator, **factors, grey=self.grey))

    def _shuffled_tiles(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Nine tiles of each image in any of the 9! orders, every tile in colours of its own: (B * 9, 3, t, t)."""
        count, side = len(batch), tile_pixels(self.size, self.tile)
        crop = random_crop(count, generator, scale=self.puzzle_scale, flip=0.5 * self.flip)
        cut = grid_tiles(count, generator, tile=side / self.size, gap=1 / 3 - side / self.size)
        order = torch.rand(count, TILES, generator=generator).argsort(1)
        shuffled = cut.gather(1, order[..., None, None].expand(cut.shape))
        return self._recolored(batch.warp(crop[:, None] @ shuffled, side).flatten(0, 1), generator)

    def loss(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> tuple[Tensor, Outcome]:
        """Lambda * NCE(m_I, g(v_It)) + (1 - lambda) * NCE(m_I, f(v_I)), m_I the image's entry of the bank.

        With both transformations the first term is the mean of theirs, each with a g of its own.
        """
        features, *transformed = self._anchors(encoder, heads, views)
        bank = cast(MemoryBank, heads["bank"])
        recalled = bank.recall(views["index"], views["drawn"])
        own, others = recalled.scores(features, self.temperature)
        noise = bank.constant(others) if self.normalizer == "constant" else None
        loss = (1 - self.weight) * nce(own, others, noise).mean()
        outcome = {"accuracy": ranked_first(own, others), "features": features}
        found = []
        for anchors in transformed:
            # g(v_It) is compared with the negatives too, not f(v_I).
            own, others = recalled.scores(anchors, self.temperature)
            loss = loss + self.weight / len(transformed) * nce(own, others, noise).mean()
            found.append(ranked_first(own, others))
        if found:
            outcome["transformed_accuracy"] = torch.stack(found).mean()
        return loss, outcome if noise is None else {**outcome, "noise": noise}

    def _anchors(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> list[Tensor]:
        """f(v_I), then g(v_It) of every transformation: (B, D) each, of length 1."""
        anchors = []
        if self._shuffles:
            # Before the whole images, so that those have the last word in the running statistics of batch norms.
            tiles = heads["tile"](encoder(views["tiles"])).reshape(len(views["index"]), -1)
            anchors.append(unit(heads["tiles"](tiles)))
        if self._turns:
            image, turned = encoder(torch.cat([views["images"], views["turned"]])).chunk(2)
            anchors.append(unit(heads["turned"](turned)))
        else:
            image = encoder(views["images"])
        return [unit(heads["project"](image)), *anchors]

    def after_step(self, encoder: Encoder, heads: nn.ModuleDict, views: Views, outcome: Outcome) -> None:
        """Renew the entries of these images by f of the images untransformed."""
        bank = cast(MemoryBank, heads["bank"])
        bank.update(views["index"], outcome["features"], self.memory)
        bank.noise.copy_(outcome.get("noise", bank.noise))

    def show(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """The images, and what must come out as they do."""
        shown = {"images": views["images"]}
        if self._turns:
            shown["turned"] = views["turned"]
        if self._shuffles:
            tiles = views["tiles"]
            shown["shuffled"] = mosaic(tiles.reshape(-1, TILES, *tiles.shape[1:]))
        return shown

    def chance(self, source: Source) -> dict[str, float]:
        """One in m + 1: a random entry is as likely to come first as any other."""
        level = 1 / min(self.negatives + 1, len(source))
        return {"accuracy": level, **({"transformed_accuracy": level} if self.weight else {})}
