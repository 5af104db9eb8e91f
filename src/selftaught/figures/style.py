"""Shared style of all charts: colors, axes, labels at the ends of lines, and SVG export.

Only matplotlib's object-oriented interface is used: no pyplot, no backend, and `rcParams` are not changed. Colors
are fixed in hexadecimal, so that a page can replace them in its dark mode (see `DARK`). Names of runs are drawn
literally: dollar signs do not start math text.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#24292f"
"""Text."""
MUTED = "#66707b"
"""Baselines and axis labels, less prominent than the data."""
RULE = "#e1e5ea"
"""Grid and frame."""
SERIES = ("#0072b2", "#c94a00", "#007a5a", "#7d0a6b", "#711608", "#2821a0")
"""One color per run: blue, orange, green, plum, brown, indigo.

Chosen by a search so that text in each color has enough contrast and any two are distinguishable with normal vision,
protanopia and deuteranopia; the tests measure both.
"""
MARKERS = ("o", "s", "D", "^", "v", "P")
"""One marker per run, so that color is never the only difference."""
DARK = {
    INK: "#e6e9ed",
    MUTED: "#9aa4af",
    RULE: "#333a42",
    SERIES[0]: "#5bb3f0",
    SERIES[1]: "#ff9a5a",
    SERIES[2]: "#1fa58a",
    SERIES[3]: "#f7c6e6",
    SERIES[4]: "#d9edaa",
    SERIES[5]: "#8b6cff",
}
"""Color -> color in dark mode."""

FONT = 9.0  # points
CHARACTER = 0.078  # inches: mean width of a character at FONT, rounded up
MAX_NAME = 22  # maximum number of characters of a name


@dataclass(frozen=True)
class End:
    """Label at the right end of a line."""

    height: float
    """Position in units of the vertical axis."""
    text: str
    color: str


def series(number: int) -> tuple[str, str]:
    """Color and marker of run `number`; after six runs, colors repeat with other markers."""
    lap = number // len(SERIES)
    return SERIES[number % len(SERIES)], MARKERS[(number + lap) % len(MARKERS)]


def shown_name(name: str, longest: int = MAX_NAME) -> str:
    """Shorten a name to `longest` printable characters, keeping both ends, as either may distinguish it."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in name)
    half = longest // 2
    return printable if len(printable) <= longest else f"{printable[: longest - half - 1]}…{printable[-half:]}"


def chart(x_label: str, y_label: str, ends: Sequence[str] = (), below: float = 0.0) -> tuple[Figure, Axes]:
    """An empty chart of 4.9 x 2.9 inches: two fit side by side on a page, one on a phone.

    Args:
        x_label: label of the horizontal axis, with its unit.
        y_label: label of the vertical axis, with its unit.
        ends: labels to the right of the axes, for which space is reserved.
        below: additional inches below the axes, for long tick labels.
    """
    width, height = 4.9, 2.9 + below
    right = 0.15 + max((len(text) for text in ends), default=0) * CHARACTER
    figure = Figure(figsize=(width, height), facecolor="none")
    box = (0.56, 0.48 + below, width - 0.56 - right, height - 0.48 - below - 0.28)  # left, bottom, width, height
    axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height), facecolor="none")
    plain(axes)
    axes.set_xlabel(x_label, color=MUTED, fontsize=FONT, labelpad=5, parse_math=False)
    # Horizontal and above the axis, which is easier to read than rotated text.
    axes.set_ylabel(y_label, color=INK, fontsize=FONT, rotation=0, ha="left", va="bottom", parse_math=False)
    axes.yaxis.set_label_coords(-0.45 / box[2], 1.05)
    return figure, axes


def plain(axes: Axes) -> None:
    """Horizontal grid lines and the lower edge only, muted tick labels without ticks."""
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(RULE)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5, labelsize=FONT, labelcolor=MUTED)


def spaced(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending heights so that neighbors are at least `gap` apart, minimizing the squared displacement.

    Substituting h_i - i * gap makes this an isotonic regression, solved by pooling adjacent violators.
    """
    pools: list[tuple[float, int]] = []  # mean and size
    for number, height in enumerate(heights):
        mean, size = height - number * gap, 1
        while pools and pools[-1][0] > mean:
            previous_mean, previous_size = pools.pop()
            mean, size = (previous_mean * previous_size + mean * size) / (previous_size + size), previous_size + size
        pools.append((mean, size))
    level = [mean for mean, size in pools for _ in range(size)]
    return [height + number * gap for number, height in enumerate(level)]


def label_ends(axes: Axes, ends: Sequence[End]) -> None:
    """Draw labels to the right of the axes, moved apart where they would overlap. Set the axis limits first."""
    low, high = axes.get_ylim()
    gap = 1.25 * FONT / 72 / (axes.bbox.height / axes.figure.dpi)  # inches of a line over inches of the axes
    ordered = sorted(ends, key=lambda end: end.height)
    positions = spaced([(end.height - low) / (high - low) for end in ordered], gap)
    for end, place in zip(ordered, positions, strict=True):
        axes.text(
            1.02,
            place,
            end.text,
            color=end.color,
            fontsize=FONT,
            va="center",
            transform=axes.transAxes,
            parse_math=False,
        )


def svg(figure: Figure, salt: str = "selftaught") -> str:
    """Export a figure as one `<svg>` element, with text as text, without metadata and external references.

    Args:
        figure: any figure.
        salt: makes the element identifiers unique, as needed for several figures on one page. Output depends only on
            the figure and the salt.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    return text.replace("<svg ", '<svg font-family="system-ui, sans-serif" ', 1)
