from itertools import pairwise
from typing import Any

import pytest

from selftaught.figures import audit, svg
from selftaught.figures.style import MUTED, SERIES


def found() -> dict[str, Any]:
    def row(change: str, kind: str, accuracy: float, expected: float, uses_cue: bool = False) -> dict[str, Any]:
        return {
            "change": change, "kind": kind, "accuracy": accuracy, "expected": expected, "margin": 0.02,
            "uses_cue": uses_cue,
        }  # fmt: skip

    rows = [
        row("as trained", "trained", 0.8, 0.8),
        row("grayscale", "removed", 0.78, 0.8),
        row("chromatic aberration", "planted", 0.4, 0.7, True),
        row("color channels shifted", "control", 0.7, 0.8),
        row("tiles $touch$", "off", 0.9, 0.8, True),
    ]
    return {"rows": rows, "chance": 0.25}


def test_every_change_has_a_row_and_kinds_are_separated() -> None:
    (axes,) = audit(found()).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [row["change"] for row in found()["rows"]]
    places = list(axes.get_yticks())
    assert places == sorted(places)
    assert axes.yaxis_inverted()
    steps = [after - before for before, after in pairwise(places)]
    assert steps == [1.5, 1.5, 1, 1.5]


def test_dots_mark_accuracies_and_rings_mark_references() -> None:
    (axes,) = audit(found()).axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    filled = [float(dot.get_xdata()[0]) for dot in dots if dot.get_markerfacecolor() != "none"]
    rings = [float(dot.get_xdata()[0]) for dot in dots if dot.get_markerfacecolor() == "none"]
    assert filled == [0.8, 0.78, 0.4, 0.7, 0.9]
    assert rings == [0.8, 0.7, 0.8, 0.8]


def test_only_used_cues_have_the_warning_color() -> None:
    (axes,) = audit(found()).axes
    dots = [line for line in axes.lines if line.get_marker() == "o" and line.get_markerfacecolor() != "none"]
    assert [dot.get_color() == SERIES[1] for dot in dots] == [False, False, True, False, True]


def test_levels_are_labeled_and_names_are_not_parsed_as_math() -> None:
    text = svg(audit(found()))
    for words in ("as trained 0.80", "chance 0.25", "tiles $touch$"):
        assert words in text
    assert MUTED in text


@pytest.mark.parametrize("chance", [0.78, 0.6, 0.04])
def test_level_labels_do_not_overlap(chance: float) -> None:
    figure = audit({**found(), "chance": chance})
    figure.canvas.draw()
    trained, guessed = (text.get_window_extent() for text in figure.axes[0].texts)
    assert guessed.x1 < trained.x0
