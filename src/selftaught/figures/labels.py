"""Accuracy by number of labeled images, for each way to train, compared with chance."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from selftaught.figures.style import FONT, MUTED, End, chart, label_ends, series, shown_name

Result = Mapping[str, Any]
"""Content of a `finetune/*.json`: `chance` and `results`, each with `name`, `images` and `rows` (`name`, `accuracy`,
`low`, `high`)."""

ROOM = 0.2
"""Least distance between two tick labels, as a fraction of the axis."""


def label_curve(result: Result) -> Figure:
    """Draw accuracy over the number of labeled images on a logarithmic axis, with 95 % intervals.

    Args:
        result: at least one number of labels; every number has the same rows.

    Returns:
        A figure with one line for each way to train, and a dotted one for chance.
    """
    counts = sorted(result["results"], key=lambda each: int(each["images"]))
    names = [str(row["name"]) for row in counts[0]["rows"]]
    places = [int(each["images"]) for each in counts]
    ends = [
        End(float(counts[-1]["rows"][number]["accuracy"]), shown_name(name), series(number)[0])
        for number, name in enumerate(names)
    ]
    ends.append(End(float(result["chance"]), "chance", MUTED))
    figure, axes = chart("labeled images, training and validation", "top-1 accuracy", [end.text for end in ends])
    for number in range(len(names)):
        color, marker = series(number)
        rows = [each["rows"][number] for each in counts]
        axes.plot(places, [row["accuracy"] for row in rows], color=color, linewidth=1.8, marker=marker, markersize=5)
        for place, row in zip(places, rows, strict=True):
            axes.vlines(place, row["low"], row["high"], color=color, linewidth=1.2)
    axes.axhline(float(result["chance"]), color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(places, _tick_labels(places), fontsize=FONT)
    axes.margins(x=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    label_ends(axes, ends)
    return figure


def _tick_labels(places: Sequence[int]) -> list[str]:
    """The numbers of labels; empty where the text would touch that of a larger number."""
    room = (places[-1] / places[0]) ** ROOM
    labels, next_labeled = [], math.inf
    for place in reversed(places):
        if fits := place * room <= next_labeled:
            next_labeled = place
        labels.append(f"{place:,}" if fits else "")
    return labels[::-1]
