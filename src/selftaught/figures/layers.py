"""Probe accuracy by layer, compared with random weights, raw pixels and chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from selftaught.figures.style import CHARACTER, FONT, MUTED, End, chart, label_ends, series, shown_name

Probe = Mapping[str, Any]
"""Content of a `probes/*.json`: `metric` ("accuracy" or "map"), `chance`, `pixels`, `layers` (each with `layer`, the
metric, `std`, `random`), ..."""
EMBEDDING = "embedding"
"""Layer of a probe that includes the output of a projection head; it follows the layers of the encoder."""
AXIS_LABELS = {"accuracy": "top-1 accuracy", "map": "mAP"}

MAX_HORIZONTAL = 46
"""Total characters of layer names, including gaps, that fit horizontally under the axis."""
DASHED = (0, (4, 2))
DOTTED = (0, (1, 2))


@dataclass(frozen=True)
class Line:
    """One line of the figure; missing numbers are NaN."""

    places: Sequence[float]
    heights: Sequence[float]
    stds: Sequence[float]
    color: str
    marker: str
    text: str
    """Label at its right end."""

    def end(self) -> list[End]:
        """The label at the height of the last finite number; none if there is no such number."""
        finite_heights = [height for height in self.heights if math.isfinite(height)]
        return [End(finite_heights[-1], self.text, self.color)] if finite_heights and self.text else []


def layers(probes: Mapping[str, Probe], single: str = "trained") -> Figure:
    """Draw accuracy or mAP over layers, for one run or several probed on the same data.

    Solid lines: trained; dashed: random weights of the same encoder; both with bars of one standard deviation (over
    probe seeds and over random initializations) if available. Dotted: raw pixels and chance. Lines of a single run are
    labeled `single` and "random weights", those of several runs by name. If all encoders have the same layers, with or
    without an embedding after the last, the horizontal axis shows their names, otherwise the relative depth.

    Args:
        probes: the probe of each run, by the run's name; at least one, each with at least one layer.
        single: label of the line of a single run.

    Returns:
        A figure with one line of trained accuracies for each run, then the lines of random accuracies: one for each run
        in its color, or a single gray one if they are the same for all.
    """
    names = [[str(layer["layer"]) for layer in probe["layers"]] for probe in probes.values()]
    longest = max(names, key=len)
    shared = all(each in (longest, longest[:-1] if longest[-1] == EMBEDDING else longest) for each in names)
    places = [list(map(float, range(len(each)))) if shared else depths(len(each)) for each in names]
    trained, randoms, levels = (
        trained_lines(probes, places, single),
        random_lines(probes, places),
        reference_levels(probes),
    )
    ends = [end for line in (*trained, *randoms) for end in line.end()] + levels

    crowded = shared and sum(len(name) + 2 for name in longest) > MAX_HORIZONTAL
    figure, axes = chart(
        "layer, from first to last" if shared else "depth (0 first layer, 1 last)",
        AXIS_LABELS[metric_of(next(iter(probes.values())))],
        [end.text for end in ends],
        below=0.7 * CHARACTER * min(max(map(len, longest)), 14) if crowded else 0.0,
    )
    for line in trained:
        axes.plot(line.places, line.heights, color=line.color, linewidth=1.8, marker=line.marker, markersize=5)
        draw_stds(axes, line)
    for line in randoms:
        axes.plot(line.places, line.heights, color=line.color, linewidth=1.2, linestyle=DASHED, marker=".")
        draw_stds(axes, line)
    for level in levels:
        axes.axhline(level.height, color=MUTED, linewidth=1, linestyle=DOTTED)
    if shared:
        name_ticks(axes, longest, crowded)
    axes.margins(x=0.04)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    label_ends(axes, ends)
    return figure


def name_ticks(axes: Axes, names: Sequence[str], crowded: bool) -> None:
    """Write layer names under the axis, rotated if they would overlap."""
    axes.set_xticks(range(len(names)), [shown_name(name, 14) for name in names], fontsize=FONT, parse_math=False)
    if crowded:
        axes.tick_params("x", labelrotation=35)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def trained_lines(probes: Mapping[str, Probe], places: Sequence[Sequence[float]], single: str) -> list[Line]:
    """One line for each run."""
    return [
        Line(where, column(probe, metric_of(probe)), column(probe, "std"), *series(number), text)
        for number, ((name, probe), where) in enumerate(zip(probes.items(), places, strict=True))
        for text in [single if len(probes) == 1 else shown_name(name)]
    ]


def random_lines(probes: Mapping[str, Probe], places: Sequence[Sequence[float]]) -> list[Line]:
    """One line per run in its color, or a single labeled gray line if all are the same; none if not available."""
    lines = [
        Line(where, column(probe, "random"), column(probe, "random_std"), series(number)[0], ".", "")
        for number, (probe, where) in enumerate(zip(probes.values(), places, strict=True))
    ]
    if all(str(line.heights) == str(lines[0].heights) for line in lines):  # as text: NaN is not equal to itself
        lines = [Line(lines[0].places, lines[0].heights, lines[0].stds, MUTED, ".", "random weights")]
    return [line for line in lines if any(map(math.isfinite, line.heights))]


def reference_levels(probes: Mapping[str, Probe]) -> list[End]:
    """Levels of raw pixels and chance, each if it is the same for all runs."""
    ends = []
    for key, text in (("pixels", "raw pixels"), ("chance", "chance")):
        levels = {level for probe in probes.values() if math.isfinite(level := finite(probe.get(key)))}
        if len(levels) == 1:
            ends.append(End(levels.pop(), text, MUTED))
    return ends


def draw_stds(axes: Axes, line: Line) -> None:
    """Draw bars of ± one standard deviation where available."""
    for place, height, std in zip(line.places, line.heights, line.stds, strict=True):
        if math.isfinite(height) and math.isfinite(std):
            axes.vlines(place, height - std, height + std, color=line.color, linewidth=1.2)


def metric_of(probe: Probe) -> str:
    """The key of the metric in the layers of a probe."""
    return str(probe.get("metric") or "accuracy")


def column(probe: Probe, key: str) -> list[float]:
    """One number of every layer; NaN if missing."""
    return [finite(layer.get(key)) for layer in probe["layers"]]


def finite(value: object) -> float:
    """Return a finite number unchanged, and NaN for anything else."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def depths(count: int) -> list[float]:
    """Relative depths of `count` layers, from 0 to 1; 1 for a single layer."""
    return [place / (count - 1) for place in range(count)] if count > 1 else [1.0]
