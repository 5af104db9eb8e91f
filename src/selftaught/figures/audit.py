"""What is left of the pretext accuracy under each change, and what it is held against."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from selftaught.figures.style import CHARACTER, FONT, INK, MUTED, RULE, SERIES, shown_name

LONGEST = 30
"""Characters of the name of a change that are shown."""
LINE, SPACE = 0.21, 0.5
"""Inches of a row; rows' worth of white between kinds."""
WIDTH = 3.4
"""Inches of the axis."""
NEAR = 0.3
"""Levels nearer than this have no room for their names between them."""


def audit(found: Mapping[str, Any]) -> Figure:
    """Draw one row for every change: a dot at its accuracy, a ring at what it is held against, a line between.

    Orange where the change says that the net reads the cue, grey where not. Bars: 95 % intervals of the difference.

    Args:
        found: what `audit/*.json` holds: `answers`, each with `change`, `kind`, `accuracy`, `expected`, `margin` and
            `reads`; and `chance`.

    Returns:
        A figure with one axes, whose ticks name the changes from top to bottom.
    """
    rows = list(found["answers"])
    places = _places([row["kind"] for row in rows])
    names = [shown_name(row["change"], LONGEST) for row in rows]
    left, below, above = 0.2 + CHARACTER * max(map(len, names)), 0.45, 0.3
    width, height = left + WIDTH + 0.15, below + above + LINE * (places[-1] + 1)
    figure = Figure(figsize=(width, height), facecolor="none")
    box = (left / width, below / height, WIDTH / width, (height - below - above) / height)
    axes = figure.add_axes(box, facecolor="none")
    for place, row in zip(places, rows, strict=True):
        _row(axes, place, row)
    _levels(axes, rows[0]["accuracy"], found["chance"])
    axes.set_ylim(places[-1] + 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_yticks(places, names)
    axes.tick_params(length=0, pad=5, labelsize=FONT, labelcolor=MUTED)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_xlabel("pretext accuracy; ring: what it is held against", color=MUTED, fontsize=FONT, labelpad=5)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(RULE)
    return figure


def _row(axes: Axes, place: float, row: Mapping[str, Any]) -> None:
    """One change."""
    color = SERIES[1] if row["uses_cue"] else INK if row["kind"] == "trained" else MUTED
    accuracy, expected, margin = row["accuracy"], row["expected"], row["margin"]
    if row["kind"] != "trained":
        axes.plot([expected, accuracy], [place, place], color=color, linewidth=1.2, solid_capstyle="butt")
        axes.plot(expected, place, "o", color=color, markersize=5, markerfacecolor="none")
        axes.plot([accuracy - margin, accuracy + margin], [place, place], color=color, linewidth=3, alpha=0.35)
    axes.plot(accuracy, place, "o", color=color, markersize=5)


def _levels(axes: Axes, trained: float, chance: float) -> None:
    """Dotted lines: no change, and chance, their names on the sides that are turned from each other."""
    for level, other, name in ((trained, chance, "as trained"), (chance, trained, "chance")):
        axes.axvline(level, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
        apart, right = abs(level - other) > NEAR, level >= other
        axes.text(
            level, 1.0, f"{name} {level:.2f}", fontsize=FONT - 1.5, color=MUTED, va="bottom",
            ha="center" if apart else "left" if right else "right", transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def _places(kinds: list[str]) -> list[float]:
    """Heights of rows, downwards: white before every new kind (plants stand with their controls)."""
    together = {"control": "planted", "off": "guard", "on": "guard"}
    groups = [together.get(kind, kind) for kind in kinds]
    breaks = [place > 0 and group != groups[place - 1] for place, group in enumerate(groups)]
    return [place + SPACE * sum(breaks[: place + 1]) for place in range(len(groups))]
