"""The curve of accuracy by number of labels."""

import pytest

from selftaught.figures import label_curve, svg
from selftaught.figures.labels import _tick_labels


def result(**rows):
    """Rows by name: (images, accuracy, low, high) for each number of labels."""
    counts = zip(*rows.values(), strict=True)
    return {
        "chance": 0.1,
        "results": [
            {
                "name": f"{each[0][0]} images",
                "images": each[0][0],
                "rows": [
                    {"name": name, "accuracy": accuracy, "low": low, "high": high}
                    for name, (_, accuracy, low, high) in zip(rows, each, strict=True)
                ],
            }
            for each in counts
        ],
    }


TUNED = [(1000, 0.5, 0.48, 0.52), (200, 0.3, 0.27, 0.33)]
SCRATCH = [(1000, 0.4, 0.38, 0.42), (200, 0.2, 0.15, 0.25)]


def test_every_way_to_train_is_a_line_over_the_number_of_images():
    (axes,) = label_curve(result(tuned=TUNED, scratch=SCRATCH)).axes
    lines = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_marker() != "None"]
    assert [list(line.get_xdata()) for line in lines] == [[200, 1000]] * 2
    assert [list(line.get_ydata()) for line in lines] == [[0.3, 0.5], [0.2, 0.4]]
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["200", "1,000"]
    assert {text.get_text() for text in axes.texts} == {"tuned", "scratch", "chance"}


def test_bars_are_the_intervals():
    (axes,) = label_curve(result(tuned=TUNED)).axes
    bars = [segment.tolist() for bar in axes.collections for segment in bar.get_segments()]
    assert bars == [[[200, pytest.approx(0.27)], [200, pytest.approx(0.33)]], [[1000, 0.48], [1000, 0.52]]]


def test_one_number_of_labels_is_a_point():
    text = svg(label_curve(result(tuned=TUNED[:1])))
    assert "1,000" in text
    assert "tuned" in text


def test_numbers_that_would_touch_are_left_out():
    assert _tick_labels([50, 200, 1000, 4000, 10000]) == ["50", "200", "1,000", "", "10,000"]
    assert _tick_labels([9000, 10000]) == ["9,000", "10,000"]
    assert _tick_labels([10, 9800, 9900, 10000]) == ["10", "", "", "10,000"]
    assert _tick_labels([30]) == ["30"]
