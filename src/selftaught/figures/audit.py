"""Figure of a shortcut audit: pretext accuracy under each change, compared with its reference."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from selftaught.figures.style import CHARACTER, FONT, INK, MUTED, RULE, SERIES, shown_name

MAX_NAME = 30
"""Maximum number of characters of the name of a change."""
ROW_HEIGHT, GROUP_GAP = 0.21, 0.5
"""Height of a row in inches; gap between groups in rows."""
WIDTH = 3.4
"""Width of the axes in inches."""
MIN_DISTANCE = 0.3
"""Distance in accuracy below which the labels of the two levels do not fit between them."""


def audit(table: Mapping[str, Any]) -> Figure:
    """Draw one row per change: a dot at its accuracy, a ring at that of its reference, and a line between them.

    Orange: the network uses the cue; gray: it does not. Bars: 95 % intervals of the difference.

    Args:
        table: the content of `audit/*.json`: `rows`, each with `change`, `kind`, `accuracy`, `expected`, `margin`
            and `uses_cue`; and `chance`.

    Returns:
        A figure with one axes, with the names of the changes as tick labels from top to bottom.
    """
    rows = list(table["rows"])
    positions = _row_positions([row["kind"] for row in rows])
    names = [shown_name(row["change"], MAX_NAME) for row in rows]
    left, below, above = 0.2 + CHARACTER * max(map(len, names)), 0.45, 0.3
    width, height = left + WIDTH + 0.15, below + above + ROW_HEIGHT * (positions[-1] + 1)
    figure = Figure(figsize=(width, height), facecolor="none")
    box = (left / width, below / height, WIDTH / width, (height - below - above) / height)
    axes = figure.add_axes(box, facecolor="none")
    for place, row in zip(positions, rows, strict=True):
        _row(axes, place, row)
    _levels(axes, rows[0]["accuracy"], table["chance"])
    axes.set_ylim(positions[-1] + 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_yticks(positions, names)
    axes.tick_params(length=0, pad=5, labelsize=FONT, labelcolor=MUTED)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_xlabel("pretext accuracy (dot), reference (ring)", color=MUTED, fontsize=FONT, labelpad=5)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(RULE)
    return figure


def _row(axes: Axes, place: float, row: Mapping[str, Any]) -> None:
    """Draw one change."""
    color = SERIES[1] if row["uses_cue"] else INK if row["kind"] == "trained" else MUTED
    accuracy, expected, margin = row["accuracy"], row["expected"], row["margin"]
    if row["kind"] != "trained":
        axes.plot([expected, accuracy], [place, place], color=color, linewidth=1.2, solid_capstyle="butt")
        axes.plot(expected, place, "o", color=color, markersize=5, markerfacecolor="none")
        axes.plot([accuracy - margin, accuracy + margin], [place, place], color=color, linewidth=3, alpha=0.35)
    axes.plot(accuracy, place, "o", color=color, markersize=5)


def _levels(axes: Axes, trained: float, chance: float) -> None:
    """Draw dotted lines at the trained accuracy and at chance, with labels that do not overlap."""
    for level, other, name in ((trained, chance, "as trained"), (chance, trained, "chance")):
        axes.axvline(level, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
        separate, right = abs(level - other) > MIN_DISTANCE, level >= other
        axes.text(
            level, 1.0, f"{name} {level:.2f}", fontsize=FONT - 1.5, color=MUTED, va="bottom",
            ha="center" if separate else "left" if right else "right", transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def _row_positions(kinds: list[str]) -> list[float]:
    """Vertical positions of the rows, with a gap between groups; controls are grouped with the added cues."""
    merged = {"control": "planted", "off": "guard", "on": "guard"}
    groups = [merged.get(kind, kind) for kind in kinds]
    breaks = [place > 0 and group != groups[place - 1] for place, group in enumerate(groups)]
    return [place + GROUP_GAP * sum(breaks[: place + 1]) for place in range(len(groups))]
