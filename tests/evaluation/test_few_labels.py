"""Which labeled images are drawn, and which of them are held out."""

import pytest
import torch

from selftaught.errors import UserError
from selftaught.evaluation.few_labels import (
    LabelCount,
    Subset,
    draw_labels,
    label_counts,
    labels_of,
    parse_fraction,
    split_validation,
)
from toys import ToySource

LABELS = torch.tensor([0] * 30 + [1] * 12 + [-1] * 5 + [2] * 20)[
    torch.randperm(67, generator=torch.Generator().manual_seed(0))
]
CLASSES = ("ant", "bee", "cat")


def shots(number: int) -> LabelCount:
    (count,) = label_counts(LABELS, CLASSES, [number], [])
    return count


def test_every_class_has_as_many_labels_as_asked_for():
    for number in (2, 7, 12):
        drawn = draw_labels(LABELS, shots(number), draw=3)
        assert LABELS[drawn].bincount().tolist() == [number] * 3
        assert drawn.tolist() == sorted(set(drawn.tolist()))


def test_a_larger_draw_contains_the_smaller_one_and_other_draws_differ():
    few, many = (set(draw_labels(LABELS, shots(number), 1).tolist()) for number in (4, 9))
    assert few < many
    assert few != set(draw_labels(LABELS, shots(4), 2).tolist())
    assert few == set(draw_labels(LABELS, shots(4), 1).tolist())


def test_a_fraction_is_one_of_each_class():
    counts = label_counts(LABELS, CLASSES, [], [0.5, 0.01, 1.0])
    assert [count.name for count in counts] == ["50 %", "1 %", "100 %"]
    assert [LABELS[draw_labels(LABELS, count, 0)].bincount().tolist() for count in counts] == [
        [15, 6, 10],
        [2, 2, 2],  # one to train on and one for validation
        [30, 12, 20],
    ]


def test_all_labels_are_all_images_that_have_one():
    (count,) = label_counts(LABELS, CLASSES, [], [])
    assert count.name == "all"
    assert draw_labels(LABELS, count, 0).tolist() == [i for i, label in enumerate(LABELS.tolist()) if label >= 0]


@pytest.mark.parametrize("sizes", [(2, 2), (2, 5, 40), (1, 3), (3000, 1000)])
def test_validation_images_are_a_fifth_of_each_class_and_no_training_images(sizes):
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    fit, held = split_validation(labels, 0)
    assert sorted([*fit.tolist(), *held.tolist()]) == list(range(len(labels)))
    expected = [min(max(1, int(0.2 * size)), 2000 // len(sizes), size - 1) for size in sizes]
    assert labels[held].bincount(minlength=len(sizes)).tolist() == expected
    if len(labels) > 4:
        assert held.tolist() != split_validation(labels, 1)[1].tolist()


@pytest.mark.parametrize(
    ("per_class", "fractions", "message"),
    [
        ([13], [], "--labels-per-class 13 is too large: .* 'bee', has 12 .*Give a smaller number"),
        ([25], [], r"'bee', has 12 labeled training images \(2 of 3 classes have too few\)"),
        ([0], [], "--labels-per-class must be at least 1, got 0"),
        ([], [0.0], "--label-fraction must be above 0"),
        ([], [1.5], "at most 100 %, got 150 %"),
    ],
)
def test_labels_that_are_not_there_are_an_error(per_class, fractions, message):
    with pytest.raises(UserError, match=message):
        label_counts(LABELS, CLASSES, per_class, fractions)


def test_with_one_label_per_class_nothing_is_held_out():
    assert sorted(LABELS[draw_labels(LABELS, shots(1), 0)].tolist()) == [0, 1, 2]
    fit, held = split_validation(torch.tensor([2, 0, 1]), 0)
    assert fit.tolist() == held.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("text", "value"), [("1%", 0.01), (" 12.5 % ", 0.125), ("0.1", 0.1), ("100%", 1.0)])
def test_a_fraction_is_written_in_percent_or_not(text, value):
    assert parse_fraction(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "%", "ten", "nan", "inf%"])
def test_what_is_no_fraction_is_an_error(text):
    with pytest.raises(UserError, match="percentages such as 1% or 10%"):
        parse_fraction(text)


def test_a_subset_has_the_images_and_labels_of_its_indices():
    source, chosen = ToySource(), torch.tensor([3, 4, 20])
    subset = Subset(source, chosen)
    batch = subset.batch(torch.tensor([2, 0]), torch.device("cpu"))
    eye = torch.eye(3).repeat(2, 1, 1)
    assert torch.equal(batch.warp(eye, 16), source.batch(chosen[[2, 0]], torch.device("cpu")).warp(eye, 16))
    assert batch.index.tolist() == [2, 0]
    assert (batch.population, len(subset)) == (3, 3)
    assert torch.equal(labels_of(subset), source.labels[chosen])
    assert subset.fingerprint != Subset(source, torch.tensor([3, 4, 21])).fingerprint != source.fingerprint
