"""Average precision and ROC AUC, against scikit-learn, with equal scores and weights."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from selftaught.evaluation.intervals import SAMPLES, Measured, resampled_interval, sample_counts
from selftaught.evaluation.ranking import average_precision, resampled_map, roc_auc


def problem(count: int, classes: int = 4, levels: int | None = None, seed: int = 0):
    """Scores that are partly right, on few `levels` if given, and labels of which some are rare."""
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(count, classes, generator=generator) < torch.linspace(0.6, 0.1, classes)
    scores = torch.randn(count, classes, generator=generator, dtype=torch.float64) + positive
    return (scores if levels is None else (levels * scores / 4).round()), positive


@pytest.mark.parametrize("levels", [None, 8, 2])
@pytest.mark.parametrize("count", [3, 40, 500])
def test_metrics_are_those_of_scikit_learn(count, levels):
    scores, positive = problem(count, levels=levels)
    positive[0] = True  # each class occurs
    precisions, areas = average_precision(scores, positive), roc_auc(scores, positive)
    for k in range(4):
        assert float(precisions[k]) == pytest.approx(average_precision_score(positive[:, k], scores[:, k]))
        if not positive[:, k].all():
            assert float(areas[k]) == pytest.approx(roc_auc_score(positive[:, k], scores[:, k]))


def test_classes_without_positives_or_negatives_are_undefined():
    scores, positive = problem(50)
    positive[:, 0], positive[:, 1] = False, True
    precisions, areas = average_precision(scores, positive), roc_auc(scores, positive)
    assert precisions.isnan().tolist() == [True, False, False, False]
    assert precisions[1] == 1
    assert areas.isnan().tolist() == [True, True, False, False]


def test_the_order_of_images_does_not_matter():
    scores, positive = problem(60, levels=3)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(average_precision(scores[order], positive[order]), average_precision(scores, positive))


@pytest.mark.parametrize("levels", [None, 5])
def test_a_resampled_mean_is_that_of_images_with_these_weights(levels):
    scores, positive = problem(80, levels=levels)
    positive[:, 3] = False
    positive[7, 3] = True  # missing in a third of the samples
    counts = torch.from_numpy(sample_counts(80))
    values = resampled_map(scores, positive, counts)
    assert values.shape == (SAMPLES,)
    for sample in range(0, SAMPLES, 37):
        weight = counts[sample].numpy()
        classes = [k for k in range(4) if (weight * positive[:, k].numpy()).sum()]
        truth = [average_precision_score(positive[:, k], scores[:, k], sample_weight=weight) for k in classes]
        assert float(values[sample]) == pytest.approx(np.mean(truth))
    whole = resampled_map(scores, positive, torch.ones(1, 80, dtype=torch.int64))
    assert float(whole) == pytest.approx(float(average_precision(scores, positive).mean()))


def test_bootstrap_intervals_cover_the_true_difference():
    """Two classifiers whose mAP on very many images differs by a known amount, tested on 300."""
    rng = np.random.default_rng(0)

    def drawn(count: int):
        positive = torch.from_numpy(rng.random((count, 3)) < 0.3)
        shared = rng.standard_normal((count, 3))
        sides = [
            torch.from_numpy(shared + gain * positive.numpy() + 0.7 * rng.standard_normal((count, 3)))
            for gain in (1.5, 1.2)
        ]
        return positive, sides

    positive, sides = drawn(100_000)
    truth = float(average_precision(sides[0], positive).mean() - average_precision(sides[1], positive).mean())
    covered, trials, counts = 0, 150, torch.from_numpy(sample_counts(300))
    for _ in range(trials):
        positive, sides = drawn(300)
        ours, theirs = (
            Measured(
                average_precision(side, positive).mean(0, keepdim=True).numpy(),
                resampled_map(side, positive, counts)[None].numpy(),
                resampled=True,
            )
            for side in sides
        )
        low, high = resampled_interval(ours, theirs)
        covered += low <= truth <= high
        assert ours.minus(theirs) == pytest.approx((ours.mean - theirs.mean, low, high))
    assert 0.89 < covered / trials <= 1


def test_repetitions_widen_a_resampled_interval_by_their_variance():
    flat = np.full((1, SAMPLES), 0.5)
    theirs = Measured(np.array([0.4]), flat, resampled=True)
    assert resampled_interval(Measured(np.array([0.6]), flat, resampled=True), theirs) == pytest.approx((0.2, 0.2))
    ours = Measured(np.array([0.50, 0.52]), np.repeat(flat, 2, 0), resampled=True)
    low, high = resampled_interval(ours, theirs)
    assert (high - low) / 2 == pytest.approx(12.706 * 0.01, rel=1e-3)  # Student's t with one degree of freedom
