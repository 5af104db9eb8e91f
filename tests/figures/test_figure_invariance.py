from typing import Any

import numpy as np
import pytest

from selftaught.figures import invariance, svg
from selftaught.figures.style import MUTED, SERIES


def found(layers: int = 2) -> dict[str, Any]:
    rows = [
        {"layer": f"layer{n}", "change": change, "nearer": 0.1 * n, "random": 0.4, "own": own, "others": [0, 0, 30, 10]}
        for n in range(layers)
        for change, own in (("rotation", [4, 4, 0, 0]), ("crop", [0, 2, 6, 0]))
    ]
    return {"rows": rows}


def test_every_layer_and_transformation_has_a_chart_in_order() -> None:
    figure = invariance(found())
    assert [axes.get_title() for axes in figure.axes] == ["rotation", "crop", "", ""]
    assert [axes.get_ylabel() for axes in figure.axes] == ["layer0", "", "layer1", ""]
    assert figure.axes[2].texts[0].get_text() == "0.10 (0.40)"
    corners = [axes.get_position() for axes in figure.axes]
    assert corners[0].x1 <= corners[1].x0
    assert corners[2].y1 <= corners[0].y0


def test_histograms_show_fractions_over_one_axis() -> None:
    own, others = invariance(found()).axes[1].patches
    np.testing.assert_allclose(own.get_data().values, [0, 0.25, 0.75, 0])
    np.testing.assert_allclose(others.get_data().values, [0, 0, 0.75, 0.25])
    np.testing.assert_allclose(own.get_data().edges, [0, 0.5, 1, 1.5, 2])
    assert own.get_fill()
    assert not others.get_fill()


def test_charts_share_an_axis_up_to_the_largest_distance() -> None:
    short = found()
    for row in short["rows"]:
        row["others"] = [0, 5, 5, 0]
    assert all(axes.get_xlim() == pytest.approx((0, 1.5)) for axes in invariance(short).axes)


def test_charts_support_dark_mode_and_names_are_not_parsed_as_math() -> None:
    rows = found(1)
    for row in rows["rows"]:
        row["layer"] = "$x$"
    text = svg(invariance(rows))
    assert "$x$" in text
    assert SERIES[0] in text
    assert MUTED in text
