"""Probe accuracy over a quantity in which runs differ, such as the number of images: one chart per layer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from selftaught.figures.layers import AXIS_LABELS, DASHED, DOTTED, Line, Probe, column, draw_stds, finite, metric_of
from selftaught.figures.style import CHARACTER, FONT, INK, MUTED, End, label_ends, plain, series, shown_name

LEVEL_STYLES = (DOTTED, (0, (6, 2, 1, 2)), (0, (6, 2, 1, 2, 1, 2)))
"""Dash patterns of the levels, in turn."""
PANEL, HEIGHT = 1.9, 2.2
"""Inches: smallest width of a chart, and its height."""
GAP = 0.18  # inches between charts


def trends(
    probes: Mapping[str, Probe],
    lines: Mapping[str, Sequence[str]],
    ticks: Sequence[str],
    axis: str,
    levels: Sequence[str] = (),
) -> Figure:
    """Draw accuracy or mAP over a quantity, one chart for each layer, all with the same vertical axis.

    Solid: trained, with bars of one standard deviation if available; dashed: random weights, a gray line for those of
    several lines, in the color of the line for its own. Runs without the layer of a chart are omitted from it. Levels
    are horizontal lines in every chart: at their value at that layer or, if they have no such layer, at their best one.

    Args:
        probes: the probe of each run, by the run's name, see `layers`; a run without one leaves a gap.
        lines: the runs of each line from left to right, by the line's name; at least one has a probe.
        ticks: the values of the quantity, one for each run of a line; they are drawn at equal distances.
        axis: name of the quantity.
        levels: names of runs.

    Returns:
        A figure with one axes per layer; in each, the first lines are those of `lines` in this order.
    """
    runs = [name for line in lines.values() for name in line if name in probes]
    names = list(dict.fromkeys(layer for name in runs for layer in _layers(probes[name])))
    metric = metric_of(probes[runs[0]])
    drawn = {layer: _drawn(probes, lines, metric, layer) for layer in names}
    heights = {layer: [_level(probes.get(level), metric, layer) for level in levels] for layer in names}
    ends = [end for line in drawn[names[-1]] for end in line.end()]
    ends += [
        End(height, shown_name(level), MUTED)
        for level, height in zip(levels, heights[names[-1]], strict=True)
        if math.isfinite(height)
    ]
    label = AXIS_LABELS.get(metric, metric)
    wide = max(PANEL, CHARACTER * sum(len(tick) + 2 for tick in ticks))
    left, below, above = 0.45, 0.5, 0.5
    right = 0.15 + CHARACTER * max((len(end.text) for end in ends), default=0)
    width, height = left + len(names) * (wide + GAP) - GAP + right, below + HEIGHT + above
    figure = Figure(figsize=(width, height), facecolor="none")
    figure.text(0.1 / width, 1 - 0.06 / height, label, fontsize=FONT, color=INK, va="top")
    shared: Axes | None = None
    for number, layer in enumerate(names):
        box = ((left + number * (wide + GAP)) / width, below / height, wide / width, HEIGHT / height)
        axes = figure.add_axes(box, facecolor="none", sharey=shared)
        plain(axes)
        _draw(axes, drawn[layer], heights[layer])
        axes.set_title(shown_name(layer), fontsize=FONT, color=MUTED, pad=6, parse_math=False)
        axes.set_xticks(range(len(ticks)), ticks, fontsize=FONT, parse_math=False)
        axes.tick_params(labelleft=number == 0)
        shared = shared or axes
    figure.axes[len(names) // 2].set_xlabel(axis, color=MUTED, fontsize=FONT, labelpad=5, parse_math=False)
    label_ends(figure.axes[-1], ends)
    return figure


def _layers(probe: Probe) -> tuple[str, ...]:
    return tuple(str(row["layer"]) for row in probe["layers"])


def _value(probe: Probe | None, key: str, layer: str) -> float:
    """One number of a layer; NaN if there is none."""
    rows = [] if probe is None else probe["layers"]
    return next((finite(row.get(key)) for row in rows if row["layer"] == layer), math.nan)


def _level(probe: Probe | None, metric: str, layer: str) -> float:
    """The accuracy of a run at a layer, or that of its best layer if it has no such layer."""
    if probe is None or layer in _layers(probe):
        return _value(probe, metric, layer)
    return max(column(probe, metric))


def _drawn(probes: Mapping[str, Probe], lines: Mapping[str, Sequence[str]], metric: str, layer: str) -> list[Line]:
    """The lines of a chart: trained ones, then those of random weights."""
    trained: list[Line] = []
    same: dict[str, list[Line]] = {}  # lines of random weights by their heights, as text: NaN is not equal to itself
    for number, (name, runs) in enumerate(lines.items()):
        each = [probes.get(run) for run in runs]
        places, (color, marker) = range(len(each)), series(number)
        heights, stds, random = ([_value(probe, key, layer) for probe in each] for key in (metric, "std", "random"))
        trained.append(Line(places, heights, stds, color, marker, shown_name(name)))
        same.setdefault(str(random), []).append(Line(places, random, [math.nan] * len(each), color, "", ""))
    randoms = [
        replace(group[0], color=MUTED, text="random weights") if len(group) > 1 or len(same) == 1 else group[0]
        for group in same.values()
    ]
    return [*trained, *(line for line in randoms if any(map(math.isfinite, line.heights)))]


def _draw(axes: Axes, lines: Sequence[Line], levels: Sequence[float]) -> None:
    for line in lines:
        style = {"linewidth": 1.8, "markersize": 5} if line.marker else {"linewidth": 1.2, "linestyle": DASHED}
        axes.plot(line.places, line.heights, color=line.color, marker=line.marker, **style)
        draw_stds(axes, line)
    for number, level in enumerate(levels):
        axes.axhline(level, color=MUTED, linewidth=1, linestyle=LEVEL_STYLES[number % len(LEVEL_STYLES)])
    axes.margins(x=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(5))
