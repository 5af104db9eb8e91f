"""Accuracy by class in the report."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import GOOD, fake_run

from selftaught.report.classes import MAX_CLASSES, MAX_PAIRS, make_classes
from selftaught.report.page import render
from selftaught.report.record import read_records


def by_class(classes: int, seeds: int = 2) -> dict[str, Any]:
    """A probe of `seeds` seeds with ten test images a class; class k has k confused images, all with the next class."""
    confusion = np.zeros((classes, classes), int)
    for number in range(classes):
        wrong = min(number, 10) * seeds
        confusion[number, number] += 10 * seeds - wrong
        confusion[number, (number + 1) % classes] += wrong
    return {
        **GOOD,
        "seeds": seeds,
        "test": 10 * classes,
        "classes": [f"<c{number}>" for number in range(classes)],
        "confusion": confusion.tolist(),
        "per_class": [1 - min(number, 10) / 10 for number in range(classes)],
        "random_per_class": [0.25] * classes,
    }


def test_classes_are_sorted_by_accuracy_with_their_images() -> None:
    found = make_classes(by_class(4), "salt")
    assert found is not None
    assert found.rows == [
        ["<c3>", "10", "0.70", "0.25"],
        ["<c2>", "10", "0.80", "0.25"],
        ["<c1>", "10", "0.90", "0.25"],
        ["<c0>", "10", "1.00", "0.25"],
    ]
    assert found.figure is not None
    assert found.pairs == []


def test_images_of_a_class_are_counted_once_whatever_the_seeds() -> None:
    """k-NN is deterministic: with three seeds, earlier versions stored the confusions of one."""
    found = make_classes({**by_class(4, seeds=1), "seeds": 3, "test": 40}, "salt")
    assert found is not None
    assert [row[1] for row in found.rows] == ["10"] * 4


def test_many_classes_have_their_worst_pairs_instead_of_a_matrix() -> None:
    probe = by_class(MAX_CLASSES + 1)
    probe["confusion"][5] = [0] * len(probe["classes"])
    probe["confusion"][5][20] = 20
    found = make_classes(probe, "salt")
    assert found is not None
    assert found.figure is None
    assert found.pairs[:2] == [["<c5>", "<c20>", "1.00"], ["<c10>", "<c11>", "1.00"]]
    assert len(found.pairs) == len(found.rows) == MAX_PAIRS


def test_classes_without_images_are_last() -> None:
    probe = by_class(3)
    probe["per_class"][2], probe["confusion"][2] = None, [0, 0, 0]
    found = make_classes(probe, "salt")
    assert found is not None
    assert found.rows[-1] == ["<c2>", "0", "n.a.", "0.25"]


@pytest.mark.parametrize("damage", [[[1]], "text", [[1, 2], [3]], [[1, -2], [3, 4]], [[1, "2"], [3, 4]], None])
def test_damaged_matrices_are_not_drawn(damage: object) -> None:
    found = make_classes({**by_class(2), "confusion": damage}, "salt")
    assert found is not None
    assert found.figure is None
    assert found.rows[0][:3] == ["<c1>", "n.a.", "0.90"]
    assert make_classes({**by_class(2), "per_class": "text"}, "salt") is None


def test_the_page_has_the_classes(tmp_path: Path) -> None:
    html = render(read_records([fake_run(tmp_path / "run", probes=[by_class(3)])]))
    assert "confusion matrix of the best layer" in html
    assert '<td class="name">&lt;c2&gt;</td><td class="number">10</td><td class="number">0.80</td>' in html
    assert "<c2>" not in html
    assert "Accuracy by class" not in render(read_records([fake_run(tmp_path / "earlier")]))
