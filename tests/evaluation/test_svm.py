"""Support vector machines, against scikit-learn's liblinear."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from sklearn.svm import LinearSVC
from test_logistic import quiet, three_classes

from probe_toys import Plain
from selftaught.errors import UserError
from selftaught.evaluation.features import Viewing
from selftaught.evaluation.probes import SVMProbe
from selftaught.evaluation.probes.svm import with_constant
from selftaught.evaluation.probes.svm_solver import minimize
from selftaught.evaluation.ranking import average_precision

VIEWING = Viewing(4, torch.device("cpu"))


def fitted(x: torch.Tensor, positive: torch.Tensor, cost: float) -> LinearSVC:
    return LinearSVC(C=cost, class_weight={True: 2, False: 1}, dual=False, tol=1e-8, max_iter=10_000).fit(
        x.double().numpy(), positive.numpy()
    )


@pytest.mark.parametrize("cost", [0.01, 1.0, 100.0])
def test_the_solution_is_liblinears(cost: float) -> None:
    source = three_classes(150, 0)
    x = F.normalize(source.images.flatten(1))
    signs = 2.0 * F.one_hot(source.labels, 3) - 1
    weight = minimize(with_constant(x), signs, cost * torch.where(signs > 0, 2.0, 1.0))
    for number in range(3):
        model = fitted(x, source.labels == number, cost)
        theirs = torch.from_numpy(model.decision_function(x.double().numpy())).float()
        torch.testing.assert_close(with_constant(x) @ weight[:, number], theirs, atol=0.01, rtol=0.01)


def test_a_cost_of_zero_leaves_images_out_and_a_start_changes_nothing() -> None:
    source = three_classes(150, 0)
    x, signs = with_constant(source.images.flatten(1)), 2.0 * F.one_hot(source.labels, 3) - 1
    costs = torch.ones(150, 3)
    costs[100:] = 0
    alone = minimize(x[:100], signs[:100], costs[:100])
    torch.testing.assert_close(minimize(x, signs, costs), alone, atol=1e-3, rtol=1e-2)
    start = torch.randn(49, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(minimize(x, signs, costs, start), alone, atol=5e-3, rtol=5e-2)


def test_average_precision_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(60, 4, generator=generator)
    positive = torch.rand(60, 4, generator=generator) < torch.tensor([0.1, 0.3, 0.5, 0.9])
    theirs = [average_precision_score(positive[:, c], scores[:, c]) for c in range(4)]
    np.testing.assert_allclose(average_precision(scores, positive).numpy(), theirs, rtol=1e-5)


def test_c_of_each_class_has_the_best_cross_validated_average_precision() -> None:
    source = three_classes(240, 0)
    probe = SVMProbe()
    x, signs = F.normalize(source.images.flatten(1)), 2.0 * F.one_hot(source.labels, 3) - 1
    folds = probe._folds(source.labels, source, 0)
    assert all((source.labels[folds == fold] == c).sum() >= 20 for fold in range(3) for c in range(3))
    chosen = probe._choose(with_constant(x), signs, torch.where(signs > 0, 2.0, 1.0), folds)
    for number in range(3):
        positive = source.labels == number
        means = {}
        for cost in probe.costs:
            precisions = []
            for fold in range(3):
                model = fitted(x[folds != fold], positive[folds != fold], cost)
                scores = model.decision_function(x[folds == fold].double().numpy())
                precisions.append(average_precision_score(positive[folds == fold], scores))
            means[cost] = np.mean(precisions)
        best = means[min(probe.costs, key=lambda cost: abs(cost - float(chosen[number])))]
        assert best == pytest.approx(max(means.values()), abs=2e-3)
        assert min(means.values()) < best - 0.005  # the choice matters here


def test_the_probe_classifies_by_the_largest_score() -> None:
    train, test = three_classes(300, 0), three_classes(300, 1)
    found = SVMProbe().evaluate(Plain(), train, test, VIEWING, 0, quiet)
    assert found["mean"].accuracy > 0.6
    assert found["mean"].dimensions == 3
    assert found["image"].scores.shape == (300, 3)


def test_fewer_images_than_folds_are_told() -> None:
    train = three_classes(100, 0)
    train.labels[train.labels == 1] = 0
    train.labels[:2] = 1
    with pytest.raises(
        UserError, match=r"at least 3 labeled training images of each class .* class green of given has"
    ):
        SVMProbe().evaluate(Plain(), train, train, VIEWING, 0, quiet)
    for options in ({"folds": 1}, {"costs": (0.0,)}, {"positive_weight": 0.0}):
        with pytest.raises(UserError, match=f"--{next(iter(options)).replace('_', '-')}"):
            SVMProbe(**options)
