import math
from typing import Any

import pytest
from matplotlib.axes import Axes

from selftaught.figures import svg, trends
from selftaught.figures.style import MUTED, SERIES

LINES = {"rotation": ["rotation 1", "rotation all"], "bigan": ["bigan 1", "bigan all"]}


def probe(accuracies: dict[str, float], random: float | None = 0.5, std: float | None = None) -> dict[str, Any]:
    rows = [{"layer": name, "accuracy": value, "std": std, "random": random} for name, value in accuracies.items()]
    return {"layers": rows, "chance": 0.1, "pixels": 0.4}


PROBES = {
    "rotation 1": probe({"layer1": 0.6, "layer2": 0.62}, std=0.01),
    "rotation all": probe({"layer1": 0.61, "layer2": 0.7}),
    "bigan 1": probe({"layer1": 0.55, "layer2": 0.52}),
    "bigan all": probe({"layer1": 0.56, "layer2": 0.58}),
    "supervised": probe({"layer1": 0.63, "layer2": 0.75}),
    "scattering": probe({"order1": 0.6, "order2": 0.64}, random=None),
}


def heights(axes: Axes) -> list[list[float]]:
    return [list(map(float, line.get_ydata())) for line in axes.lines]  # type: ignore[arg-type]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_each_layer_has_a_chart_with_a_line_per_name() -> None:
    first, second = trends(PROBES, LINES, ["1", "all"], "images").axes
    assert [axes.get_title() for axes in (first, second)] == ["layer1", "layer2"]
    assert heights(first) == [[0.6, 0.61], [0.55, 0.56], [0.5, 0.5]]
    assert heights(second) == [[0.62, 0.7], [0.52, 0.58], [0.5, 0.5]]
    assert [line.get_color() for line in second.lines] == [*SERIES[:2], MUTED]
    assert first.get_ylim() == second.get_ylim()
    assert [label.get_text() for label in second.get_xticklabels()] == ["1", "all"]


def test_only_the_last_chart_names_its_lines() -> None:
    first, second = trends(PROBES, LINES, ["1", "all"], "images", ["supervised"]).axes
    assert texts(first) == []
    assert sorted(texts(second)) == ["bigan", "random weights", "rotation", "supervised"]


def test_a_level_is_at_its_layer_or_at_its_best_one() -> None:
    first, second = trends(PROBES, LINES, ["1", "all"], "images", ["supervised", "scattering"]).axes
    assert heights(first)[-2:] == [[0.63, 0.63], [0.64, 0.64]]
    assert heights(second)[-2:] == [[0.75, 0.75], [0.64, 0.64]]


def test_random_weights_of_one_line_have_its_color() -> None:
    own = {**PROBES, "bigan 1": probe({"layer1": 0.55, "layer2": 0.52}, random=0.45)}
    first = trends(own, LINES, ["1", "all"], "images").axes[0]
    assert heights(first)[2:] == [[0.5, 0.5], [0.45, 0.5]]
    assert [line.get_color() for line in first.lines[2:]] == list(SERIES[:2])
    more = {**LINES, "again": LINES["rotation"]}
    first = trends(own, more, ["1", "all"], "images").axes[0]
    assert heights(first)[3:] == [[0.5, 0.5], [0.45, 0.5]]
    assert [line.get_color() for line in first.lines[3:]] == [MUTED, SERIES[1]]


@pytest.mark.parametrize("missing", ["rotation 1", "supervised"])
def test_a_run_without_a_probe_leaves_a_gap(missing: str) -> None:
    rest = {name: each for name, each in PROBES.items() if name != missing}
    first = trends(rest, LINES, ["1", "all"], "images", ["supervised"]).axes[0]
    assert math.isnan(heights(first)[0][0]) is (missing == "rotation 1")
    assert heights(first)[0][1] == 0.61
    assert ("supervised" in texts(trends(rest, LINES, ["1", "all"], "images", ["supervised"]).axes[1])) is (
        missing == "rotation 1"
    )


def test_text_is_drawn_literally_and_output_is_reproducible() -> None:
    odd = {"$x^2$ & <b>": ["rotation 1", "rotation all"]}
    drawn = [svg(trends(PROBES, odd, ["$1$", "all"], "images $n$")) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert "$x^2$ &amp; &lt;b&gt;" in drawn[0]
    assert "$1$" in drawn[0]
