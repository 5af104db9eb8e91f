"""Figure of feature quality: one small chart per measure, with a row for each layer."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from selftaught.figures.style import CHARACTER, FONT, INK, MUTED, RULE, SERIES, shown_name

SMALL = FONT - 1.5
"""Font size inside a small chart, in points."""
COLUMNS = ("effective rank", "relative std", "alignment", "uniformity", "dead channels")
"""Title of each chart."""


def quality(table: Mapping[str, Any]) -> Figure:
    """Draw one small chart per measure: filled dots for the trained encoder, hollow ones for random weights.

    Standard deviations are multiplied by the square root of the number of channels: 1 is isotropic.

    Args:
        table: the content of `quality/*.json`: `rows`, each with `layer`, `channels`, and `trained` and `random`, which
            have `rank`, `std`, `alignment`, `uniformity` and `dead`.

    Returns:
        A figure whose axes are the charts, the first layer on top.
    """
    rows = table["rows"]
    names = [shown_name(str(row["layer"]), 14) for row in rows]
    left, wide, high = 0.25 + CHARACTER * max(len(name) for name in names), 1.45, 0.26 * len(rows) + 0.2
    width, height = left + wide * len(COLUMNS) + 0.1, 0.75 + high
    figure = Figure(figsize=(width, height), facecolor="none")
    for number, title in enumerate(COLUMNS):
        box = (
            (left + number * wide) / width, 0.45 / height, (wide - 0.2) / width, high / height,
        )  # fmt: skip
        axes = figure.add_axes(box, facecolor="none")
        _dots(axes, [[values(row, of)[number] for row in rows] for of in ("trained", "random")])
        axes.set_title(title, fontsize=FONT, color=INK, pad=4)
        axes.set_yticks(range(len(rows)), names if number == 0 else [""] * len(rows), fontsize=FONT, color=INK)
        for label in axes.get_yticklabels():
            label.set_parse_math(False)
    note = "filled: trained; hollow: random weights; relative std: 1 if features are isotropic"
    figure.text(left / width, 0.03 / height, note, fontsize=SMALL, color=MUTED, va="bottom")
    return figure


def values(row: Mapping[str, Any], of: str) -> list[float]:
    """The values of one layer in the order of `COLUMNS`; `of` is "trained" or "random"."""
    quality = row[of]
    relative = quality["std"] * row["channels"] ** 0.5
    return [quality["rank"], relative, quality["alignment"], quality["uniformity"], quality["dead"]]


def _dots(axes: Axes, measured: Sequence[Sequence[float]]) -> None:
    trained, random = measured
    places = range(len(trained))
    axes.hlines(places, random, trained, color=RULE, linewidth=2)
    axes.plot(random, places, "o", color=MUTED, markerfacecolor="none", markersize=5)
    axes.plot(trained, places, "o", color=SERIES[0], markersize=5)
    low, high = min(*trained, *random, 0), max(*trained, *random, 0)
    room = 0.08 * ((high - low) or 1)
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(len(trained) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(length=0, pad=2, labelsize=SMALL, labelcolor=MUTED)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(RULE)
