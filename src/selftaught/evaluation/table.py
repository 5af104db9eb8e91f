"""The table of a probe: accuracy or mAP by layer, as JSON and for the terminal."""

import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from selftaught.evaluation.choice import LayerChoice
from selftaught.evaluation.gain import Gain
from selftaught.evaluation.metrics import UNBALANCED, is_unbalanced
from selftaught.evaluation.overlap import overlap_warning
from selftaught.evaluation.rows import BaselineRow, LayerRow, Observations

RECALIBRATED = "The encoder's batch-norm statistics were recomputed on whole training images."
MULTILABEL = (
    "Images may have several classes. mAP: mean over classes of the average precision. Its interval is from bootstrap "
    "samples of the test images."
)
MAX_CONFUSION = 100
"""Maximum number of classes for which the confusion matrix is written to JSON."""
TOO_WIDE = 0.05
"""Half width of an interval including zero above which a sentence states that there are too few test images."""


@dataclass(frozen=True)
class MetricName:
    """How the metric of a table, and a further one, are called."""

    title: str
    words: str
    """In a sentence."""
    short: str
    """In a heading."""
    further: str
    """Key of the further metric in `LayerRow.metrics`."""
    headings: tuple[str, str]
    """Of the further metric, and of the same for random weights."""


METRICS = {
    "accuracy": MetricName(
        "Top-1 accuracy",
        "top-1 accuracy",
        "accuracy",
        "balanced_accuracy",
        ("balanced accuracy", "random weights, balanced"),
    ),
    "map": MetricName("mAP", "mAP", "mAP", "roc_auc", ("ROC AUC", "random weights, ROC AUC")),
}
"""By name in JSON."""


@dataclass(frozen=True)
class ProbeTable:
    """How accurate a probe is on every layer of an encoder, compared with random weights, raw pixels and chance."""

    data: str
    """The source of the labeled images, without its split."""
    chance: float
    """The metric without information: fraction of the most frequent class of the test images, the accuracy of always
    predicting it; for mAP, the mean fraction of test images that have a class."""
    pixels: float
    """The metric of raw pixels."""
    layers: tuple[LayerRow, ...]
    gain: Gain
    train: int
    """Labeled training images."""
    test: int
    """Labeled test images."""
    probe: str
    size: int
    """Side of the views in pixels."""
    dimensions: int
    """Features were pooled to this many numbers, at most."""
    pooling: str
    seeds: int
    """Probes of the trained encoder."""
    initializations: int
    """Random initializations that were probed."""
    spread: str
    """Repetitions of each standard deviation, in words."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Hyperparameters of the probe."""
    metric: str = "accuracy"
    """"accuracy", or "map" where images may have several classes."""
    choice: LayerChoice | None = None
    """How certain the choice of the best layer is; None if there is only one layer."""
    baselines: tuple[BaselineRow, ...] = ()
    """Further baselines."""
    note: str = ""
    """How the images were cropped, where that is not obvious, and which rows were left out; one per line."""
    has_parameters: bool = True
    """Whether the encoder has parameters; otherwise the "random weights" are the same encoder."""
    recalibrated: bool = False
    """Whether the trained encoder's batch-norm statistics were recomputed, as pretraining used tiles."""
    overlap: int | None = None
    """Number of test images that were part of pretraining (without their labels); None if unknown."""
    pixels_metrics: dict[str, float] = field(default_factory=dict)
    """Further metrics of raw pixels."""
    classes: tuple[str, ...] = ()
    per_class: tuple[float | None, ...] = ()
    """Accuracy of the best layer on the test images of each class, or its average precision, mean over the probe seeds;
    None without images."""
    random_per_class: tuple[float | None, ...] = ()
    """The same for the best layer of random weights, mean over the initializations."""
    confusion: list[list[int]] = field(default_factory=list)
    """Test images by true class (row) and predicted class (column) at the best layer, summed over the probe seeds;
    empty for mAP."""
    areas_per_class: tuple[float | None, ...] = ()
    """For mAP: area under the ROC curve of each class at the best layer, mean over the probe seeds."""
    positives: tuple[int, ...] = ()
    """For mAP: number of test images that have each class."""
    observations: Observations | None = field(default=None, compare=False, repr=False)

    @property
    def unbalanced(self) -> bool:
        """Whether the test images are unbalanced over the classes, so that accuracy favors the frequent ones."""
        return bool(self.confusion) and is_unbalanced([sum(row) for row in self.confusion])

    @property
    def best(self) -> LayerRow:
        """The layer with the best metric on held-out images."""
        return next(row for row in self.layers if row.layer == self.gain.layer)

    def to_json(self) -> dict[str, object]:
        """Plain values, as stored in `probes/*.json` and printed by `--json`."""
        skipped = {"layers", "gain", "observations", "baselines", "choice"}
        if len(self.classes) > MAX_CONFUSION:
            skipped |= {"confusion"}
        return {
            **{name: value for name, value in vars(self).items() if name not in skipped},
            "unbalanced": self.unbalanced,
            "layers": [
                {
                    {"penalty": "lambda", "value": self.metric}.get(name, name): value
                    for name, value in vars(row).items()
                }
                for row in self.layers
            ],
            "gain": self.gain.to_json(),
            "layer_choice": self.choice.to_json() if self.choice else None,
            "baselines": [
                {self.metric if name == "value" else name: value for name, value in row.to_json().items()}
                for row in self.baselines
            ],
        }


def mean_and_std(values: list[float]) -> tuple[float, float | None]:
    """The mean and the sample standard deviation, None for one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def data_name(source: str) -> str:
    """The name of a source without its split: "cifar10 (train)" -> "cifar10"."""
    return re.sub(r" \((train|test)[^()]*\)$", "", source)


def digits(test: int | None) -> int:
    """Decimals of an accuracy, by the number of test images; None if unknown."""
    return 2 if test is not None and test < 1000 else 3


def render(table: ProbeTable) -> Table:
    """The table for the terminal: layers first, then further baselines at their best layers, raw pixels and chance.

    Balanced accuracies are added where classes are unbalanced, and areas under the ROC curve to mAP.
    """
    places, metric = digits(table.test), METRICS[table.metric]
    out = Table(
        title=f"{metric.title} ({table.probe} probe) on {table.test:,} test images of {Path(table.data).name}",
        caption="\n".join(_captions(table)),
        caption_justify="left",
    )
    out.add_column("layer")
    further = metric.headings if table.unbalanced or table.metric == "map" else ()
    for heading in (metric.short, "held-out", "random weights", "gain", "dimensions", *further):
        out.add_column(heading, justify="right")

    def cells(*metrics: Mapping[str, float]) -> list[str]:
        values = [each.get(metric.further) for each in metrics if further]
        return ["" if value is None else f"{value:.{places}f}" for value in values]

    for row in table.layers:
        out.add_row(
            row.layer,
            _number(row.value, row.std, places),
            f"{row.held_out:.{places}f}",
            *_compared(row, places, table.has_parameters),
            str(row.dimensions),
            *cells(row.metrics, row.random_metrics),
            style="bold" if row is table.best else None,
        )
    out.add_section()
    for other in table.baselines:
        out.add_row(
            f"{other.title} ({other.layer})",
            _number(other.value, None, places),
            f"{other.held_out:.{places}f}",
            "",
            "",
            str(other.dimensions),
            *cells(other.metrics),
        )
    level = 0.5 if table.metric == "map" else 1 / max(1, sum(any(row) for row in table.confusion))
    for name, value, others in (
        ("raw pixels", table.pixels, table.pixels_metrics),
        ("chance", table.chance, {metric.further: level}),
    ):
        out.add_row(name, _number(value, None, places), *(["", "", "", "", *cells(others)] if further else []))
    return out


def render_classes(table: ProbeTable) -> Table:
    """The classes of images that may have several, for the terminal: at the best layer, with the best random layer."""
    places = digits(table.test)
    out = Table(title=f"By class ({table.best.layer}; random weights: {table.gain.random_layer})")
    out.add_column("class")
    for heading in ("test images", "average precision", "random weights", "ROC AUC"):
        out.add_column(heading, justify="right")
    columns = (table.per_class, table.random_per_class, table.areas_per_class)
    for name, count, *values in zip(table.classes, table.positives, *columns, strict=True):
        out.add_row(name, f"{count:,}", *("n.a." if value is None else f"{value:.{places}f}" for value in values))
    return out


def _compared(row: LayerRow, places: int, has_parameters: bool) -> tuple[str, str]:
    """Random weights and gain of a layer."""
    if not has_parameters:
        return "n.a.", "n.a."
    return _number(row.random, row.random_std, places), f"{row.value - row.random:+.{places}f}"


def _captions(table: ProbeTable) -> list[str]:
    lines = [
        f"Probe trained on {table.train:,} labeled images. {table.spread}",
        f"Bold: the best layer, chosen by {METRICS[table.metric].short} on held-out training images.",
        _gain_line(table),
        *_baseline_lines(table),
        table.choice.note if table.choice else "",
        _balance_line(table),
        MULTILABEL if table.metric == "map" else "",
        table.note,
        RECALIBRATED if table.recalibrated else "",
        overlap_warning(table.overlap, table.test),
    ]
    return [line for line in lines if line]


def _gain_line(table: ProbeTable) -> str:
    if not table.has_parameters:
        return "The encoder has no parameters, so a gain over random weights is not defined."
    gain, places = table.gain, digits(table.test)
    margin = (gain.high - gain.low) / 2
    line = (
        f"Gain over the best layer of random weights ({gain.random_layer}): {gain.value:+.{places}f} "
        f"(95 % interval {gain.low:+.{places}f} to {gain.high:+.{places}f}{_covered_by(gain)}; one run: variation "
        "between runs is not included)."
    )
    if gain.low <= 0 <= gain.high and margin > TOO_WIDE:
        count = table.choice.images if table.choice else 0
        held = f" and {count:,} held-out one{'s' * (count != 1)}" if count and gain.is_uncertain else ""
        line += f" {table.test:,} test images{held} are too few: the 95 % interval is ±{margin:.2f}."
    return line


def _covered_by(gain: Gain) -> str:
    """Which layers an interval covers, if there are several."""
    if not gain.is_uncertain:
        return ""
    layers, random_layers = (", ".join(names) for names in (gain.layers, gain.random_layers))
    return (
        f", over all layers not significantly worse than the best one on held-out images: {layers}; random weights: "
        f"{random_layers}"
    )


def _baseline_lines(table: ProbeTable) -> list[str]:
    """The difference of the best layer to each further baseline."""
    return [
        f"Best layer minus {row.title}: {interval_text(row.difference, digits(table.test), _covered(table, row))}."
        for row in table.baselines
        if row.difference is not None
    ]


def interval_text(difference: Mapping[str, float], places: int, covered: str = "") -> str:
    """A difference with its 95 % interval, and what that covers."""
    value, low, high = (f"{difference[key]:+.{places}f}" for key in ("value", "low", "high"))
    return f"{value} (95 % interval {low} to {high}{covered})"


def _covered(table: ProbeTable, row: BaselineRow) -> str:
    """Which layers the interval of the difference to a baseline covers, if there are several."""
    if max(len(table.gain.layers), len(row.layers)) < 2:
        return ""
    return f", over {', '.join(table.gain.layers)}; {row.title}: {', '.join(row.layers)}"


def _balance_line(table: ProbeTable) -> str:
    if not table.unbalanced:
        return ""
    metrics = table.best.metrics
    f1 = f"{metrics['macro_f1']:.{digits(table.test)}f}"
    area = f"; area under the ROC curve {metrics['roc_auc']:.3f}" if "roc_auc" in metrics else ""
    return (
        f"Unbalanced classes: the most frequent one has over {UNBALANCED:g} times the test images of the rarest. "
        f"Balanced accuracy is the mean over classes. Best layer: macro-F1 {f1}{area}."
    )


def _number(value: float, std: float | None, places: int) -> str:
    return f"{value:.{places}f}" if std is None else f"{value:.{places}f} ± {std:.{places}f}"
