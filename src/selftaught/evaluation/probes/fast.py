"""The `fast` probe: a ridge classifier on every layer, from one pass over the training and one over the test images."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from selftaught.contracts import Encoder, Source
from selftaught.evaluation.features import Viewing, layer_features, require_labels
from selftaught.evaluation.probes.base import (
    OnProgress,
    Probe,
    ProbeResult,
    held_out,
    require_test_images,
    require_training_images,
)
from selftaught.evaluation.probes.ridge import Linear, Ridge


@dataclass(frozen=True)
class FastProbe(Probe):
    """Ridge regression on one-hot labels in closed form; the held-out images choose the penalty of each layer."""

    dimensions: ClassVar[int] = 4800
    """Half of the papers' dimensions, for a quarter of the work (an eighth in the factorization) and the same accuracy.

    Measured once on CIFAR-10: 45,000 training images, average pooling, random weights of a convnet with 64, 128 and 128
    channels: 0.614 0.626 0.570 with 4,800; 0.610 0.624 0.572 with 9,600; 0.614 0.616 0.566 with 2,400.
    """

    def evaluate(
        self, encoder: Encoder, train: Source, test: Source, viewing: Viewing, seed: int, on_progress: OnProgress
    ) -> dict[str, ProbeResult]:
        """See `Probe`."""
        linears = _fitted(encoder, train, viewing, seed, on_progress)
        correct: dict[str, list[Tensor]] = {name: [] for name in linears}
        count = 0
        for features in layer_features(encoder, test, viewing):
            for name, x in features.layers.items():
                correct[name].append(linears[name].correct(x, features.labels).cpu())
            count += len(features.labels)
            on_progress("testing", len(features.labels))
        require_test_images(count, test)
        return {
            name: ProbeResult(torch.cat(correct[name]), linear.held_out, len(linear.weight), linear.penalty)
            for name, linear in linears.items()
        }


def _fitted(encoder: Encoder, train: Source, viewing: Viewing, seed: int, on_progress: OnProgress) -> dict[str, Linear]:
    classes = len(require_labels(train))
    held = held_out(len(train), seed)
    ridges: dict[str, Ridge] = {}
    learned, chosen = 0, 0
    for features in layer_features(encoder, train, viewing):
        away = held[features.index]
        learning, choosing = features.of(~away), features.of(away)
        for name in features.layers:
            ridge = ridges.setdefault(name, Ridge(classes))
            if len(learning.labels):
                ridge.add(learning.layers[name], learning.labels)
            if len(choosing.labels):
                ridge.hold_out(choosing.layers[name], choosing.labels)
        learned, chosen = learned + len(learning.labels), chosen + len(choosing.labels)
        on_progress("extracting features", len(away))
    require_training_images(learned, chosen, train)
    linears = {}
    for name in list(ridges):
        on_progress(f"solving {name}", 0)
        linears[name] = ridges.pop(name).solve()  # popped: its Gram matrix is freed before the next is copied
    return linears
