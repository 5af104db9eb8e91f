"""Average precision by hand, and the resampled form against faster-coco-eval."""

import numpy as np
import pytest

from selftaught.evaluation.transfer.average_precision import (
    Boxes,
    average_precision,
    match,
    overlaps,
    precision_by_class,
    resampled_ap,
)


def boxes(*rows, labels=None, scores=None) -> Boxes:
    array = np.array(rows, float).reshape(-1, 4)
    labels = np.zeros(len(array), np.int64) if labels is None else np.array(labels, np.int64)
    return Boxes(array, labels, np.ones(len(array)) if scores is None else np.array(scores, float))


def random_case(seed: int, images: int = 12, classes: int = 3):
    """Boxes, some ignored, and detections that are moved boxes or false."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(images):
        count, extra = rng.integers(0, 6, 2)
        corner, size = rng.uniform(0, 60, (count, 2)), rng.uniform(8, 30, (count, 2))
        truth = np.concatenate([corner, corner + size], 1)
        labels = rng.integers(0, classes, count)
        truths.append(Boxes(truth, labels, (rng.random(count) > 0.2).astype(float)))
        corner, size = rng.uniform(0, 60, (extra, 2)), rng.uniform(8, 30, (extra, 2))
        false = np.concatenate([corner, corner + size], 1)
        moved = np.concatenate([truth, truth]) + rng.normal(0, 1.5, (2 * count, 4))
        every = np.concatenate([moved, false])
        named = np.concatenate([labels, labels, rng.integers(0, classes, extra)])
        found.append(Boxes(every, named, rng.random(len(every))))
    return truths, found


def test_one_perfect_one_missed_and_one_false_box():
    """Two boxes; the best detection is perfect, the second one false: precision 1 up to a recall of 0.5, then 0.

    Of the 101 levels of recall, 0 to 0.5 are 51: AP = 51 / 101 at every threshold.
    """
    truth = [boxes([0, 0, 10, 10], [50, 50, 70, 70])]
    found = [boxes([0, 0, 10, 10], [20, 20, 30, 30], scores=[0.9, 0.8])]
    expected = 51 / 101
    assert average_precision(truth, found, 1) == pytest.approx({"ap": expected, "ap50": expected, "ap75": expected})
    assert resampled_ap(match(truth, found, 1), np.ones((1, 1), int)) == pytest.approx([expected])


def test_a_box_that_overlaps_by_0_6_is_right_at_three_of_ten_thresholds():
    truth, found = [boxes([0, 0, 10, 10])], [boxes([0, 0, 10, 6], scores=[0.5])]
    score = average_precision(truth, found, 1)
    assert score == pytest.approx({"ap": 0.3, "ap50": 1.0, "ap75": 0.0})


@pytest.mark.parametrize("seed", [0, 1])
def test_a_class_has_the_precision_that_it_has_alone(seed):
    truths, found = random_case(seed)
    values = precision_by_class(truths, found, 4)  # no image has the last class
    alone = [
        average_precision([each.chosen(each.labels == k) for each in truths],
                          [each.chosen(each.labels == k) for each in found], 4)["ap"]
        for k in range(3)
    ]  # fmt: skip
    assert values == (*map(pytest.approx, alone), None)
    assert np.mean(alone) == pytest.approx(average_precision(truths, found, 4)["ap"])


def test_no_detections_are_zero():
    truth, found = [boxes([0, 0, 10, 10]), boxes()], [boxes(), boxes()]
    assert average_precision(truth, found, 2) == {"ap": 0.0, "ap50": 0.0, "ap75": 0.0}
    assert resampled_ap(match(truth, found, 2), np.array([[1, 1], [0, 2]]))[0] == 0
    assert np.isnan(resampled_ap(match(truth, found, 2), np.array([[0, 2]]))).all()


def test_intersection_over_union_by_counting_pixels():
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 20, (8, 2))
    rectangles = np.concatenate([corner, corner + rng.integers(1, 20, (8, 2))], 1).astype(float)
    ignored = rng.random(8) < 0.5
    found = overlaps(rectangles, rectangles, ignored)
    rows, columns = np.mgrid[:40, :40]
    covers = [(columns >= x1) & (columns < x2) & (rows >= y1) & (rows < y2) for x1, y1, x2, y2 in rectangles]
    for i, ours in enumerate(covers):
        for j, theirs in enumerate(covers):
            whole = ours.sum() if ignored[j] else (ours | theirs).sum()
            assert found[i, j] == pytest.approx((ours & theirs).sum() / whole)


@pytest.mark.parametrize("seed", range(6))
def test_every_image_once_is_faster_coco_eval(seed):
    truths, found = random_case(seed)
    expected = average_precision(truths, found, 3)["ap"]
    assert 0.1 < expected < 0.95
    assert resampled_ap(match(truths, found, 3), np.ones((1, 12), int)) == pytest.approx([expected], abs=1e-9)


def test_resampled_images_are_repeated_images():
    truths, found = random_case(7)
    counts = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), 4)
    for row, value in zip(counts, resampled_ap(match(truths, found, 3), counts), strict=True):
        chosen = np.repeat(np.arange(12), row)
        expected = average_precision([truths[n] for n in chosen], [found[n] for n in chosen], 3)["ap"]
        assert value == pytest.approx(expected, abs=1e-9)
