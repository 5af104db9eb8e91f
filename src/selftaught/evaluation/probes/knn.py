"""The `knn` probe: weighted k-nearest-neighbor classification on every layer, without training.

Wu et al. 2018 (section 3.4): cosine similarity s to every training image; each of the k nearest votes for its class
with exp(s / temperature). Features are averaged over positions, as theirs are; raw pixels keep them.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.contracts import Encoder, Source
from selftaught.evaluation.baselines.encoders import Pixels
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
    """Features of the training images of one layer, which must fit on the device."""

    features: Tensor
    """(N, D) float32, of length 1."""
    labels: Tensor
    """(N,) int64."""
    held: Tensor
    """(N,) bool: held out."""


@dataclass(frozen=True)
class KNNProbe(Probe):
    """Test images are compared with all training images, held-out images with the other training images."""

    dimensions: ClassVar[int] = 4800
    deterministic: ClassVar[bool] = True
    neighbors: int = 200
    """k; all training images where they are fewer."""
    temperature: float = 0.07
    """Lower values give more weight to the nearest neighbors."""

    def evaluate(
        self, encoder: Encoder, train: Source, test: Source, viewing: Viewing, seed: int, on_progress: OnProgress
    ) -> dict[str, ProbeResult]:
        """See `Probe`; the dimensions of `viewing` concern raw pixels alone."""
        classes = len(require_labels(train))
        if not isinstance(encoder, Pixels):
            viewing = replace(viewing, dimensions=1)  # average over positions
        banks = _banks(encoder, train, viewing, seed, on_progress)
        correct: dict[str, list[Tensor]] = {name: [] for name in banks}
        count = 0
        for features in map(_unit, layer_features(encoder, test, viewing)):
            for name, bank in banks.items():
                votes = self._classify(features.layers[name], bank, classes, without_held=False)
                correct[name].append((votes == features.labels).cpu())
            count += len(features.labels)
            on_progress("testing", len(features.labels))
        require_test_images(count, test)
        return {
            name: ProbeResult(torch.cat(correct[name]), self._held_out_accuracy(bank, classes), bank.features.shape[1])
            for name, bank in banks.items()
        }

    def _held_out_accuracy(self, bank: Bank, classes: int) -> float:
        votes = self._classify(bank.features[bank.held], bank, classes, without_held=True)
        return float((votes == bank.labels[bank.held]).double().mean())

    def _classify(self, queries: Tensor, bank: Bank, classes: int, without_held: bool) -> Tensor:
        """Predicted labels: (n, D) -> (n,)."""
        voters = int((~bank.held).sum()) if without_held else len(bank.labels)
        predicted = []
        for rows in torch.split(queries, 256):
            similarity = rows @ bank.features.T
            if without_held:
                similarity = similarity.masked_fill(bank.held, -torch.inf)
            near, which = similarity.topk(min(self.neighbors, voters))
            votes = rows.new_zeros(len(rows), classes)
            votes.scatter_add_(1, bank.labels[which], ((near - 1) / self.temperature).exp())  # - 1: at most exp(0)
            predicted.append(votes.argmax(1))
        return torch.cat(predicted)


def _banks(encoder: Encoder, train: Source, viewing: Viewing, seed: int, on_progress: OnProgress) -> dict[str, Bank]:
    held = held_out(len(train), seed)
    parts = []
    for features in layer_features(encoder, train, viewing):
        parts.append(_unit(features))
        on_progress("extracting features", len(features.labels))
    away = torch.cat([held[part.index] for part in parts])
    require_training_images(int((~away).sum()), int(away.sum()), train)
    labels = torch.cat([part.labels for part in parts])
    away = away.to(labels.device)
    return {name: Bank(torch.cat([part.layers[name] for part in parts]), labels, away) for name in parts[0].layers}


def _unit(features: Features) -> Features:
    """Features at length 1."""
    return replace(features, layers={name: F.normalize(x, dim=1) for name, x in features.layers.items()})
