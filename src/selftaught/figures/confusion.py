"""Confusion matrix, normalized by row."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from selftaught.figures.style import CHARACTER, FONT, INK, MUTED, RULE, SERIES, shown_name

MAX_NAME = 16
"""Maximum number of characters of a class name."""
MAX_NUMBERED = 15
"""Maximum number of classes for which the percentages are written into the cells."""
OPACITY = 0.5
"""Opacity of a cell of 100 %: text over it has enough contrast in light and dark mode."""


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Draw the percentage of the images of each class that is predicted as each class.

    Rows are true classes, from top to bottom; columns are predicted classes, from left to right. Blue: classified
    correctly; orange: confused; the more opaque, the higher the percentage.

    Args:
        counts: (k, k) numbers of test images by true class (row) and predicted class (column). A row without images is
            empty.
        classes: the names of the k classes.

    Returns:
        A figure with one axes and one rectangle for each pair of classes that occurs.
    """
    fractions, count = normalized(counts), len(classes)
    names = [shown_name(name, MAX_NAME) for name in classes]
    side = 0.36 if count <= MAX_NUMBERED else 0.22
    labels, extent = 0.15 + CHARACTER * max(map(len, names)), side * count
    left = below = labels + 0.3
    width, height = left + max(extent, 1.2) + 0.1, below + max(extent, 0.8) + 0.1  # room for the axis labels
    figure = Figure(figsize=(width, height), facecolor="none")
    axes = figure.add_axes(
        (left / width, 1 - (extent + 0.1) / height, extent / width, extent / height), facecolor="none"
    )
    for row, column in np.argwhere(fractions > 0).tolist():
        value, color = float(fractions[row, column]), SERIES[0] if row == column else SERIES[1]
        cell = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, alpha=OPACITY * value, linewidth=0)
        axes.add_patch(cell)
        if count <= MAX_NUMBERED and value >= 0.005:
            axes.text(column, row, f"{100 * value:.0f}", fontsize=FONT, color=INK, ha="center", va="center")
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xticks(range(count), names, rotation=90, parse_math=False)
    axes.set_yticks(range(count), names, parse_math=False)
    axes.tick_params(length=0, pad=5, labelsize=FONT, labelcolor=INK)
    axes.set_xlabel("predicted class", color=MUTED, fontsize=FONT)
    axes.set_ylabel("true class", color=MUTED, fontsize=FONT)
    for spine in axes.spines.values():
        spine.set_color(RULE)
    return figure


def normalized(counts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """(k, k): each row divided by its sum; a row without images stays 0."""
    values = np.asarray(counts, dtype=np.float64)
    return values / np.maximum(values.sum(1, keepdims=True), 1)
