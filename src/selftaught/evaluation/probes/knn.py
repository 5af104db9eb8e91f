"""The `knn` probe: weighted k-nearest-neighbor classification on every layer, without training.

After Wu et al. 2018 (section 3.4): each of the k nearest training images by cosine similarity s votes for its class
with weight exp(s / temperature). Features are averaged over positions, as in the paper; raw pixels are not.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.contracts import Encoder, Source
from selftaught.encoders.pixels import Pixels
from selftaught.evaluation.features import Features, Viewing, layer_features, require_labels
from selftaught.evaluation.probes.base import (
    OnProgress,
    Probe,
    ProbeResult,
    held_out,
    require_test_images,
    require_training_images,
)


@dataclass(frozen=True)
class Bank:
    """Training features of one layer; they must fit in the memory of the device."""

    features: Tensor
    """(N, D) float32, normalized to unit length."""
    labels: Tensor
    """(N,) int64."""
    held: Tensor
    """(N,) bool: whether each image is held out."""


@dataclass(frozen=True)
class KNNProbe(Probe):
    """Weighted k-nearest-neighbor classifier.

    Neighbors of test images are searched among all training images, those of held-out images among the others.
    """

    dimensions: ClassVar[int] = 4800
    deterministic: ClassVar[bool] = True
    neighbors: int = 200
    """k, at most the number of training images."""
    temperature: float = 0.07
    """Lower values give more weight to the nearest neighbors."""

    def evaluate(
        self, encoder: Encoder, train: Source, test: Source, viewing: Viewing, seed: int, on_progress: OnProgress
    ) -> dict[str, ProbeResult]:
        """See `Probe`; the dimensions of `viewing` apply to raw pixels only."""
        classes = len(require_labels(train))
        if not isinstance(encoder, Pixels):
            viewing = replace(viewing, dimensions=1)  # average over positions
        banks = _banks(encoder, train, viewing, seed, on_progress)
        correct: dict[str, list[Tensor]] = {name: [] for name in banks}
        count = 0
        for features in map(_unit, layer_features(encoder, test, viewing)):
            for name, bank in banks.items():
                predicted = self._classify(features.layers[name], bank, classes, without_held=False)
                correct[name].append((predicted == features.labels).cpu())
            count += len(features.labels)
            on_progress("testing", len(features.labels))
        require_test_images(count, test)
        return {
            name: ProbeResult(torch.cat(correct[name]), self._held_out_accuracy(bank, classes), bank.features.shape[1])
            for name, bank in banks.items()
        }

    def _held_out_accuracy(self, bank: Bank, classes: int) -> float:
        predicted = self._classify(bank.features[bank.held], bank, classes, without_held=True)
        return float((predicted == bank.labels[bank.held]).double().mean())

    def _classify(self, queries: Tensor, bank: Bank, classes: int, without_held: bool) -> Tensor:
        """Predicted labels: (n, D) -> (n,)."""
        voters = int((~bank.held).sum()) if without_held else len(bank.labels)
        predicted = []
        for rows in torch.split(queries, 256):
            similarity = rows @ bank.features.T
            if without_held:
                similarity = similarity.masked_fill(bank.held, -torch.inf)
            nearest, indices = similarity.topk(min(self.neighbors, voters))
            votes = rows.new_zeros(len(rows), classes)
            weight = ((nearest - 1) / self.temperature).exp()  # s - 1 <= 0, so exp cannot overflow
            votes.scatter_add_(1, bank.labels[indices], weight)
            predicted.append(votes.argmax(1))
        return torch.cat(predicted)


def _banks(encoder: Encoder, train: Source, viewing: Viewing, seed: int, on_progress: OnProgress) -> dict[str, Bank]:
    held = held_out(len(train), seed)
    parts = []
    for features in layer_features(encoder, train, viewing):
        parts.append(_unit(features))
        on_progress("extracting features", len(features.labels))
    held_rows = torch.cat([held[part.index] for part in parts])
    require_training_images(int((~held_rows).sum()), int(held_rows.sum()), train)
    labels = torch.cat([part.labels for part in parts])
    held_rows = held_rows.to(labels.device)
    return {name: Bank(torch.cat([part.layers[name] for part in parts]), labels, held_rows) for name in parts[0].layers}


def _unit(features: Features) -> Features:
    """Normalize features to unit length."""
    return replace(features, layers={name: F.normalize(x, dim=1) for name, x in features.layers.items()})
