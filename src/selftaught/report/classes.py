"""Accuracy by class and confusions of the best layer of a probe, or average precision by class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from selftaught import figures
from selftaught.report.compare import count
from selftaught.report.embed import inline
from selftaught.report.probe_names import MISSING
from selftaught.report.record import is_number
from selftaught.report.verdict import integer, metric_of

MAX_CLASSES = 30
"""Maximum number of classes whose confusion matrix is drawn and whose accuracies are all listed."""
MAX_PAIRS = 15
"""Maximum number of confused pairs, and of the least accurate classes, that are listed for more classes."""


@dataclass(frozen=True)
class ClassSection:
    """Results by class."""

    figure: Markup | None
    """The confusion matrix; None for too many classes."""
    rows: Sequence[Sequence[str]]
    """Cells under `headings`; the least accurate classes first."""
    pairs: Sequence[Sequence[str]]
    """True class, predicted class, fraction of the true class; empty if the confusion matrix is drawn."""
    total: int
    """Number of classes."""
    title: str = "Accuracy by class"
    headings: Sequence[tuple[str, bool]] = (
        ("class", False), ("test images", True), ("accuracy", True), ("random weights", True),
    )  # fmt: skip
    """Headings of the columns, and whether they are numbers."""


def make_classes(probe: Mapping[str, Any], salt: str) -> ClassSection | None:
    """Results by class; None if the probe does not have them, as those of earlier versions."""
    classes, per_class = probe.get("classes"), probe.get("per_class")
    if not (isinstance(classes, list) and classes and isinstance(per_class, list) and len(per_class) == len(classes)):
        return None
    names, counts = [str(name) for name in classes], read_confusion(probe, len(classes))
    if metric_of(probe) == "map":
        return precision_section(probe, names)
    few = len(names) <= MAX_CLASSES
    figure = None
    if few and counts is not None:
        drawn = figures.confusion(counts.tolist(), names)
        figure = inline(drawn, salt, "confusion matrix of the best layer, true classes by predicted classes")
    rows = class_rows(probe, names, counts)
    pairs = [] if figure is not None or counts is None else worst_pairs(counts, names)
    return ClassSection(figure, rows if few else rows[:MAX_PAIRS], pairs, len(names))


def precision_section(probe: Mapping[str, Any], names: Sequence[str]) -> ClassSection:
    """Average precision and area under the ROC curve by class, the least precise first."""

    def column(key: str) -> list[Any]:
        values = probe.get(key)
        return values if isinstance(values, list) and len(values) == len(names) else [None] * len(names)

    precisions, random, areas, positives = map(
        column, ("per_class", "random_per_class", "areas_per_class", "positives")
    )
    order = sorted(range(len(names)), key=lambda k: (not is_number(precisions[k]), precisions[k] or 0.0))
    rows = [
        [
            names[k],
            count(int(positives[k])) if is_number(positives[k]) else MISSING,
            *map(two_digits, (precisions[k], random[k], areas[k])),
        ]
        for k in order
    ]
    headings = [("class", False), *((text, True) for text in ("test images", "AP", "AP, random weights", "ROC AUC"))]
    shown = rows if len(rows) <= MAX_CLASSES else rows[:MAX_PAIRS]
    return ClassSection(None, shown, [], len(names), "Average precision by class", headings)


def read_confusion(probe: Mapping[str, Any], classes: int) -> NDArray[np.int64] | None:
    """(k, k) numbers of test images by true class (row) and predicted class (column); None if missing or damaged."""
    rows = probe.get("confusion")
    if not (isinstance(rows, list) and len(rows) == classes):
        return None
    if not all(isinstance(row, list) and len(row) == classes for row in rows):
        return None
    if not all(is_number(value) and 0 <= value < 2**53 for row in rows for value in row):
        return None
    return np.array(rows, dtype=np.int64)


def class_rows(probe: Mapping[str, Any], names: Sequence[str], counts: NDArray[np.int64] | None) -> list[list[str]]:
    """One row for each class, the least accurate first; classes without test images last."""
    random = probe.get("random_per_class")
    random = random if isinstance(random, list) and len(random) == len(names) else [None] * len(names)
    repeated = 1 if counts is None else max(1, round(counts.sum() / max(1, integer(probe, "test") or counts.sum())))
    images = [None] * len(names) if counts is None else [int(total) // repeated for total in counts.sum(1)]
    accuracies = [value if is_number(value) else None for value in probe["per_class"]]
    order = sorted(range(len(names)), key=lambda place: (accuracies[place] is None, accuracies[place] or 0.0))
    return [
        [names[place], count(images[place]), two_digits(accuracies[place]), two_digits(random[place])]
        for place in order
    ]


def worst_pairs(counts: NDArray[np.int64], names: Sequence[str]) -> list[list[str]]:
    """The pairs of classes with the highest fraction of the true class confused."""
    fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(fractions, 0)
    order = np.argsort(-fractions, axis=None, kind="stable")[:MAX_PAIRS]
    places = [divmod(int(place), len(names)) for place in order]
    return [
        [names[true], names[other], f"{fractions[true, other]:.2f}"] for true, other in places if fractions[true, other]
    ]


def two_digits(value: object) -> str:
    """A fraction with two digits: a class has few test images."""
    return f"{value:.2f}" if is_number(value) else MISSING
