"""Probes: all layers in one pass against one run per layer, and ridge against scikit-learn's logistic regression.

    python -m benchmarks.probes                              digits, bundled with scikit-learn
    python -m benchmarks.probes --data cifar10 --limit 10000

Features are those of an encoder with random weights, the same for both sides. Every round uses another seed for the
weights and for the held-out images, so the spread covers both. A run for one layer stops its forward pass there.

The comparison with scikit-learn is on the last layer. Both sides choose their penalty on the same held-out images, and
both times include this choice. The row "stopped at equal accuracy" favors scikit-learn: it has the chosen penalty only,
and the fewest iterations that reach ridge's accuracy on the test images, which a user could not determine.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from statistics import fmean
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from benchmarks.interleaved import Table, interleaved, parse_options, publish, seconds_of, shared_options
from selftaught.contracts import Encoder, Source
from selftaught.data import open_splits
from selftaught.encoders.convnet import ConvNet
from selftaught.evaluation.features import Features, Viewing, layer_features
from selftaught.evaluation.probes import RidgeProbe
from selftaught.evaluation.probes.base import ProbeResult, held_out
from selftaught.evaluation.probes.ridge_solver import Ridge

ITERATIONS = (5, 10, 20, 40, 80, 160, 320, 640, 1280)
"""Numbers of L-BFGS iterations, tried in this order until ridge's accuracy is reached."""
INVERSE_PENALTIES = tuple(10.0**exponent for exponent in range(-5, 2))
"""Values of scikit-learn's C on standardized features, tried from the strongest penalty to the weakest."""
MAX_ITERATIONS = 1000
"""Limit of L-BFGS iterations while the penalty is chosen."""


class OneLayer(Encoder):
    """An encoder truncated after one layer, which is its only output.

    Args:
        encoder: the complete encoder.
        layer: name of the layer.
    """

    def __init__(self, encoder: ConvNet, layer: str) -> None:
        super().__init__()
        self.layers, self.input_mode = {layer: encoder.layers[layer]}, encoder.input_mode
        self.preprocess, self.blocks = encoder.preprocess, encoder.blocks

    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        """See `Encoder`."""
        (layer,) = self.layers
        for name, block in self.blocks.items():
            inputs = block(inputs)
            if name == layer:
                break
        return {layer: inputs}


@dataclass
class Probes:
    """All sides, each as a method that runs one round.

    Args:
        train: training images of the probe.
        test: test images.
        viewing: size of the views and pooling of the features.
    """

    train: Source
    test: Source
    viewing: Viewing
    accuracies: dict[str, list[float]] = field(default_factory=dict)
    """Side -> test accuracy of each round, warm-up included."""

    def encoder(self, seed: int) -> ConvNet:
        """An encoder with random weights."""
        torch.manual_seed(seed)
        return ConvNet(size=self.viewing.size).to(memory_format=torch.channels_last)

    def all_layers(self, seed: int) -> None:
        """Probe all layers in one pass."""
        results = RidgeProbe().evaluate(self.encoder(seed), self.train, self.test, self.viewing, seed, _no_progress)
        self._add_accuracy("ours, every layer at once", fmean(result.accuracy for result in results.values()))

    def one_by_one(self, seed: int) -> None:
        """Probe the layers in one pass each."""
        encoder = self.encoder(seed)
        results: dict[str, ProbeResult] = {}
        for name in encoder.layers:
            layer = OneLayer(encoder, name)
            results |= RidgeProbe().evaluate(layer, self.train, self.test, self.viewing, seed, _no_progress)
        self._add_accuracy("one run per layer", fmean(result.accuracy for result in results.values()))

    def matrices(self, seed: int) -> "Matrices":
        """Features of the last layer for both classifiers."""
        encoder = self.encoder(seed)
        train, test = (
            _last_layer(list(layer_features(encoder, part, self.viewing))) for part in (self.train, self.test)
        )
        return Matrices(*train, *test, held_out(len(train[0]), seed))

    def ridge(self, matrices: "Matrices") -> float:
        """Seconds of ridge, including the choice of the penalty."""
        seconds = seconds_of(matrices.fit_ridge)
        self._add_accuracy("ours, ridge", matrices.ridge_accuracy)
        return seconds

    def logistic(self, matrices: "Matrices") -> float:
        """Seconds of scikit-learn, including the choice of the penalty."""
        seconds = seconds_of(matrices.fit_logistic)
        self._add_accuracy("logistic regression", matrices.logistic_accuracy)
        return seconds

    def logistic_stopped(self, matrices: "Matrices") -> float:
        """Seconds until scikit-learn reaches ridge's accuracy; infinite if it does not."""
        seconds, accuracy = matrices.until_equal()
        self._add_accuracy("logistic regression, stopped at equal accuracy", accuracy)
        return seconds

    def _add_accuracy(self, side: str, accuracy: float) -> None:
        self.accuracies.setdefault(side, []).append(accuracy)

    def notes(self, rounds: int) -> dict[str, str]:
        """Mean accuracy of each side over the measured rounds."""
        return {side: f"accuracy {fmean(values[-rounds:]):.3f}" for side, values in self.accuracies.items()}


def _no_progress(phase: str, images: int) -> None:
    pass


def _last_layer(parts: list[Features]) -> tuple[Tensor, Tensor]:
    """Features (n, d) of the last layer, and labels (n,)."""
    last = list(parts[0].layers)[-1]
    return torch.cat([part.layers[last] for part in parts]), torch.cat([part.labels for part in parts])


@dataclass
class Matrices:
    """Features (n, d) and labels (n,) of training and test images, and the results of both classifiers."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    held_out: Tensor
    """(n,) bool: training images that choose the penalty."""
    ridge_accuracy: float = 0.0
    """Accuracy on the test images, after `fit_ridge`."""
    logistic_accuracy: float = 0.0
    """Accuracy on the test images, after `fit_logistic`."""
    inverse_penalty: float = INVERSE_PENALTIES[0]
    """The chosen C, after `fit_logistic`."""

    def fit_ridge(self) -> None:
        """Fit ridge as the `ridge` probe does."""
        ridge = Ridge(int(self.train_labels.max()) + 1)
        ridge.add(self.train[~self.held_out], self.train_labels[~self.held_out])
        ridge.hold_out(self.train[self.held_out], self.train_labels[self.held_out])
        self.ridge_accuracy = float(ridge.solve().correct(self.test, self.test_labels).double().mean())

    def fit_logistic(self) -> None:
        """Choose C on the held-out images, from the strongest penalty on, until two values in a row are worse."""
        best, best_score, worse = None, -1.0, 0
        held_out = self.held_out.numpy()
        for inverse_penalty in INVERSE_PENALTIES:
            model = self.fitted(inverse_penalty, MAX_ITERATIONS)
            score = model.score(self.train.numpy()[held_out], self.train_labels.numpy()[held_out])
            if score > best_score:
                best, best_score, worse, self.inverse_penalty = model, score, 0, inverse_penalty
            else:
                worse += 1
            if worse == 2:
                break
        assert best is not None
        self.logistic_accuracy = best.score(self.test.numpy(), self.test_labels.numpy())

    def fitted(self, inverse_penalty: float, iterations: int) -> Any:
        """Standardization, then L-BFGS, as scikit-learn's user guide recommends."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=iterations))
        used = ~self.held_out.numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # stopped early on purpose
            return model.fit(self.train.numpy()[used], self.train_labels.numpy()[used])

    def until_equal(self) -> tuple[float, float]:
        """Seconds of the shortest fit that reaches ridge's accuracy, and its accuracy; infinite if none does."""
        accuracy = 0.0
        for iterations in ITERATIONS:
            start = perf_counter()
            model = self.fitted(self.inverse_penalty, iterations)
            seconds = perf_counter() - start
            accuracy = model.score(self.test.numpy(), self.test_labels.numpy())
            if accuracy >= self.ridge_accuracy:
                return seconds, accuracy
            if int(model[-1].n_iter_.max()) < iterations:  # converged: more iterations change nothing
                break
        return float("inf"), accuracy


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = shared_options(__doc__, rounds=3)
    parser.add_argument("--data", default="digits", help="labeled images, as for `selftaught probe --data`")
    parser.add_argument("--limit", type=int, help="number of training images, and of test images; default: all")
    parser.add_argument("--size", type=int, default=32, help="side of the views in pixels")
    parser.add_argument(
        "--dimensions", type=int, default=RidgeProbe.dimensions, help="maximum size of pooled features of a layer"
    )
    parser.add_argument("--against", type=int, default=1024, help="the same in the comparison with logistic regression")
    options = parse_options(parser, arguments, limit=60, dimensions=64, against=64, size=16)
    train, test = open_splits(options.data, limit=options.limit)
    tables = [layers_table(train, test, options), classifiers_table(train, test, options)]
    remarks = [
        f"{len(train):,} training and {len(test):,} test images ({options.data}); `convnet` with random weights."
    ]
    publish("probes", "Probes", tables, remarks, options)


def layers_table(train: Source, test: Source, options: Any) -> Table:
    """All layers in one pass against one run per layer."""
    probes = Probes(train, test, Viewing(options.size, torch.device("cpu"), options.dimensions))
    seeds = {"ours, every layer at once": count(), "one run per layer": count()}
    work = {"ours, every layer at once": probes.all_layers, "one run per layer": probes.one_by_one}
    sides = {side: lambda side=side: seconds_of(partial(work[side], next(seeds[side]))) for side in work}
    seconds = interleaved(sides, options.rounds)
    title = f"three layers, at most {options.dimensions:,} dimensions each"
    return Table(title, "seconds", seconds, "ours, every layer at once", "less", probes.notes(options.rounds))


def classifiers_table(train: Source, test: Source, options: Any) -> Table:
    """Ridge against logistic regression, in this order, because "equal accuracy" needs ridge's accuracy."""
    probes = Probes(train, test, Viewing(options.size, torch.device("cpu"), options.against))
    work = {
        "ours, ridge": probes.ridge,
        "logistic regression": probes.logistic,
        "logistic regression, stopped at equal accuracy": probes.logistic_stopped,
    }
    seconds: dict[str, list[float]] = {side: [] for side in work}
    for seed in range(-1, options.rounds):  # the first round is the warm-up
        matrices = probes.matrices(seed + 1)
        for side in work:
            elapsed = work[side](matrices)
            if seed >= 0:
                seconds[side].append(elapsed)
    title = f"last layer, {matrices.train.shape[1]:,} dimensions"
    return Table(title, "seconds", seconds, "ours, ridge", "less", probes.notes(options.rounds))


if __name__ == "__main__":
    main()
