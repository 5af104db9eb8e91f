"""Metrics, against scikit-learn."""

import pytest
import torch
from sklearn import metrics as theirs
from sklearn.preprocessing import label_binarize

from selftaught.evaluation.metrics import is_unbalanced, measure
from selftaught.evaluation.probes import ProbeResult


def problem(classes: int, count: int = 200, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores that are partly right, with unequal classes and ties."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(count, generator=generator).square() * classes).long()
    scores = torch.randn(count, classes, generator=generator)
    scores[torch.arange(count), labels] += 1
    return (4 * scores).round() / 4 + 1e-4 * torch.arange(classes), labels


HELD = torch.eye(2), torch.tensor([0, 0])
"""Scores and labels of two held-out images, the first of which is classified correctly."""


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_metrics_are_those_of_scikit_learn(classes: int) -> None:
    scores, labels = problem(classes)
    found = measure(ProbeResult(scores, labels, *HELD, 3))
    predicted = scores.argmax(1)
    assert found.accuracy == pytest.approx(theirs.accuracy_score(labels, predicted))
    assert found.balanced_accuracy == pytest.approx(theirs.balanced_accuracy_score(labels, predicted))
    assert found.macro_f1 == pytest.approx(theirs.f1_score(labels, predicted, average="macro"))
    assert found.confusion.tolist() == theirs.confusion_matrix(labels, predicted).tolist()
    assert found.per_class == pytest.approx(theirs.recall_score(labels, predicted, average=None))
    columns = label_binarize(labels, classes=range(classes))
    columns = torch.tensor(columns) if classes > 2 else torch.stack([1 - labels, labels], 1)
    assert found.roc_auc == pytest.approx(theirs.roc_auc_score(columns, scores, average="macro"))
    if classes > 5:
        assert found.top5 == pytest.approx(theirs.top_k_accuracy_score(labels, scores, k=5))
    assert ("top5" in found.numbers()) == (classes > 5)


def test_a_class_without_test_images_counts_nowhere() -> None:
    scores, labels = problem(3)
    kept = labels != 1
    scores[:, 1] = -10  # and is never predicted
    found = measure(ProbeResult(scores[kept], labels[kept], *HELD, 3))
    predicted, labels = scores[kept].argmax(1), labels[kept]
    assert found.per_class[1] is None
    assert found.balanced_accuracy == pytest.approx(theirs.balanced_accuracy_score(labels, predicted))
    assert found.macro_f1 == pytest.approx(theirs.f1_score(labels, predicted, average="macro"))
    areas = [theirs.roc_auc_score(labels == c, scores[kept][:, c]) for c in (0, 2)]
    assert found.roc_auc == pytest.approx(sum(areas) / 2)


def test_test_images_of_one_class_have_no_roc_curve() -> None:
    found = measure(ProbeResult(torch.randn(5, 2), torch.ones(5, dtype=torch.int64), *HELD, 3))
    assert found.roc_auc is None
    assert set(found.numbers()) == {"balanced_accuracy", "macro_f1"}


def test_always_predicting_the_frequent_class_is_accurate_but_not_balanced() -> None:
    labels = torch.tensor([0] * 74 + [1] * 26)
    scores = torch.tensor([1.0, 0.0]).expand(100, 2)
    found = measure(ProbeResult(scores, labels, *HELD, 3))
    assert found.accuracy == pytest.approx(0.74)
    assert found.balanced_accuracy == found.roc_auc == 0.5


@pytest.mark.parametrize(
    ("counts", "expected"), [((74, 26), True), ((60, 40), False), ((61, 40), True), ((5, 0, 5), False), ((3,), False)]
)
def test_when_classes_are_unbalanced(counts: tuple[int, ...], expected: bool) -> None:
    assert is_unbalanced(counts) == expected
