"""The `svm` probe: linear support vector machines on every layer, one class against the rest.

Protocol of Goyal et al. 2019 (and of their released code) for Pascal VOC 2007: features are normalized to unit length;
squared hinge loss with L2 penalty, images of the class weighted twice; the cost C of each class is the one with the
best average precision in 3-fold cross-validation on the training images. The problem is that of `LinearSVC` of
scikit-learn (liblinear), and so is the solution; the bias is a penalized weight of a constant feature there as well. It
is solved for all classes and folds at once, see `svm_solver.py`. Held-out images only choose the layer.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.contracts import Encoder, Source
from selftaught.errors import UserError, require_ranges
from selftaught.evaluation.features import Viewing, require_labels
from selftaught.evaluation.probes.base import OnProgress, ProbeResult, indicators
from selftaught.evaluation.probes.logistic import require_costs
from selftaught.evaluation.probes.one_pass import OnePassProbe, TrainingFeatures, collect, score
from selftaught.evaluation.probes.svm_solver import minimize
from selftaught.evaluation.ranking import average_precision
from selftaught.limits import POSITIVE_COEFFICIENT, Range

FOLDS = Range(2, 100)


@dataclass(frozen=True)
class SVMProbe(OnePassProbe):
    """Linear support vector machines; C of each class is chosen by cross-validated average precision."""

    dimensions: ClassVar[int] = 4800
    costs: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    """Values of C to choose from. The released code has 1e-7 to 100, and VISSL 0.01 to 1,000."""
    folds: int = 3
    """Number of folds of the cross-validation."""
    positive_weight: float = 2.0
    """Weight of the images of a class against 1 for all others."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_costs(self.costs)
        require_ranges(self, folds=FOLDS, positive_weight=POSITIVE_COEFFICIENT)

    def evaluate(
        self, encoder: Encoder, train: Source, test: Source, viewing: Viewing, seed: int, on_progress: OnProgress
    ) -> dict[str, ProbeResult]:
        """See `Probe`; the seed also determines the folds."""
        classes = len(require_labels(train))
        collected = collect(encoder, train, viewing, seed, on_progress)
        folds = self._folds(collected.labels[~collected.held], train, seed)
        fitted = {}
        for name in list(collected.layers):
            on_progress(f"solving {name}", 0)
            fitted[name] = self._fit(collected.layers.pop(name), collected, folds, classes)
        scorers = {name: partial(decision, weight) for name, (weight, _, _) in fitted.items()}
        scores, labels = score(encoder, test, viewing, scorers, on_progress)
        return {
            name: ProbeResult(scores[name], labels, *held, len(weight) - 1, penalty)
            for name, (weight, held, penalty) in fitted.items()
        }

    def _folds(self, labels: Tensor, train: Source, seed: int) -> Tensor:
        """(n,) int64: the fold of each training image.

        Every fold has images of every class, except where images have several classes: then folds are random.
        """
        classes = require_labels(train)
        counts = indicators(labels, len(classes)).sum(0).tolist()
        fewest = min(counts)
        if fewest < self.folds:
            raise UserError(
                f"the svm probe needs at least {self.folds} labeled training images of each class that are not held "
                f"out, but class {classes[counts.index(fewest)]} of {train.name} has {fewest}: label more images, "
                "raise --limit, or use --probe ridge."
            )
        generator = torch.Generator().manual_seed(seed)
        folds = torch.empty(len(labels), dtype=torch.int64)
        if labels.ndim == 2:
            folds[torch.randperm(len(labels), generator=generator)] = torch.arange(len(labels)) % self.folds
            return folds.to(labels.device)
        for number in range(len(classes)):
            rows = (labels.cpu() == number).nonzero().flatten()
            folds[rows[torch.randperm(len(rows), generator=generator)]] = torch.arange(len(rows)) % self.folds
        return folds.to(labels.device)

    def _fit(
        self, features: Tensor, collected: TrainingFeatures, folds: Tensor, classes: int
    ) -> tuple[Tensor, tuple[Tensor, Tensor], float]:
        """Weights (d + 1, k) with the best C of each class, held-out scores and labels, and the median of 1 / C."""
        features = with_constant(features)
        inputs, held = features[~collected.held], features[collected.held]
        labels = collected.labels[~collected.held]
        signs = 2.0 * indicators(labels, classes).to(inputs.dtype) - 1
        importance = torch.where(signs > 0, self.positive_weight, 1.0)
        costs = self._choose(inputs, signs, importance, folds)
        weight = minimize(inputs, signs, importance * costs)
        held_out = (held @ weight).cpu(), collected.labels[collected.held].cpu()
        return weight, held_out, float(costs.reciprocal().median())

    def _choose(self, inputs: Tensor, signs: Tensor, importance: Tensor, folds: Tensor) -> Tensor:
        """(k,): the C of each class with the best cross-validated average precision, the smaller one on a tie."""
        classes = signs.shape[1]
        trained = torch.cat([(folds != fold)[:, None] * importance for fold in range(self.folds)], 1)
        repeated = signs.repeat(1, self.folds)
        weight = None
        precisions = []
        for cost in sorted(self.costs):
            weight = minimize(inputs, repeated, cost * trained, weight)
            scores = (inputs @ weight).view(len(inputs), self.folds, classes)
            per_fold = [
                average_precision(scores[folds == fold, fold], signs[folds == fold] > 0) for fold in range(self.folds)
            ]
            precisions.append(torch.stack(per_fold).nanmean(0))  # a random fold may lack a class
        best = torch.stack(precisions).argmax(0)
        return inputs.new_tensor(sorted(self.costs))[best]


def with_constant(features: Tensor) -> Tensor:
    """Normalize features to unit length and append a constant 1, for the bias: (n, d) -> (n, d + 1)."""
    return torch.cat([F.normalize(features), features.new_ones(len(features), 1)], 1)


def decision(weight: Tensor, features: Tensor) -> Tensor:
    """Signed distances to the hyperplanes, up to scale: (n, d) -> (n, k)."""
    return with_constant(features) @ weight
