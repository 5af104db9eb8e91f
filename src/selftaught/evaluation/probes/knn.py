"""The `knn` probe: weighted k-nearest-neighbor classification on every layer, without training.

After Wu et al. 2018 (section 3.4): each of the k nearest training images by cosine similarity s votes for its class,
or for each of its classes, with weight exp(s / temperature). Scores are fractions of all votes, which makes those of
different images comparable. Features are averaged over positions, as in the paper; raw pixels are not.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.contracts import Encoder, Source
from selftaught.encoders.pixels import Pixels
from selftaught.errors import require_ranges
from selftaught.evaluation.features import Viewing, require_labels
from selftaught.evaluation.probes.base import OnProgress, ProbeResult
from selftaught.evaluation.probes.one_pass import OnePassProbe, collect, score
from selftaught.limits import NUM_IMAGES, TEMPERATURE


@dataclass(frozen=True)
class Bank:
    """Training features of one layer, normalized to unit length, and their labels."""

    features: Tensor
    """(N, D) float32."""
    labels: Tensor
    """(N,) int64, or (N, k) of 0 and 1 where images may have several classes."""


@dataclass(frozen=True)
class KNNProbe(OnePassProbe):
    """Weighted k-nearest-neighbor classifier.

    Neighbors of test images are searched among all training images, those of held-out images among the others.
    """

    dimensions: ClassVar[int] = 4800
    deterministic: ClassVar[bool] = True
    includes_embedding: ClassVar[bool] = True
    k: int = 200
    """Number of neighbors; at most that of the training images."""
    temperature: float = 0.07
    """Lower values give more weight to the nearest neighbors."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_ranges(self, k=NUM_IMAGES, temperature=TEMPERATURE)

    def evaluate(
        self, encoder: Encoder, train: Source, test: Source, viewing: Viewing, seed: int, on_progress: OnProgress
    ) -> dict[str, ProbeResult]:
        """See `Probe`; the dimensions of `viewing` apply to raw pixels only."""
        classes, viewing = len(require_labels(train)), self.viewing_of(encoder, viewing)
        collected = collect(encoder, train, viewing, seed, on_progress)
        banks = {name: Bank(F.normalize(x), collected.labels) for name, x in collected.layers.items()}
        scorers = {name: partial(self.votes, bank, classes) for name, bank in banks.items()}
        scores, labels = score(encoder, test, viewing, scorers, on_progress)
        held = {name: self._held_out_scores(bank, collected.held, classes) for name, bank in banks.items()}
        held_labels = collected.labels[collected.held].cpu()
        return {
            name: ProbeResult(scores[name], labels, held[name], held_labels, bank.features.shape[1])
            for name, bank in banks.items()
        }

    def viewing_of(self, encoder: Encoder, viewing: Viewing) -> Viewing:
        """See `OnePassProbe`: the average over positions."""
        return viewing if isinstance(encoder, Pixels) else replace(viewing, dimensions=1)

    def note(self, side: int, size: int) -> str:
        """See `Probe`."""
        return f"Each of the {self.k:,} nearest training images votes with temperature {self.temperature:g}."

    def votes(self, bank: Bank, classes: int, queries: Tensor) -> Tensor:
        """Fraction of the votes for each class: (n, D) -> (n, k)."""
        parts = []
        for rows in torch.split(F.normalize(queries), 256):
            nearest, indices = (rows @ bank.features.T).topk(min(self.k, len(bank.labels)))
            weight = (nearest / self.temperature).softmax(1)
            labels = bank.labels[indices]
            if labels.ndim == 2:
                parts.append(rows.new_zeros(len(rows), classes).scatter_add_(1, labels, weight))
            else:
                parts.append(torch.einsum("nk,nkc->nc", weight, labels.to(weight.dtype)))
        return torch.cat(parts) if parts else queries.new_zeros(0, classes)

    def _held_out_scores(self, bank: Bank, held: Tensor, classes: int) -> Tensor:
        """(m, k) on the CPU: the votes of the other images for each held-out one."""
        others = Bank(bank.features[~held], bank.labels[~held])
        return self.votes(others, classes, bank.features[held]).cpu()
