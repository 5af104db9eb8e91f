"""Instance discrimination, the base class of NPID and PIRL: every image is a class, represented in a memory bank.

Two defaults differ from the papers. The projection ends in a batch norm: features after a ReLU and pooling have similar
directions, so all embeddings of an untrained encoder are similar, and training takes long to separate them. And the
bank is initialized with features of the untrained encoder instead of noise: an entry is updated once per epoch, so in
the first few epochs, which may be all there are, images would be matched with noise. Without either, 1,400 steps of 64
images left every layer below random weights.

Letters: B images, N all images, m negatives, D dimensions, S pixels along a view.
"""

from abc import ABC
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from selftaught.augment.color import random_color, recolor, require_jitter
from selftaught.augment.warp import identity, to_device
from selftaught.contracts import Batch, Encoder, EpochUpdate, Outcome, Source, Views
from selftaught.errors import UserError
from selftaught.modules.bank import (
    BankEntries,
    BankKind,
    MemoryBank,
    draw,
    ranked_first,
    require_bank,
    require_negatives,
)
from selftaught.modules.crops import CropTask
from selftaught.modules.heads import HeadKind, embedding, require_input_size
from selftaught.modules.losses import nce


@dataclass(frozen=True)
class InstanceDiscrimination(CropTask, ABC):
    """Discriminate each image from all others, by its entry in a memory bank."""

    index_based = True

    negatives: int = 4096
    """Number of negatives per image and step (NPID: 4096; PIRL: 32000 at its best, 4096 in its analysis); at most all
    other images."""
    temperature: float = 0.07
    """Temperature of the cosine similarities (both papers: 0.07)."""
    # Without the batch norm and with a random bank, the constant of NPID's paper let the loss increase from 10 to 157:
    # once entries were features, every exponential was far above the Z estimated from noise.
    nce_normalizer: Literal["sum", "constant"] = "sum"
    """Normalizer of the NCE loss: each image's own sum over its negatives (sum, as in PIRL's paper), or m / n * Z with
    a constant Z estimated from the first batch (constant, as in NPID's paper and PIRL's code)."""
    bank_momentum: float = 0.5
    """Momentum of the memory bank: 0.5 in PIRL's paper and NPID's released code, 0 in NPID's paper."""
    dimensions: int = 128
    """Dimension of the embeddings in the bank (both papers: 128)."""
    head: HeadKind = "linear"
    """Projection to the embedding: linear, as in the papers, or mlp."""
    projection_norm: bool = True
    """End the projection in a batch norm, before embeddings are normalized to unit length. The papers do not; without
    it all embeddings of an untrained encoder are nearly the same, and training is slow for many epochs."""
    bank_init: Literal["features", "random"] = "features"
    """Initial entries of the bank: features of the untrained encoder, which cost a forward pass over the images, or
    random unit vectors, as in NPID's code, with which the first epoch contrasts with noise."""
    bank: BankKind = "device"
    """Storage of the memory bank: float32 on the device, half precision there (half), or half precision in host memory
    (host)."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest area of a crop, as a fraction of the image."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.2)
    """Color jitter: largest change of brightness, contrast, saturation (factors) and hue (fraction of the circle);
    PIRL's code has these values, NPID's 0.4 of each."""
    grey: float = 0.2
    """Fraction of the views that are converted to grayscale, so that color alone does not identify an image."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_bank(self.negatives, self.temperature, self.bank_momentum)
        require_jitter(self.jitter, self.grey)
        if self.dimensions < 1:
            raise UserError(f"--dimensions must be at least 1, got {self.dimensions}; the default is 128.")

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """The projection (f in the papers) and the memory bank."""
        require_negatives(self.negatives, len(source))
        require_input_size(encoder, self.side, "crop")
        channels = encoder.last.channels
        project = embedding(channels, self.dimensions, self.head, self.projection_norm)
        return nn.ModuleDict({"project": project, "bank": MemoryBank(len(source), self.dimensions, self.bank)})

    def before_epoch(
        self, encoder: Encoder, heads: nn.ModuleDict, source: Source, generator: torch.Generator
    ) -> EpochUpdate:
        """Fill the bank before the first epoch."""
        if self.bank_init == "features":
            encoder.train(), heads.train()  # running statistics of an untrained batch norm are not yet estimated

            def embed(batch: Batch) -> Tensor:
                embeddings: Tensor = heads["project"](encoder(batch.warp(identity(len(batch)), self.side)))
                return embeddings

            memory(heads).fill(source, embed, generator)
        return EpochUpdate()

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S), `index` (B,), and `drawn` (m + 1,), the negatives of all images: see `bank`."""
        images = self.augmented(batch, generator)
        drawn = draw(min(self.negatives + 1, batch.population), batch.population, generator)
        return {"images": images, "index": batch.index, "drawn": to_device(drawn, batch.index.device)}

    def augmented(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """A random crop of each image with color jitter: (B, 3, S, S)."""
        return self.recolored(self.cropped(batch, generator), generator)

    def recolored(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Color jitter, drawn for each image."""
        factors = dict(zip(("brightness", "contrast", "saturation", "hue"), self.jitter, strict=True))
        return recolor(images, *random_color(len(images), generator, **factors, grey=self.grey))

    def compared(self, heads: nn.ModuleDict, anchors: Tensor, entries: BankEntries) -> tuple[Tensor, Outcome]:
        """NCE loss of each anchor (B,), from unit vectors (B, D) and entries of the bank, and values to log."""
        own, others = entries.scores(anchors, self.temperature)
        logged = {"accuracy": ranked_first(own, others)}
        if self.nce_normalizer == "sum":
            return nce(own, others), logged
        noise = memory(heads).constant(others)
        return nce(own, others, noise), {**logged, "noise": noise}

    def after_step(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, outcome: Outcome, progress: float = 0.0
    ) -> None:
        """Update the entries of these images with their embeddings."""
        bank = memory(heads)
        bank.update(views["index"], outcome["features"], self.bank_momentum)
        bank.noise.copy_(outcome.get("noise", bank.noise))

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """1 / (m + 1): a random entry is as likely to rank first as any other."""
        return {"accuracy": 1 / min(self.negatives + 1, len(source))}


def memory(heads: nn.ModuleDict) -> MemoryBank:
    """The memory bank among the heads."""
    return cast(MemoryBank, heads["bank"])
