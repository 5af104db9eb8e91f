"""The `logistic` probe: logistic regression on every layer, solved by L-BFGS on pooled features.

It is multinomial; where images may have several classes, one binary regression for each of them.

It minimizes ||W||^2 / 2 + C * (sum of the cross-entropies), as scikit-learn's `LogisticRegression`, whose solution it
has; biases are not penalized. C is chosen on held-out images, from small to large, each solution being the start of
the next. Features are centered and divided by one number per layer so that the mean variance of a dimension is 1, which
makes C comparable between layers. Of the probes on whole images this is the one closest to the linear evaluation of
joint-embedding methods; `sgd` adds augmentation.

Letters: n images, d dimensions, k classes.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.contracts import Encoder, Source
from selftaught.errors import UserError, require_between, require_ranges
from selftaught.evaluation.features import Viewing, require_labels
from selftaught.evaluation.probes.base import OnProgress, ProbeResult, classification_loss, criterion
from selftaught.evaluation.probes.one_pass import OnePassProbe, TrainingFeatures, collect, score
from selftaught.limits import Range

PATIENCE = 2
"""Number of values of C with lower held-out accuracy than the best so far after which the search stops."""


@dataclass(frozen=True)
class Logistic:
    """A fitted classifier: scores are logits."""

    weight: Tensor
    """(d, k), for standardized features."""
    bias: Tensor
    """(k,)."""
    mean: Tensor
    """(d,)."""
    scale: Tensor
    """Scalar by which centered features are divided."""
    several: bool = False
    """Whether an image may have several classes."""

    def scores(self, features: Tensor) -> Tensor:
        """Logits: (n, d) -> (n, k); log-probabilities of classes that exclude each other."""
        logits = torch.addmm(self.bias, (features - self.mean) / self.scale, self.weight)
        return logits if self.several else logits.log_softmax(1)


MAX_ITERATIONS = Range(1, 10**6)
COST = Range(1e-12, 1e12)


@dataclass(frozen=True)
class LogisticProbe(OnePassProbe):
    """Logistic regression by L-BFGS; C is chosen on the held-out images."""

    dimensions: ClassVar[int] = 4800
    costs: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """Values of C to choose from: inverse strength of the L2 penalty."""
    max_iterations: int = 100
    """Maximum number of L-BFGS iterations for each C."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_costs(self.costs)
        require_ranges(self, max_iterations=MAX_ITERATIONS)

    def evaluate(
        self, encoder: Encoder, train: Source, test: Source, viewing: Viewing, seed: int, on_progress: OnProgress
    ) -> dict[str, ProbeResult]:
        """See `Probe`."""
        classes = len(require_labels(train))
        collected = collect(encoder, train, viewing, seed, on_progress)
        fitted = {}
        for name in list(collected.layers):
            on_progress(f"solving {name}", 0)
            fitted[name] = self._fit(collected.layers.pop(name), collected, classes)
        scorers = {name: partial(Logistic.scores, logistic) for name, (logistic, _, _) in fitted.items()}
        scores, labels = score(encoder, test, viewing, scorers, on_progress)
        return {
            name: ProbeResult(scores[name], labels, *held, len(logistic.mean), 1 / cost)
            for name, (logistic, held, cost) in fitted.items()
        }

    def _fit(
        self, features: Tensor, collected: TrainingFeatures, classes: int
    ) -> tuple[Logistic, tuple[Tensor, Tensor], float]:
        """The best classifier by `criterion`, held-out scores and labels, and its C; the smaller C on a tie."""
        inputs, labels = features[~collected.held], collected.labels[~collected.held]
        held, held_labels = features[collected.held], collected.labels[collected.held]
        mean = inputs.mean(0)
        inputs = inputs.sub_(mean)
        scale = inputs.square().mean().sqrt().clamp_min(torch.finfo(inputs.dtype).tiny)
        inputs = inputs.div_(scale)
        weight = inputs.new_zeros(inputs.shape[1], classes)
        bias = inputs.new_zeros(classes)
        best, best_scores, best_value, best_cost, misses = None, held, 0.0, 0.0, 0
        for cost in sorted(self.costs):
            weight, bias = minimize(inputs, labels, weight, bias, cost, self.max_iterations)
            logistic = Logistic(weight, bias, mean, scale, several=labels.ndim == 2)
            scores = logistic.scores(held)
            value = criterion(scores, held_labels)
            if best is None or value > best_value:
                best, best_scores, best_value, best_cost, misses = logistic, scores, value, cost, 0
            elif value < best_value:
                misses += 1
            if misses == PATIENCE:
                break
        assert best is not None
        return best, (best_scores.cpu(), held_labels.cpu()), best_cost


def require_costs(costs: tuple[float, ...]) -> None:
    """Raise `UserError` unless there are values of C, all of them positive."""
    if not costs:
        raise UserError("--costs expects one or more positive numbers, got none.")
    for cost in costs:
        require_between("--costs", cost, *COST, hint="; try 0.1 1 10")


def minimize(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, cost: float, max_iterations: int
) -> tuple[Tensor, Tensor]:
    """Solve logistic regression by L-BFGS with a strong-Wolfe line search.

    Args:
        features: (n, d) float32.
        labels: (n,) int64, or (n, k) of 0 and 1: the losses of the k classes are then added.
        weight: (d, k), where to start.
        bias: (k,), where to start.
        cost: C.
        max_iterations: limit on the iterations.

    Returns:
        Weight and bias at the minimum.
    """
    # (k, d), so that the gradient is computed as in `transposed_product`.
    weight, bias = weight.T.clone(memory_format=torch.contiguous_format).requires_grad_(), bias.clone().requires_grad_()
    decay = 1 / (2 * cost * len(labels))  # of the mean loss, whose scale does not depend on n and C
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iterations,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        scores = F.linear(features, weight, bias)
        loss = classification_loss(scores, labels) + decay * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach().T, bias.detach()
