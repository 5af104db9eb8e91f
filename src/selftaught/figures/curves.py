"""How training went: one logged number over steps or minutes, for one run or several, with its chance level."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from selftaught.figures.style import MUTED, End, chart, label_ends, series, shown_name

Log = Sequence[Mapping[str, float]]
"""The lines of a `log.jsonl`: each has `step`, `seconds` and whatever was logged."""

UP = {"accuracy": "pretext accuracy (fraction right)"}
"""What stands above the axis, where the name in the log would not do: a probe has accuracies too."""
SMOOTHED = 50
"""Points from which a running mean is drawn over the line itself, which turns faint."""


def curves(
    logs: Mapping[str, Log],
    quantity: str = "loss",
    *,
    over: Literal["steps", "minutes"] = "steps",
    chance: float | None = None,
) -> Figure:
    """Draw one logged number of one or several runs.

    Args:
        logs: the log of each run, by the run's name; lines without the quantity, or with NaN, leave a gap.
        quantity: which number: "loss", "accuracy", ...
        over: the horizontal axis; minutes are minutes of training, without the time spent between steps.
        chance: what an untrained encoder scores, or None where there is no such level.

    Returns:
        A figure whose first lines are the logged values, one line for each run in the given order.
    """
    tracks = [points(log, quantity, over) for log in logs.values()]
    ends = last_values(list(logs), [values for _, values in tracks])
    if chance is not None:
        ends.append(End(chance, f"chance {chance:.3f}", MUTED))
    across = "training steps" if over == "steps" else "minutes of training"
    figure, axes = chart(across, UP.get(quantity, quantity.replace("_", " ")), [end.text for end in ends])
    for number, (across_values, values) in enumerate(tracks):
        long = len(values) >= SMOOTHED
        color = series(number)[0]
        axes.plot(across_values, values, color=color, linewidth=1 if long else 1.6, alpha=0.3 if long else 1)
    for number, (across_values, values) in enumerate(tracks):
        if len(values) >= SMOOTHED:
            axes.plot(across_values, running_mean(values, len(values) // 25), color=series(number)[0], linewidth=1.6)
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
    """The label of each line that has a number: the last number of a single run, the names of several."""
    ends = []
    for number, (name, row) in enumerate(zip(names, values, strict=True)):
        known = row[np.isfinite(row)]
        if len(known):
            text = f"{known[-1]:.3f}" if len(names) == 1 else shown_name(name)
            ends.append(End(float(known[-1]), text, series(number)[0]))
    return ends


def points(log: Log, quantity: str, over: Literal["steps", "minutes"]) -> tuple[np.ndarray, np.ndarray]:
    """Where and how high: two float arrays of equal length; infinities become NaN, which is drawn as a gap."""
    lines = [line for line in log if quantity in line]
    where = [line["step"] if over == "steps" else line.get("seconds", math.nan) / 60 for line in lines]
    values = np.array([line[quantity] for line in lines], dtype=float)
    return np.array(where, dtype=float), np.where(np.isfinite(values), values, np.nan)


def running_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """The mean of the values at most `reach` to either side, NaN left out; a window shrinks where the line ends."""
    known = np.isfinite(values)
    sums = np.concatenate([[0], np.cumsum(np.where(known, values, 0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    places = np.arange(len(values))
    low, high = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    with np.errstate(invalid="ignore"):
        means: np.ndarray = (sums[high] - sums[low]) / np.where(
            counts[high] > counts[low], counts[high] - counts[low], np.nan
        )
    return means
