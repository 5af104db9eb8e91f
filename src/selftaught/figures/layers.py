"""Probe accuracy from the first layer to the last, with random weights, raw pixels and chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from selftaught.figures.style import CHARACTER, FONT, MUTED, End, chart, label_ends, series, shown_name

Probe = Mapping[str, Any]
"""A `probes/*.json`: `chance`, `pixels`, `layers` (each with `layer`, `accuracy`, `std`, `random`), ..."""

LEVEL = 46
"""Characters of layer names, gaps included, that fit level under the axis."""
DASHED = (0, (4, 2))
DOTTED = (0, (1, 2))


@dataclass(frozen=True)
class Line:
    """One line of the figure; NaN where a number is missing."""

    places: Sequence[float]
    heights: Sequence[float]
    stds: Sequence[float]
    color: str
    marker: str
    text: str
    """What is written at its end."""

    def end(self) -> list[End]:
        """The label at the height of the last number, if there is any."""
        known = [height for height in self.heights if math.isfinite(height)]
        return [End(known[-1], self.text, self.color)] if known and self.text else []


def layers(probes: Mapping[str, Probe]) -> Figure:
    """Draw accuracy over layers, for one run or several probed on the same data.

    Trained layers are solid, random weights of the same encoder dashed, both with bars of one standard deviation (over
    probe seeds and over random initializations) where it is known; raw pixels and chance are dotted. One run is labeled
    by what its lines are, several by their names. Runs whose encoders have the same layers share an axis of names;
    others are laid over each other by depth.

    Args:
        probes: the probe of each run, by the run's name; at least one, each with at least one layer.

    Returns:
        A figure with one line of trained accuracies for each run, then the lines of random accuracies: one for each run
        in its colour, or a single grey one where they are the same for all.
    """
    names = [[str(layer["layer"]) for layer in probe["layers"]] for probe in probes.values()]
    shared = all(each == names[0] for each in names)
    places = [list(map(float, range(len(each)))) if shared else depths(len(each)) for each in names]
    trained, randoms, levels = trained_lines(probes, places), random_lines(probes, places), reference_levels(probes)
    ends = [end for line in (*trained, *randoms) for end in line.end()] + levels

    crowded = shared and sum(len(name) + 2 for name in names[0]) > LEVEL
    figure, axes = chart(
        "layer, from first to last" if shared else "depth (0 first layer, 1 last)",
        "top-1 accuracy",
        [end.text for end in ends],
        below=0.7 * CHARACTER * min(max(map(len, names[0])), 14) if crowded else 0.0,
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
        name_ticks(axes, names[0], crowded)
    axes.margins(x=0.04)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    label_ends(axes, ends)
    return figure


def name_ticks(axes: Axes, names: Sequence[str], crowded: bool) -> None:
    """Write the layers' names under the axis, turned where they would touch."""
    axes.set_xticks(range(len(names)), [shown_name(name, 14) for name in names], fontsize=FONT, parse_math=False)
    if crowded:
        axes.tick_params("x", labelrotation=35)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def trained_lines(probes: Mapping[str, Probe], places: Sequence[Sequence[float]]) -> list[Line]:
    """One line for each run."""
    return [
        Line(where, column(probe, "accuracy"), column(probe, "std"), *series(number), text)
        for number, ((name, probe), where) in enumerate(zip(probes.items(), places, strict=True))
        for text in ["trained" if len(probes) == 1 else shown_name(name)]
    ]


def random_lines(probes: Mapping[str, Probe], places: Sequence[Sequence[float]]) -> list[Line]:
    """One line for each run in its colour, or a single labelled grey one where all are the same; none where unknown."""
    lines = [
        Line(where, column(probe, "random"), column(probe, "random_std"), series(number)[0], ".", "")
        for number, (probe, where) in enumerate(zip(probes.values(), places, strict=True))
    ]
    if all(str(line.heights) == str(lines[0].heights) for line in lines):  # as text: NaN is not equal to itself
        lines = [Line(lines[0].places, lines[0].heights, lines[0].stds, MUTED, ".", "random weights")]
    return [line for line in lines if any(map(math.isfinite, line.heights))]


def reference_levels(probes: Mapping[str, Probe]) -> list[End]:
    """Raw pixels and chance, each where all runs agree on it."""
    found = []
    for key, text in (("pixels", "raw pixels"), ("chance", "chance")):
        levels = {level for probe in probes.values() if math.isfinite(level := finite(probe.get(key)))}
        if len(levels) == 1:
            found.append(End(levels.pop(), text, MUTED))
    return found


def draw_stds(axes: Axes, line: Line) -> None:
    """A bar of one standard deviation to either side, where it is known."""
    for place, height, std in zip(line.places, line.heights, line.stds, strict=True):
        if math.isfinite(height) and math.isfinite(std):
            axes.vlines(place, height - std, height + std, color=line.color, linewidth=1.2)


def column(probe: Probe, key: str) -> list[float]:
    """One number of every layer, NaN where it is missing."""
    return [finite(layer.get(key)) for layer in probe["layers"]]


def finite(value: object) -> float:
    """A finite number as it is, anything else NaN."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def depths(count: int) -> list[float]:
    """`count` places from 0 to 1; a single layer is the last."""
    return [place / (count - 1) for place in range(count)] if count > 1 else [1.0]
