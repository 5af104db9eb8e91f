"""One calm look for every chart: colours, axes, labels at the ends of lines, and the way to SVG.

Only matplotlib's object-oriented interface is used: no pyplot, no backend, no `rcParams` left changed. Colours are
fixed in hexadecimal, so that a page can exchange them for its dark mode (see `DARK`). Names of runs are written as they
are: a dollar sign starts no mathematics.
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
"""Baselines, axis names: what the eye should find second."""
RULE = "#e1e5ea"
"""Grid and frame."""
SERIES = ("#0072b2", "#c94a00", "#007a5a", "#7d0a6b", "#711608", "#2821a0")
"""One colour per run: blue, orange, green, plum, brown, indigo. Searched so that text in each reads well on the page
and that any two differ clearly with normal sight, protanopia and deuteranopia; the tests measure both."""
MARKERS = ("o", "s", "D", "^", "v", "P")
"""One marker per run: colour is never the only difference."""
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
"""What each colour becomes on a dark page."""

FONT = 9.0  # points
CHARACTER = 0.078  # inches: the mean width of a character at FONT, on the generous side
LONGEST = 22  # characters of a name that are shown


@dataclass(frozen=True)
class End:
    """What is written at the right end of a line."""

    height: float
    """Where, in the units of the vertical axis."""
    text: str
    color: str


def series(number: int) -> tuple[str, str]:
    """Colour and marker of run `number`; past six runs colours return with other markers."""
    lap = number // len(SERIES)
    return SERIES[number % len(SERIES)], MARKERS[(number + lap) % len(MARKERS)]


def shown_name(name: str, longest: int = LONGEST) -> str:
    """A name as a chart can carry it: printable, at most `longest` characters, both ends kept as either may tell."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in name)
    half = longest // 2
    return printable if len(printable) <= longest else f"{printable[: longest - half - 1]}…{printable[-half:]}"


def chart(across: str, up: str, ends: Sequence[str] = (), below: float = 0.0) -> tuple[Figure, Axes]:
    """An empty chart, 4.9 x 2.9 inches: two fit side by side on a page, one on a telephone.

    Args:
        across: what the horizontal axis shows, with its unit.
        up: what the vertical axis shows, with its unit.
        ends: texts that will stand to the right of the axes, which make room for them.
        below: further inches under the axes, for long names of ticks.
    """
    width, height = 4.9, 2.9 + below
    right = 0.15 + max((len(text) for text in ends), default=0) * CHARACTER
    figure = Figure(figsize=(width, height), facecolor="none")
    box = (0.56, 0.48 + below, width - 0.56 - right, height - 0.48 - below - 0.28)  # left, bottom, width, height
    axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height), facecolor="none")
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(RULE)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5, labelsize=FONT, labelcolor=MUTED)
    axes.set_xlabel(across, color=MUTED, fontsize=FONT, labelpad=5, parse_math=False)
    # Above the axis and level: no head need be turned to read it.
    axes.set_ylabel(up, color=INK, fontsize=FONT, rotation=0, ha="left", va="bottom", parse_math=False)
    axes.yaxis.set_label_coords(-0.45 / box[2], 1.05)
    return figure, axes


def spaced(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending heights as little as possible (in squares) so that neighbours are at least `gap` apart.

    Substituting h_i - i * gap turns it into isotonic regression, solved by pooling adjacent violators.
    """
    pools: list[tuple[float, int]] = []  # mean and size
    for number, height in enumerate(heights):
        mean, size = height - number * gap, 1
        while pools and pools[-1][0] > mean:
            before, many = pools.pop()
            mean, size = (before * many + mean * size) / (many + size), many + size
        pools.append((mean, size))
    level = [mean for mean, size in pools for _ in range(size)]
    return [height + number * gap for number, height in enumerate(level)]


def label_ends(axes: Axes, ends: Sequence[End]) -> None:
    """Write each text to the right of the axes at its height, moved apart where they would touch. Set limits first."""
    low, high = axes.get_ylim()
    gap = 1.25 * FONT / 72 / (axes.bbox.height / axes.figure.dpi)  # inches of a line over inches of the axes
    ordered = sorted(ends, key=lambda end: end.height)
    places = spaced([(end.height - low) / (high - low) for end in ordered], gap)
    for end, place in zip(ordered, places, strict=True):
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
    """The figure as one `<svg>` element: text stays text, no date, no names, nothing fetched from anywhere.

    Args:
        figure: any figure.
        salt: makes the identifiers inside unique; needed where several stand on one page. Same salt, same text.
    """
    written = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(written, format="svg", metadata={"Date": None})
    text = written.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    return text.replace("<svg ", '<svg font-family="system-ui, sans-serif" ', 1)
