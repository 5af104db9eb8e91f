import pytest
import torch
from sklearn.linear_model import LogisticRegression

from probe_toys import Given, Plain
from selftaught.errors import UserError
from selftaught.evaluation.features import Viewing
from selftaught.evaluation.probes import LogisticProbe
from selftaught.evaluation.probes.base import held_out
from selftaught.evaluation.probes.logistic import minimize

VIEWING = Viewing(4, torch.device("cpu"))


def quiet(phase, images):
    pass


def three_classes(count, seed):
    """Images of noise, brighter in the color of their class: the classes overlap."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    images = torch.randn(count, 3, 4, 4, generator=generator)
    images[torch.arange(count), labels] += 0.4
    return Given(images, labels, ("red", "green", "blue"))


def standardized(train, *others):
    x = train.images.flatten(1).double()
    scale = (x - x.mean(0)).square().mean().sqrt()
    return [((images.flatten(1).double() - x.mean(0)) / scale).numpy() for images in others]


@pytest.mark.parametrize("cost", [1e-3, 1e-1, 10.0])
def test_the_solution_is_scikit_learns(cost):
    source = three_classes(200, 0)
    (x,) = standardized(source, source.images)
    theirs = LogisticRegression(C=cost, tol=1e-8, max_iter=10_000).fit(x, source.labels.numpy())
    weight, bias = minimize(torch.from_numpy(x).float(), source.labels, torch.zeros(48, 3), torch.zeros(3), cost, 1000)
    torch.testing.assert_close(weight.T.double(), torch.from_numpy(theirs.coef_), atol=2e-3, rtol=2e-3)
    bias = (bias - bias.mean()).double()  # a shift of all biases changes nothing
    torch.testing.assert_close(
        bias, torch.from_numpy(theirs.intercept_ - theirs.intercept_.mean()), atol=2e-3, rtol=2e-3
    )


def test_c_is_the_best_on_held_out_images_and_test_scores_are_scikit_learns():
    train, test = three_classes(300, 0), three_classes(100, 1)
    found = LogisticProbe(max_iterations=1000).evaluate(Plain(), train, test, VIEWING, 0, quiet)["image"]
    held = held_out(300, 0)
    kept = Given(train.images[~held], train.labels[~held])
    x, away, judged = standardized(kept, kept.images, train.images[held], test.images)
    models = {c: LogisticRegression(C=c, tol=1e-8, max_iter=10_000).fit(x, kept.labels) for c in LogisticProbe.costs}
    accuracies = {c: model.score(away, train.labels[held]) for c, model in models.items()}
    assert accuracies[min(models, key=lambda c: abs(c * found.penalty - 1))] == max(accuracies.values())
    assert found.held_out == pytest.approx(max(accuracies.values()))
    expected = torch.from_numpy(models[1 / found.penalty].predict_log_proba(judged)).float()
    torch.testing.assert_close(found.scores, expected, atol=0.01, rtol=0.01)
    assert found.labels.equal(test.labels)
    assert len(set(accuracies.values())) > 2  # the choice matters here


def test_constant_features_predict_the_most_frequent_class():
    labels = torch.tensor([0, 1, 1] * 40)
    train = Given(torch.full((120, 3, 4, 4), 0.5), labels)
    found = LogisticProbe().evaluate(Plain(), train, train, VIEWING, 0, quiet)["image"]
    assert found.accuracy == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"costs": ()}, "--costs expects"), ({"costs": (1.0, -1.0)}, "got -1.0; try"), ({"max_iterations": 0}, "got 0")],
)
def test_mistakes_are_told(options, words):
    with pytest.raises(UserError, match=words):
        LogisticProbe(**options)
