"""Figure of the invariance analysis: histograms of distances to own copies and to other images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from selftaught.figures.style import CHARACTER, FONT, INK, MUTED, RULE, SERIES, shown_name

SMALL = FONT - 1.5
"""Font size inside a small chart, in points."""


def invariance(table: Mapping[str, Any]) -> Figure:
    """Draw one small chart per layer (row) and transformation (column).

    Filled: distances between images and their transformed copies. Outlined: distances between different images. If the
    filled histogram is left of the outlined one, the layer is invariant to the transformation. The number is the
    fraction of other images closer than the copy, with that of random weights in parentheses.

    Args:
        table: the content of `invariance/*.json`: `rows`, each with `layer`, `change`, `nearer`, `random`,
            `own` and `others`.

    Returns:
        A figure whose axes are in reading order.
    """
    rows = {(row["layer"], row["change"]): row for row in table["rows"]}
    layers = list(dict.fromkeys(layer for layer, _ in rows))
    changes = list(dict.fromkeys(change for _, change in rows))
    left, wide, high = 0.25 + CHARACTER * max(len(shown_name(layer, 14)) for layer in layers), 1.45, 0.85
    width, height = left + wide * len(changes) + 0.1, 0.5 + high * len(layers) + 0.3
    figure = Figure(figsize=(width, height), facecolor="none")
    last = _last([row[of] for row in rows.values() for of in ("own", "others")])
    for down, layer in enumerate(layers):
        for across, change in enumerate(changes):
            corner = left + across * wide, height - 0.3 - (down + 1) * high
            box = (corner[0] / width, corner[1] / height, (wide - 0.12) / width, (high - 0.14) / height)
            axes = figure.add_axes(box, facecolor="none")
            _histograms(axes, rows[layer, change], last, named=down == len(layers) - 1)
            if down == 0:
                axes.set_title(change, fontsize=FONT, color=INK, pad=4, parse_math=False)
            if across == 0:
                axes.set_ylabel(shown_name(layer, 14), rotation=0, ha="right", va="center", fontsize=FONT, color=INK)
                axes.yaxis.label.set_parse_math(False)
    figure.text(
        left / width,
        0.03 / height,
        "distance between unit features: own copy (filled), other images (outline); fraction closer (random weights)",
        fontsize=SMALL,
        color=MUTED,
        va="bottom",
    )
    return figure


def _histograms(axes: Axes, row: Mapping[str, Any], last: int, named: bool) -> None:
    """Draw one small chart, over distances from 0 to the last bin that is used in any chart."""
    bins = len(row["own"])
    edges = np.linspace(0, 2, bins + 1)[: last + 1]
    axes.stairs(_normalized(row["own"])[:last], edges, fill=True, color=SERIES[0], alpha=0.75)
    axes.stairs(_normalized(row["others"])[:last], edges, color=MUTED, linewidth=1.2)
    axes.text(
        0.98, 0.95, f"{row['nearer']:.2f} ({row['random']:.2f})",
        fontsize=SMALL, color=INK, ha="right", va="top", transform=axes.transAxes,
    )  # fmt: skip
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(RULE)
    axes.set_yticks([])
    axes.set_ylim(0, 1.35 * axes.dataLim.ymax)  # room for the number
    axes.set_xlim(0, edges[-1])
    axes.tick_params(length=0, pad=2, labelsize=SMALL, labelcolor=MUTED, labelbottom=named)


def _normalized(counts: Sequence[int]) -> np.ndarray:
    """Normalize counts to sum to one, since there are many more pairs of images than copies."""
    values = np.asarray(counts, dtype=float)
    normalized: np.ndarray = values / max(values.sum(), 1)
    return normalized


def _last(histograms: Sequence[Sequence[int]]) -> int:
    """Number of bins up to the last one that is used in any of the histograms."""
    used = np.flatnonzero(np.asarray(histograms).sum(0))
    return int(used[-1]) + 1 if len(used) else 1
