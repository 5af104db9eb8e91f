"""The probe: every layer at once against one run per layer, and ridge against scikit-learn's logistic regression.

    python -m benchmarks.probes                              digits, which scikit-learn carries
    python -m benchmarks.probes --data cifar10 --limit 10000

Features are those of an encoder with random weights, the same for both sides; every round draws other weights and
holds out other images: the spread is over both. One run per layer is given the shorter way: it stops at its layer.

Against scikit-learn, on the last layer: both choose their penalty on the same held-out images, and both times include
that choice. The row "stopped at equal accuracy" is the kindest to it: the chosen penalty alone, and as few iterations
as reach ridge's accuracy on the test images, which nobody could know beforehand.
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

from benchmarks.interleaved import Table, interleaved, options, parsed, publish, seconds_of
from selftaught.contracts import Encoder, Source
from selftaught.data import open_splits
from selftaught.encoders.convnet import ConvNet
from selftaught.evaluation.features import Features, Viewing, layer_features
from selftaught.evaluation.probes import RidgeProbe
from selftaught.evaluation.probes.base import held_out
from selftaught.evaluation.probes.ridge import Ridge

ITERATIONS = (5, 10, 20, 40, 80, 160, 320, 640, 1280)
"""Of L-BFGS, tried in turn until ridge's accuracy is reached."""
STRENGTHS = tuple(10.0**exponent for exponent in range(-5, 2))
"""C of scikit-learn, tried from the strongest penalty to the weakest on standardised features."""
CONVERGED = 1000
"""Iterations allowed while the penalty is chosen."""


class OneLayer(Encoder):
    """An encoder truncated after one layer, which is its only output.

    Args:
        whole: the encoder.
        layer: the name of the layer.
    """

    def __init__(self, whole: ConvNet, layer: str) -> None:
        super().__init__()
        self.layers, self.input_mode = {layer: whole.layers[layer]}, whole.input_mode
        self.preprocess, self.blocks = whole.preprocess, whole.blocks

    def features(self, seen: Tensor) -> dict[str, Tensor]:
        """See `Encoder`."""
        (wanted,) = self.layers
        for name, block in self.blocks.items():
            seen = block(seen)
            if name == wanted:
                break
        return {wanted: seen}


@dataclass
class Probes:
    """All sides, for one round after the other.

    Args:
        train: teaches.
        test: judges.
        viewing: how images are shown.
    """

    train: Source
    test: Source
    viewing: Viewing
    accuracies: dict[str, list[float]] = field(default_factory=dict)
    """Side -> what it scored, call by call."""

    def encoder(self, seed: int) -> ConvNet:
        """Random weights."""
        torch.manual_seed(seed)
        return ConvNet(size=self.viewing.size).to(memory_format=torch.channels_last)

    def at_once(self, seed: int) -> None:
        """Every layer from one pass."""
        found = RidgeProbe().evaluate(self.encoder(seed), self.train, self.test, self.viewing, seed, _silent)
        self._note("ours, every layer at once", fmean(reading.accuracy for reading in found.values()))

    def one_by_one(self, seed: int) -> None:
        """A pass for each layer."""
        whole = self.encoder(seed)
        found: dict[str, Any] = {}
        for layer in whole.layers:
            found |= RidgeProbe().evaluate(OneLayer(whole, layer), self.train, self.test, self.viewing, seed, _silent)
        self._note("one run per layer", fmean(reading.accuracy for reading in found.values()))

    def matrices(self, seed: int) -> "Matrices":
        """The last layer's features of both parts, which both classifiers are given."""
        encoder = self.encoder(seed)
        read = [_joined(list(layer_features(encoder, part, self.viewing))) for part in (self.train, self.test)]
        return Matrices(*read[0], *read[1], held_out(len(read[0][0]), seed))

    def ridge(self, given: "Matrices") -> float:
        """Seconds of ours, the choice of the penalty included."""
        spent = seconds_of(given.fit_ridge)
        self._note("ours, ridge", given.ridge)
        return spent

    def logistic(self, given: "Matrices") -> float:
        """Seconds of scikit-learn, the choice of the penalty included."""
        spent = seconds_of(given.fit_logistic)
        self._note("logistic regression", given.logistic)
        return spent

    def logistic_stopped(self, given: "Matrices") -> float:
        """Seconds until scikit-learn reads as well as ridge; infinite where it does not."""
        spent, accuracy = given.until_equal()
        self._note("logistic regression, stopped at equal accuracy", accuracy)
        return spent

    def _note(self, side: str, accuracy: float) -> None:
        self.accuracies.setdefault(side, []).append(accuracy)

    def notes(self, rounds: int) -> dict[str, str]:
        """Mean accuracies of the rounds that counted."""
        return {side: f"accuracy {fmean(found[-rounds:]):.3f}" for side, found in self.accuracies.items()}


def _silent(phase: str, images: int) -> None:
    pass


def _joined(parts: list[Features]) -> tuple[Tensor, Tensor]:
    last = list(parts[0].layers)[-1]
    return torch.cat([part.layers[last] for part in parts]), torch.cat([part.labels for part in parts])


@dataclass
class Matrices:
    """Features (n, d) and labels (n,) that teach and that judge, and which of the first choose the penalty."""

    taught: Tensor
    labels: Tensor
    judged: Tensor
    answers: Tensor
    away: Tensor
    ridge: float = 0.0
    """Accuracy on the test images, once fitted; so for logistic."""
    logistic: float = 0.0
    strength: float = STRENGTHS[0]

    def fit_ridge(self) -> None:
        """Ours, as `ridge` uses it."""
        ridge = Ridge(int(self.labels.max()) + 1)
        ridge.add(self.taught[~self.away], self.labels[~self.away])
        ridge.hold_out(self.taught[self.away], self.labels[self.away])
        self.ridge = ridge.solve().count_correct(self.judged, self.answers) / len(self.answers)

    def fit_logistic(self) -> None:
        """Theirs: the best C on the held-out images, from the strongest penalty until two in a row are worse."""
        chosen, most, misses = None, -1.0, 0
        away = self.away.numpy()
        for strength in STRENGTHS:
            model = self.fitted(strength, CONVERGED)
            score = model.score(self.taught.numpy()[away], self.labels.numpy()[away])
            if score > most:
                chosen, most, misses, self.strength = model, score, 0, strength
            else:
                misses += 1
            if misses == 2:
                break
        assert chosen is not None
        self.logistic = chosen.score(self.judged.numpy(), self.answers.numpy())

    def fitted(self, strength: float, iterations: int) -> Any:
        """Standardised features, then L-BFGS: what scikit-learn's own guide says to do."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=iterations))
        stay = ~self.away.numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # stopped early on purpose
            return model.fit(self.taught.numpy()[stay], self.labels.numpy()[stay])

    def until_equal(self) -> tuple[float, float]:
        """Seconds of the shortest fit that reads as well as ridge, and its accuracy; infinite where none does."""
        accuracy = 0.0
        for iterations in ITERATIONS:
            begun = perf_counter()
            model = self.fitted(self.strength, iterations)
            spent = perf_counter() - begun
            accuracy = model.score(self.judged.numpy(), self.answers.numpy())
            if accuracy >= self.ridge:
                return spent, accuracy
            if int(model[-1].n_iter_.max()) < iterations:  # converged, and it will read no better
                break
        return float("inf"), accuracy


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = options(__doc__, rounds=3)
    parser.add_argument("--data", default="digits", help="labelled images: anything `selftaught probe --data` takes")
    parser.add_argument("--limit", type=int, help="take this many images of each part")
    parser.add_argument("--size", type=int, default=32, help="side of the views in pixels")
    parser.add_argument(
        "--dimensions", type=int, default=RidgeProbe.dimensions, help="of each layer against each other"
    )
    parser.add_argument("--against", type=int, default=1024, help="dimensions against scikit-learn")
    given = parsed(parser, words, limit=60, dimensions=64, against=256)
    train, test = open_splits(given.data, limit=given.limit)
    tables = [layers_table(train, test, given), classifiers_table(train, test, given)]
    remarks = [f"{len(train):,} images teach, {len(test):,} judge ({given.data}); random weights of `convnet`."]
    publish("probes", "Probes", tables, remarks, given)


def layers_table(train: Source, test: Source, given: Any) -> Table:
    """Every layer at once against one run per layer."""
    probes = Probes(train, test, Viewing(given.size, torch.device("cpu"), given.dimensions))
    seeds = {"ours, every layer at once": count(), "one run per layer": count()}
    work = {"ours, every layer at once": probes.at_once, "one run per layer": probes.one_by_one}
    sides = {side: lambda side=side: seconds_of(partial(work[side], next(seeds[side]))) for side in work}
    found = interleaved(sides, given.rounds)
    title = f"three layers, at most {given.dimensions:,} dimensions each"
    return Table(title, "seconds", found, "ours, every layer at once", "less", probes.notes(given.rounds))


def classifiers_table(train: Source, test: Source, given: Any) -> Table:
    """Ridge against logistic regression. In fixed order, because "equal accuracy" needs ridge's."""
    probes = Probes(train, test, Viewing(given.size, torch.device("cpu"), given.against))
    work = {
        "ours, ridge": probes.ridge,
        "logistic regression": probes.logistic,
        "logistic regression, stopped at equal accuracy": probes.logistic_stopped,
    }
    found: dict[str, list[float]] = {side: [] for side in work}
    for seed in range(-1, given.rounds):
        matrices = probes.matrices(seed + 1)
        for side in work:
            spent = work[side](matrices)
            if seed >= 0:
                found[side].append(spent)
    title = f"last layer, {matrices.taught.shape[1]:,} dimensions"
    return Table(title, "seconds", found, "ours, ridge", "less", probes.notes(given.rounds))


if __name__ == "__main__":
    main()
