"""Where curves of accuracy by number of labels cross, by hand and by simulation."""

import math

import numpy as np
import pytest
import torch

from selftaught.evaluation.crossing import _distribution, find_crossing
from selftaught.evaluation.finetune_table import FineTuneTable, LabelResult, Repetition, Row, render
from selftaught.evaluation.intervals import over_images

NAMES = ("fine-tuned", "from scratch")


def exact(rate: float, images: int = 1000) -> torch.Tensor:
    """One repetition with this accuracy."""
    return (torch.arange(images) < rate * images)[None]


def crossing(counts, ours, theirs):
    return find_crossing(NAMES, counts, [exact(rate) for rate in ours], [exact(rate) for rate in theirs])


def test_the_crossing_is_interpolated_over_the_logarithm_of_the_number_of_images():
    found = crossing([("20 per class", 200), ("2,000 per class", 20_000)], (0.6, 0.7), (0.5, 0.8))
    assert found.value == pytest.approx(math.sqrt(200 * 20_000))
    assert found.low < found.value < found.high
    assert found.classes == 10
    assert found.sentence.startswith(
        "The curves of fine-tuned and from scratch cross at about 200 labels per class (95 %"
    )


def test_points_may_be_in_any_order_and_counts_other_than_per_class():
    found = crossing([("10 %", 5000), ("1 %", 500)], (0.7, 0.6), (0.8, 0.5))
    assert found.value == pytest.approx(math.sqrt(500 * 5000))
    assert "cross at about 1,600 labeled images" in found.sentence


@pytest.mark.parametrize(
    ("ours", "theirs", "value", "words"),
    [
        (
            (0.9, 0.9),
            (0.1, 0.1),
            math.inf,
            "do not cross up to 1,000 labels per class: fine-tuned is above (in the whole",
        ),
        (
            (0.1, 0.1),
            (0.9, 0.9),
            0.0,
            "do not cross from 20 labels per class on: fine-tuned is not above (in the whole 95 %",
        ),
        ((0.6, 0.501), (0.5, 0.5), math.inf, "fine-tuned is above (95 % interval of the crossing: "),
    ],
)
def test_curves_that_do_not_cross(ours, theirs, value, words):
    found = crossing([("20 per class", 200), ("1,000 per class", 10_000)], ours, theirs)
    assert found.value == value
    assert words in found.sentence
    assert found.to_json()["value"] == (None if value == math.inf else 0)


def test_curves_that_cross_upwards_or_twice_are_not_called_above_from_the_start():
    counts = [("5 per class", 50), ("20 per class", 200), ("100 per class", 1000)]
    upwards = crossing(counts, (0.4, 0.6, 0.7), (0.5, 0.5, 0.5))
    assert upwards.sentence == (
        "fine-tuned is above from scratch with 100 labels per class, but not with every smaller number."
    )
    twice = crossing(counts, (0.4, 0.6, 0.4), (0.5, 0.5, 0.5))
    assert "cross more than once, the last time at about 45 labels per class" in twice.sentence


@pytest.mark.parametrize("images", [20, 1000])
def test_sides_that_never_differ_are_not_ordered(images):
    """Neither is above the other, and which one is remains open, however many images agree."""
    same = [exact(1.0, images), exact(1.0, images)]
    found = find_crossing(NAMES, [("5 per class", 50), ("20 per class", 200)], same, same)
    assert (found.low, found.high) == (0, math.inf)
    assert found.sentence == (
        "Where the curves of fine-tuned and from scratch cross is not decided: the 95 % interval of the crossing is "
        "below 5 to above 20 labels per class."
    )


def test_center_and_variance_of_a_point_are_those_of_its_difference_in_the_table():
    generator = torch.Generator().manual_seed(0)
    sides = [torch.rand(1, 40, generator=generator) < rate for rate in (0.7, 0.5)]
    center, (variance, _) = over_images(*(side.double() for side in sides))
    found = _distribution([(sides[0].double() - sides[1].double()).numpy()], np.array([True]))
    assert (float(found[0][0]), float(found[1][0, 0])) == pytest.approx((center, variance))


def test_an_interval_may_reach_beyond_what_was_measured():
    generator = torch.Generator().manual_seed(0)
    sides = [[torch.rand(3, 100, generator=generator) < rate for rate in rates] for rates in ((0.6, 0.55), (0.5, 0.5))]
    found = find_crossing(NAMES, [("5 per class", 50), ("20 per class", 200)], *sides)
    assert found.high == math.inf
    assert "to above 20" in found.sentence


def test_intervals_cover_the_true_crossing():
    """Five nested draws whose levels vary together, on 500 images of varying difficulty."""
    rng = np.random.default_rng(0)
    counts = [("20 per class", 200), ("100 per class", 1000), ("500 per class", 5000)]
    truth, covered, trials = 1000 * math.sqrt(5), 0, 150
    for _ in range(trials):
        difficulty = rng.uniform(-0.2, 0.2, 500)
        draws = 0.02 * rng.standard_normal((5, 1))
        sides = [
            [torch.from_numpy(rng.random((5, 500)) < level + sign * draws + difficulty) for level in levels]
            for sign, levels in ((1, (0.60, 0.65, 0.66)), (-1, (0.45, 0.60, 0.71)))
        ]
        found = find_crossing(NAMES, counts, *sides)
        covered += found.low <= truth <= found.high
    assert covered / trials > 0.9


def test_the_table_states_the_crossing_against_training_from_scratch():
    def result(name: str, images: int, rates: tuple[float, float, float]) -> LabelResult:
        names = ("probe", "probe, random weights", "from scratch")
        rows = [Row(row, (Repetition(exact(rate)[0], 0.5),)) for row, rate in zip(names, rates, strict=True)]
        return LabelResult(name, images, 2, 3, tuple(rows))

    results = (result("20 per class", 200, (0.6, 0.1, 0.5)), result("2,000 per class", 20_000, (0.7, 0.2, 0.8)))
    table = FineTuneTable("toy", 0.1, 1000, "draws", 16, {}, results)
    assert table.to_json()["crossing"]["value"] == pytest.approx(2000)
    assert "The curves of probe and from scratch cross at about 200 labels per class" in str(render(table).caption)
    assert FineTuneTable("toy", 0.1, 1000, "draws", 16, {}, results[:1]).crossing() is None
