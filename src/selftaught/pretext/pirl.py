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

from selftaught.augment.draws import rand, randint
from selftaught.augment.tiles import MIN_TILE, grid_tiles, mosaic, tile_pixels
from selftaught.augment.views import ViewAugmentation, crop_and_jitter
from selftaught.augment.warp import random_crop, require_shares, to_device
from selftaught.contracts import Batch, Encoder, EpochUpdate, Outputs, Source, Views
from selftaught.errors import UserError, require_ranges
from selftaught.limits import FRACTION, WIDTH
from selftaught.modules.bank import BankKind, MemoryBank, unit
from selftaught.modules.cropped import CroppedTask
from selftaught.modules.heads import HeadKind, embedding
from selftaught.modules.instances import InstanceNCE, bank_of, initialize_bank
from selftaught.modules.permutations import distant_permutations, require_permutations

TILES = 9


@dataclass(frozen=True)
class PIRL(CroppedTask):
    """Contrast each image and a transformed copy of it with all other images."""

    index_based = True
    projection_name = "project"

    scale: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest area of a crop, as a fraction of the image."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.2)
    """Color jitter: largest change of brightness, contrast, saturation (factors) and hue (fraction of the circle), as
    in the released code."""
    grayscale: float = 0.2
    """Fraction of the views that are converted to grayscale, so that color alone does not identify an image."""
    negatives: int = 4096
    """Number of negatives per image and step (paper: 32000 at its best, 4096 in its analysis); at most all other
    images."""
    temperature: float = 0.07
    """Temperature of the cosine similarities (paper: 0.07)."""
    nce_normalizer: Literal["sum", "constant"] = "sum"
    """Normalizer of the NCE loss: each image's own sum over its negatives (sum, as in the paper), or m / n * Z with a
    constant Z estimated from the first batch (constant, as in the released code)."""
    bank_momentum: float = 0.5
    """Momentum of the memory bank (paper: 0.5)."""
    dimensions: int = 128
    """Dimension of the embeddings in the bank (paper: 128)."""
    head: HeadKind = "linear"
    """Projection to the embedding: linear, as in the paper, or mlp."""
    projection_norm: bool = True
    """End projections in a batch norm, before embeddings are normalized to unit length. The paper does not; without it
    all embeddings of an untrained encoder are nearly the same, and training is slow for many epochs."""
    bank_init: Literal["features", "random"] = "features"
    """Initial entries of the bank: features of the untrained encoder, which cost a forward pass over the images, or
    random unit vectors, with which the first epoch contrasts with noise."""
    bank: BankKind = "device"
    """Storage of the memory bank: float32 on the device, half precision there (half), or half precision in host memory
    (host)."""
    transform: Literal["auto", "jigsaw", "rotation", "both"] = "auto"
    """Transformation to be invariant to: the order of nine tiles (jigsaw, the paper), quarter turns, or both. auto is
    jigsaw where tiles have 16 pixels per side or more, so from --size 64 on, else rotation: smaller tiles contain
    too little, and tiles of 8 pixels taught nothing."""
    weight: float = 0.5
    """Lambda, the weight of the transformed image in the loss (paper: 0.5); 0 leaves it out."""
    puzzle_scale: tuple[float, float] = (0.6, 1.0)
    """Smallest and largest area that is cut into tiles, as a fraction of the image (paper: at least 0.6)."""
    permutations: int | None = None
    """Number of orders of the tiles, chosen for large Hamming distances as in `jigsaw`; by default all 362,880, the
    best of the paper's numbers."""
    tile: float = 1 / 4
    """Side of a tile as a fraction of --size, placed at random in its third of the view (paper: 64 of 255 pixels)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        _ = self.augmentation(), self.nce  # they check their own settings
        require_ranges(self, dimensions=WIDTH, weight=FRACTION)
        require_shares("--puzzle-scale", self.puzzle_scale)
        if self.permutations is not None:
            require_permutations(TILES, self.permutations)
        if not 0 < self.tile <= 1 / 3:
            raise UserError(f"--tile must be above 0 and at most 1/3 of the view's side, got {self.tile:g}; try 0.25.")

    def augmentation(self) -> ViewAugmentation:
        """A random crop with color jitter."""
        return crop_and_jitter(self.scale, self.flip, self.jitter, self.grayscale)

    @property
    def nce(self) -> InstanceNCE:
        """The loss of an image or of its transformed copy."""
        return InstanceNCE(self.negatives, self.temperature, self.bank_momentum, self.nce_normalizer)

    @property
    def transformations(self) -> tuple[str, ...]:
        """The transformations of the copies, with auto resolved; none where they have no weight."""
        if not self.weight:
            return ()
        if self.transform == "auto":
            return ("jigsaw" if int(self.size * self.tile + 1e-6) >= MIN_TILE else "rotation",)
        return ("jigsaw", "rotation") if self.transform == "both" else (self.transform,)

    def view_sizes(self) -> dict[str, int]:
        """Crops, and tiles if they are shuffled."""
        sizes = {"crop": self.side}
        return {**sizes, "tile": tile_pixels(self.size, self.tile)} if self.uses_tiles() else sizes

    def uses_tiles(self) -> bool:
        """Whether the transformation includes shuffled tiles."""
        return "jigsaw" in self.transformations

    def projection(self, encoder: Encoder) -> nn.Module:
        """The projection of images (f in the paper)."""
        return embedding(encoder.last.channels, self.dimensions, self.head, self.projection_norm)

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """The projections f of images, g of rotated images (`rotated`) and of tiles (`tile`, `tiles`), and the bank."""
        self.nce.require_images(len(source))
        channels, d = encoder.last.channels, self.dimensions
        heads = nn.ModuleDict({"project": self.projection(encoder)})
        heads["bank"] = MemoryBank(len(source), d, self.bank)
        if "rotation" in self.transformations:
            heads["rotated"] = embedding(channels, d, self.head, self.projection_norm)
        if self.uses_tiles():
            heads["tile"] = nn.Linear(channels, d)
            heads["tiles"] = embedding(TILES * d, d, self.head, self.projection_norm)
        return heads

    def before_epoch(
        self, encoder: Encoder, heads: nn.ModuleDict, source: Source, generator: torch.Generator
    ) -> EpochUpdate:
        """Initialize the bank before the first epoch."""
        if self.bank_init == "features":
            initialize_bank(encoder, heads, source, self.side, generator)
        return EpochUpdate()

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """Images, their transformed copies and the negatives.

        Returns:
            `images` (B, 3, S, S); `rotated` the same, from another crop; `tiles` (B * 9, 3, t, t), those of an image in
            a row and shuffled; `index` (B,); `sampled` (m + 1,), the negatives of all: see `bank`.
        """
        images = self.augmentation().views(batch, self.side, generator)
        views = {"images": images, "index": batch.index, "sampled": self.nce.sample(batch, generator)}
        if "rotation" in self.transformations:
            views["rotated"] = self._rotated(batch, generator)
        if self.uses_tiles():
            views["tiles"] = self._shuffled_tiles(batch, generator)
        return views

    def _rotated(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Another crop of each image, rotated by a random multiple of 90 degrees: (B, 3, S, S)."""
        rotated = self.augmentation().views(batch, self.side, generator)
        turns = randint(4, len(batch), generator=generator)  # 0 included, as in the paper
        for turn in (1, 2, 3):
            chosen = to_device((turns == turn).nonzero().flatten(), rotated.device)
            rotated[chosen] = torch.rot90(rotated[chosen], turn, (2, 3))
        return rotated

    def _shuffled_tiles(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Nine tiles of each image in a random order, each with its own color jitter: (B * 9, 3, t, t)."""
        count, side = len(batch), tile_pixels(self.size, self.tile)
        crop = random_crop(count, generator, scale=self.puzzle_scale, flip=0.5 * self.flip)
        cut = grid_tiles(count, generator, tile=side / self.size, gap=1 / 3 - side / self.size)
        order = self._orders(count, generator)
        shuffled = cut.gather(1, order[..., None, None].expand(cut.shape))
        return self.augmentation().recolor(batch.warp(crop[:, None] @ shuffled, side).flatten(0, 1), generator)

    def _orders(self, count: int, generator: torch.Generator) -> Tensor:
        """A random order of the tiles for each image: (count, 9)."""
        if self.permutations is None:
            return rand(count, TILES, generator=generator).argsort(1)
        table = distant_permutations(TILES, self.permutations)
        return table[randint(len(table), count, generator=generator)]

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Lambda * NCE(m_I, g(v_It)) + (1 - lambda) * NCE(m_I, f(v_I)), where m_I is the image's entry in the bank.

        With both transformations the first term is the mean over them, each with its own g.
        """
        features, *transformed = self._embeddings(encoder, heads, views)
        bank = bank_of(heads)
        entries = bank.gather(views["index"], views["sampled"])
        of_images, outputs = self.nce(bank, features, entries)
        outputs["embeddings"] = features
        if not transformed:
            return (1 - self.weight) * of_images.mean(), outputs
        # The negatives are contrasted with g(v_It) too, not with f(v_I).
        losses, logged = zip(*(self.nce(bank, anchors, entries) for anchors in transformed), strict=True)
        outputs["transformed_accuracy"] = torch.stack([values["accuracy"] for values in logged]).mean()
        return self.weight * torch.stack(losses).mean() + (1 - self.weight) * of_images.mean(), outputs

    def _embeddings(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> list[Tensor]:
        """f(v_I), then g(v_It) of every transformation: (B, D) each, L2-normalized."""
        transformed = []
        if "tiles" in views:
            # Tiles first, so that whole images have slightly more weight in the running statistics of batch norms,
            # which are recomputed on whole images before a probe.
            tiles = heads["tile"](encoder(views["tiles"])).reshape(len(views["index"]), -1)
            transformed.append(unit(heads["tiles"](tiles)))
        if "rotated" in views:
            images, rotated = encoder(torch.cat([views["images"], views["rotated"]])).chunk(2)
            transformed.append(unit(heads["rotated"](rotated)))
        else:
            images = encoder(views["images"])
        return [unit(heads["project"](images)), *transformed]

    def after_step(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, outputs: Outputs, progress: float = 0.0
    ) -> None:
        """Update the entries of these images with the embeddings f(v_I)."""
        self.nce.update(bank_of(heads), views, outputs)

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """The images and their transformed copies."""
        pictures = {"images": views["images"]}
        if "rotated" in views:
            pictures["rotated"] = views["rotated"]
        if "tiles" in views:
            pictures["shuffled"] = mosaic(views["tiles"].reshape(-1, TILES, *views["tiles"].shape[1:]))
        return pictures

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """1 / (m + 1) for both; transformed images first, as they are what distinguishes PIRL."""
        level = self.nce.chance(source)
        return {"transformed_accuracy": level, "accuracy": level} if self.weight else {"accuracy": level}
