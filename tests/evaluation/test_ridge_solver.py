import pytest
import torch
import torch.nn.functional as F

from selftaught.evaluation.probes.ridge_solver import PENALTIES, Ridge


def problem(count=300, dimensions=40, classes=3, seed=0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, dimensions, generator=generator) * torch.linspace(0.1, 2, dimensions)
    truth = torch.randn(dimensions, classes, generator=generator)
    noise = 3 * torch.randn(count, classes, generator=generator)
    return features + offset, (features @ truth + noise).argmax(1)


def solved(features, labels, held=100, chunk=64, classes=3):
    ridge = Ridge(classes)
    for start in range(held, len(features), chunk):
        stop = start + chunk
        ridge.add(features[start:stop], labels[start:stop])
    ridge.hold_out(features[:held], labels[:held])
    return ridge.solve()


def normal_equations(features, labels, penalty, classes=3):
    """Float64, written out: minimise |Xc W - Yc|^2 + p |W|^2, p in units of the mean squared length of a column."""
    x, y = features.double(), F.one_hot(labels, classes).double()
    centred = x - x.mean(0)
    p = penalty * centred.square().sum() / x.shape[1]
    weight = torch.linalg.solve(centred.T @ centred + p * torch.eye(x.shape[1]), centred.T @ (y - y.mean(0)))
    return weight, y.mean(0) - x.mean(0) @ weight


@pytest.mark.parametrize(("count", "dimensions"), [(300, 40), (130, 40), (130, 31), (120, 40), (400, 203)])
def test_streamed_ridge_is_the_normal_equations(count, dimensions):
    features, labels = problem(count, dimensions)
    linear = solved(features, labels)
    weight, bias = normal_equations(features[100:], labels[100:], linear.penalty)
    torch.testing.assert_close(linear.weight.double(), weight, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(linear.bias.double(), bias, atol=1e-4, rtol=1e-3)


def test_streamed_ridge_is_scikit_learns():
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = problem()
    linear = solved(features, labels)
    x = features[100:].double()
    alpha = linear.penalty * float((x - x.mean(0)).square().sum() / 40)
    theirs = linear_model.RidgeClassifier(alpha=alpha).fit(x.numpy(), labels[100:].numpy())
    # their targets are -1 and 1, ours 0 and 1
    torch.testing.assert_close(2 * linear.weight.double(), torch.from_numpy(theirs.coef_.T), atol=1e-4, rtol=1e-3)


def test_penalty_is_the_best_on_the_held_out_images():
    features, labels = problem(count=160, dimensions=50)
    right = {}
    for penalty in PENALTIES:
        weight, bias = normal_equations(features[100:], labels[100:], penalty)
        right[penalty] = int(((features[:100].double() @ weight + bias).argmax(1) == labels[:100]).sum())
    assert right[solved(features, labels).penalty] == max(right.values())
    assert len(set(right.values())) > 3  # the choice matters here


def test_a_tie_on_held_out_images_is_decided_by_the_squared_error_of_their_scores():
    """With three held-out images nearly all penalties tie, and a constant classifier often has their best accuracy."""
    for seed in range(10):
        features, labels = problem(count=63, dimensions=8, seed=seed)
        found = solved(features, labels, held=3)
        accuracies, errors = {}, {}
        for penalty in PENALTIES:
            weight, bias = normal_equations(features[3:], labels[3:], penalty)
            scores = features[:3].double() @ weight + bias
            accuracies[penalty] = float((scores.argmax(1) == labels[:3]).double().mean())
            errors[penalty] = float((scores - F.one_hot(labels[:3], 3)).square().mean())
        best = max(accuracies.values())
        tied = [penalty for penalty in PENALTIES if accuracies[penalty] == best]
        assert found.penalty == min(tied, key=errors.__getitem__)
        assert found.weight.abs().max() > 0.01


def test_solution_does_not_depend_on_the_chunks():
    features, labels = problem()
    whole = solved(features, labels, chunk=1000)
    for chunk in (1, 7, 64):
        torch.testing.assert_close(solved(features, labels, chunk=chunk).weight, whole.weight, atol=1e-5, rtol=1e-4)


def test_a_large_mean_does_not_cost_precision():
    near, far = problem(), problem(offset=1000.0)
    assert solved(*near).penalty == solved(*far).penalty
    torch.testing.assert_close(solved(*near).weight, solved(*far).weight, atol=2e-3, rtol=2e-3)


def test_features_without_content_give_the_most_frequent_class():
    labels = torch.tensor([0, 1, 1] * 40)
    linear = solved(torch.ones(120, 5), labels, held=30, classes=2)
    assert linear.correct(torch.ones(120, 5), labels).sum() == 80


def test_rare_classes_do_not_end_the_search_early():
    """With nine tenths in one class the large penalties all answer with it; the search must go on past them."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(1000, generator=generator) < 0.1).long()
    features = torch.randn(1000, 60, generator=generator)
    features[:, 0] = 0.3 * (features[:, 0] + 6 * labels)
    assert solved(features, labels, held=200, classes=2).correct(features, labels).sum() >= 980
