"""Training curves: one logged number over steps or minutes, for one or several runs, with its chance level."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from selftaught.figures.style import MUTED, End, chart, label_ends, series, shown_name

Log = Sequence[Mapping[str, float]]
"""The lines of a `log.jsonl`, each with `step`, `seconds` and the logged numbers."""

AXIS_LABELS = {"accuracy": "pretext accuracy"}
"""Label of the vertical axis, where the name in the log is ambiguous: probes have accuracies as well."""
MIN_SMOOTHED = 50
"""Number of points from which a running mean is drawn over the line, which is then faint."""


def curves(
    logs: Mapping[str, Log],
    quantity: str = "loss",
    *,
    over: Literal["steps", "minutes"] = "steps",
    chance: float | None = None,
) -> Figure:
    """Draw one logged number of one or several runs.

    Args:
        logs: the log of each run, by the run's name; lines without the quantity are skipped, NaN leaves a gap.
        quantity: name of the number: "loss", "accuracy", ...
        over: the horizontal axis; minutes are minutes of training, without the time spent between steps.
        chance: chance level, or None if there is none.

    Returns:
        A figure whose first lines are the logged values, one line for each run in the given order.
    """
    lines = [points(log, quantity, over) for log in logs.values()]
    ends = last_values(list(logs), [values for _, values in lines])
    if chance is not None:
        ends.append(End(chance, f"chance {chance:.3f}", MUTED))
    x_label = "training steps" if over == "steps" else "minutes of training"
    figure, axes = chart(x_label, AXIS_LABELS.get(quantity, quantity.replace("_", " ")), [end.text for end in ends])
    for number, (x, values) in enumerate(lines):
        long = len(values) >= MIN_SMOOTHED
        color = series(number)[0]
        axes.plot(x, values, color=color, linewidth=1 if long else 1.6, alpha=0.3 if long else 1)
    for number, (x, values) in enumerate(lines):
        if len(values) >= MIN_SMOOTHED:
            axes.plot(x, running_mean(values, len(values) // 25), color=series(number)[0], linewidth=1.6)
    if chance is not None:
        axes.axhline(chance, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=over == "steps"))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if over == "steps":
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    label_ends(axes, ends)
    return figure


def last_values(names: Sequence[str], values: Sequence[np.ndarray]) -> list[End]:
    """The label of each non-empty line: the last value of a single run, the names of several runs."""
    ends = []
    for number, (name, row) in enumerate(zip(names, values, strict=True)):
        finite = row[np.isfinite(row)]
        if len(finite):
            text = f"{finite[-1]:.3f}" if len(names) == 1 else shown_name(name)
            ends.append(End(float(finite[-1]), text, series(number)[0]))
    return ends


def points(log: Log, quantity: str, over: Literal["steps", "minutes"]) -> tuple[np.ndarray, np.ndarray]:
    """Horizontal and vertical values, two float arrays of equal length; infinities become NaN, drawn as a gap."""
    lines = [line for line in log if quantity in line]
    x = [line["step"] if over == "steps" else line.get("seconds", math.nan) / 60 for line in lines]
    values = np.array([line[quantity] for line in lines], dtype=float)
    return np.array(x, dtype=float), np.where(np.isfinite(values), values, np.nan)


def running_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """The mean over a window of `reach` values to either side, without NaN; windows are cut off at the ends."""
    finite = np.isfinite(values)
    sums = np.concatenate([[0], np.cumsum(np.where(finite, values, 0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    positions = np.arange(len(values))
    low, high = np.maximum(positions - reach, 0), np.minimum(positions + reach + 1, len(values))
    with np.errstate(invalid="ignore"):
        means: np.ndarray = (sums[high] - sums[low]) / np.where(
            counts[high] > counts[low], counts[high] - counts[low], np.nan
        )
    return means
