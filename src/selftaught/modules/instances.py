"""Instance discrimination, the loss of NPID and PIRL: every image is a class, represented in a memory bank.

Two defaults of these tasks differ from the papers. The projection ends in a batch norm: features after a ReLU and
pooling have similar directions, so all embeddings of an untrained encoder are similar, and training takes long to
separate them. And the bank is initialized with features of the untrained encoder instead of noise: an entry is updated
once per epoch, so in the first few epochs, which may be all there are, images would be matched with noise. Without
either, 1,400 steps of 64 images left every layer below random weights.

Letters: B images, N all images, m negatives, D dimensions, S pixels along a view.
"""

import logging
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from selftaught.augment.draws import common
from selftaught.augment.warp import identity, to_device
from selftaught.contracts import Batch, Encoder, Outputs, Source, Views
from selftaught.errors import UserError, require_between
from selftaught.limits import ENTRIES, FRACTION_BELOW_1, TEMPERATURE
from selftaught.modules.bank import BankEntries, MemoryBank, sample_distinct, top1_accuracy
from selftaught.modules.losses import nce

Normalizer = Literal["sum", "constant"]
"""Normalizer of the NCE loss: see `losses.nce`."""


@dataclass(frozen=True)
class InstanceNCE:
    """Noise-contrastive estimation of each image against the other images' entries of a memory bank."""

    negatives: int
    """m, at most all other images."""
    temperature: float
    """Temperature of the cosine similarities."""
    bank_momentum: float
    """Momentum of the bank's entries."""
    normalizer: Normalizer
    """Each image's own sum over its negatives, or NPID's constant Z."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        require_between("--negatives", self.negatives, *ENTRIES, hint="; the default is 4096")
        require_between("--temperature", self.temperature, *TEMPERATURE, hint="; the default is 0.07")
        require_between("--bank-momentum", self.bank_momentum, *FRACTION_BELOW_1, hint="; the default is 0.5")

    def require_images(self, count: int) -> None:
        """Reject a source of one image, and log a warning if it has fewer images than negatives.

        Raises:
            UserError: the source has no other images.
        """
        if count < 2:
            raise UserError(
                f"instance discrimination needs at least 2 images, got {count}: use a folder or a photo with "
                "--num-crops."
            )
        if self.negatives >= count:
            logging.getLogger(__name__).warning(
                "--negatives is %d, but there are only %d other images: all of them are used",
                self.negatives, count - 1,
            )  # fmt: skip

    def sample(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Indices (m + 1,) of the entries that all images of a batch are contrasted with, on its device: see `bank`."""
        count = min(self.negatives + 1, batch.population)
        sampled = sample_distinct(count, batch.population, common(generator))
        return to_device(sampled, batch.index.device)

    def __call__(self, bank: MemoryBank, anchors: Tensor, entries: BankEntries) -> tuple[Tensor, Outputs]:
        """NCE loss of each anchor (B,), from unit vectors (B, D) and entries of the bank, and values to log."""
        positive, negatives = entries.scores(anchors, self.temperature)
        outputs = {"accuracy": top1_accuracy(positive, negatives)}
        if self.normalizer == "sum":
            return nce(positive, negatives), outputs
        log_normalizer = bank.estimate_log_normalizer(negatives)
        return nce(positive, negatives, log_normalizer), {**outputs, "log_normalizer": log_normalizer}

    def update(self, bank: MemoryBank, views: Views, outputs: Outputs) -> None:
        """Update the entries of the images `index` with their `embeddings`, and the constant normalizer."""
        bank.update(views["index"], outputs["embeddings"], self.bank_momentum)
        bank.log_normalizer.copy_(outputs.get("log_normalizer", bank.log_normalizer))

    def chance(self, source: Source) -> float:
        """Accuracy of random anchors, 1 / (m + 1): a random entry is as likely to rank first as any other."""
        return 1 / min(self.negatives + 1, len(source))


def bank_of(heads: nn.ModuleDict) -> MemoryBank:
    """The memory bank among the heads."""
    return cast(MemoryBank, heads["bank"])


def initialize_bank(
    encoder: Encoder, heads: nn.ModuleDict, source: Source, side: int, generator: torch.Generator
) -> None:
    """Set all entries to the embeddings of whole images of S = `side` pixels, once: before the first epoch."""
    encoder.train(), heads.train()  # running statistics of an untrained batch norm are not yet estimated

    def embed(batch: Batch) -> Tensor:
        embeddings: Tensor = heads["project"](encoder(batch.warp(identity(len(batch)), side)))
        return embeddings

    bank_of(heads).initialize(source, embed, generator)
