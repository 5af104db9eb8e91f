"""Where two curves of accuracy by number of labels cross: up to how many labels pretraining is better.

The difference of the curves is interpolated linearly over the logarithm of the number of labeled images. Its values are
correlated: all numbers of labels have the same test images, and a smaller draw of labels is part of a larger one. The
covariance over test images and that over repetitions are added, as for the interval of one difference; the interval of
the crossing is that of the crossings of 10,000 curves drawn from the normal distribution with this covariance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from selftaught.evaluation.few_labels import ALL
from selftaught.evaluation.intervals import student_t

CURVES = 10_000
"""Curves drawn for the interval."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Crossing:
    """The number of labeled images up to which the first curve is above the second one, with its 95 % interval.

    Infinity: above the largest number that was measured; 0: below the smallest.
    """

    first: str
    second: str
    value: float
    low: float
    high: float
    smallest: int
    largest: int
    """Numbers of labeled images that were measured."""
    classes: int | None
    """Number of classes if all numbers of labels are per class."""
    once: bool
    """Whether the first curve, as measured, is above the second one up to some number of labels, and not after it."""

    @property
    def sentence(self) -> str:
        """The crossing in words."""
        names = f"{self.first} and {self.second}"
        if self.low == 0 and self.high == math.inf:
            return (
                f"Where the curves of {names} cross is not decided: the 95 % interval of the crossing is "
                f"{self._bound(self.low)} to {self._bound(self.high)} labels{' per class' if self.classes else ''}."
            )
        if self.value == math.inf and not self.once:
            most = self._labels(self.largest)
            return f"{self.first} is above {self.second} with {most}, but not with every smaller number."
        if self.value == math.inf:
            text = f"The curves of {names} do not cross up to {self._labels(self.largest)}"
            text += f": {self.first} is above"
        elif not self.value:
            text = (
                f"The curves of {names} do not cross from {self._labels(self.smallest)} on: {self.first} is not above"
            )
        else:
            often = "cross at" if self.once else "cross more than once, the last time at"
            text = f"The curves of {names} {often} about {self._labels(self.value)}"
        if self.low == self.high:
            return f"{text} (in the whole 95 % interval)."
        return f"{text} (95 % interval of the crossing: {self._bound(self.low)} to {self._bound(self.high)})."

    def to_json(self) -> dict[str, object]:
        """Plain values; None for infinity."""
        numbers = {name: None if math.isinf(getattr(self, name)) else getattr(self, name) for name in _NUMBERS}
        return {**vars(self), **numbers, "sentence": self.sentence}

    def _labels(self, images: float) -> str:
        if self.classes:
            return f"{_two_digits(images / self.classes)} labels per class"
        return f"{_two_digits(images)} labeled images"

    def _bound(self, images: float) -> str:
        if images == math.inf:
            return f"above {_two_digits(self.largest / (self.classes or 1))}"
        if not images:
            return f"below {_two_digits(self.smallest / (self.classes or 1))}"
        return _two_digits(images / (self.classes or 1))


_NUMBERS = ("value", "low", "high")


def find_crossing(
    names: tuple[str, str], counts: Sequence[tuple[str, int]], first: Sequence[Tensor], second: Sequence[Tensor]
) -> Crossing:
    """Where the curve of the first side falls below that of the second one.

    Args:
        names: of the two sides.
        counts: name and number of labeled images of each point of the curves, at least two.
        first: (r, n) bool of each point: whether each test image is classified correctly, in each repetition.
        second: the same; repetition i of both sides has the same labels.
    """
    order = sorted(range(len(counts)), key=lambda point: counts[point][1])
    images = np.array([counts[point][1] for point in order])
    differences = [(first[point].double() - second[point].double()).numpy() for point in order]
    is_draw = np.array([counts[point][0] != ALL for point in order])
    center, covariance = _distribution(differences, is_draw)
    drawn = np.random.default_rng(0).multivariate_normal(center, covariance, CURVES)
    places = np.log(images)
    crossings = np.sort(_crossings(places, drawn))
    low, high = crossings[[int(0.025 * CURVES), int(0.975 * CURVES)]]
    per_class = [name.removesuffix(" per class").replace(",", "") for name, _ in counts]
    every = all(number.isdecimal() for number in per_class)
    classes = counts[0][1] // int(per_class[0]) if every else None
    value, above = float(_crossings(places, center[None])[0]), center > 0
    once = bool(np.all(above[:-1] >= above[1:]))
    return Crossing(*names, value, float(low), float(high), int(images[0]), int(images[-1]), classes, once)


def _distribution(differences: Sequence[Floats], is_draw: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Center (p,) and covariance (p, p) of the mean differences of all points.

    As in `intervals.over_images`, one image is added in favor of either side at each point, independently of the
    others. This scales the means of all points alike, so it does not move the crossing.

    Args:
        differences: (r, n) of each point.
        is_draw: (p,), whether the repetitions of a point are draws of labels, which are nested.
    """
    by_image = np.stack([difference.mean(0) for difference in differences])
    count = by_image.shape[1] + 2
    center: Floats = by_image.sum(1) / count
    spread = (by_image @ by_image.T + 2 * np.eye(len(by_image))) / count
    total: Floats = (spread - np.outer(center, center)) / count
    for i, one in enumerate(differences):
        for j, other in enumerate(differences):
            repetitions = len(one)
            if repetitions > 1 and (i == j or (is_draw[i] and is_draw[j] and len(other) == repetitions)):
                # The variance of few repetitions is uncertain: Student's t instead of the normal distribution.
                wider = (student_t(repetitions - 1) / 1.96) ** 2
                total[i, j] += wider * np.cov(one.mean(1), other.mean(1))[0, 1] / repetitions
    return center, total


def _crossings(places: Floats, curves: Floats) -> Floats:
    """The last place where each curve falls below zero, as a number of images; infinity if it ends above zero.

    0 if it is below zero everywhere.

    Args:
        places: (p,), increasing logarithms of numbers of images; p at least 2.
        curves: (n, p).
    """
    above = curves > 0
    last = curves.shape[1] - 2 - above[:, -2::-1].argmax(1)
    left, right = (np.take_along_axis(curves, place[:, None], 1)[:, 0] for place in (last, last + 1))
    with np.errstate(all="ignore"):  # curves that do not cross there
        found: Floats = np.exp(places[last] + left / (left - right) * (places[last + 1] - places[last]))
    return np.where(above[:, -1], math.inf, np.where(above.any(1), found, 0.0))


def _two_digits(number: float) -> str:
    """A number rounded to two significant digits."""
    if number < 10:
        return f"{number:.1f}".removesuffix(".0")
    scale = 10 ** (len(str(int(number))) - 2)
    return f"{round(number / scale) * scale:,}"
