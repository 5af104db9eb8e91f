"""Probes on images that may have several classes, against scikit-learn, and their table."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from probe_toys import Given, Plain, findings
from selftaught.errors import UserError
from selftaught.evaluation import (
    ConvProbe,
    KNNProbe,
    LogisticProbe,
    MLPProbe,
    RidgeProbe,
    SGDProbe,
    SVMProbe,
    probe_layers,
    render,
)
from selftaught.evaluation.features import Viewing
from selftaught.evaluation.multilabel import measure_multilabel
from selftaught.evaluation.probes.base import held_out
from selftaught.evaluation.table import render_classes

VIEWING = Viewing(4, torch.device("cpu"))
PROBES = [
    RidgeProbe(),
    LogisticProbe(),
    SVMProbe(),
    KNNProbe(k=20),
    SGDProbe(epochs=20, learning_rate=0.5),
    MLPProbe(epochs=10),
    ConvProbe(epochs=10),
]


def quiet(phase: str, images: int) -> None:
    pass


def named(probe) -> str:
    return type(probe).__name__


def means(source: Given) -> np.ndarray:
    """The features of the layer "mean"."""
    return source.images.mean((2, 3)).double().numpy()


@pytest.mark.parametrize("probe", PROBES, ids=named)
def test_every_probe_ranks_the_images_of_each_class(probe):
    train, test = findings(400, 0, noise=0.15), findings(300, 1, noise=0.15)
    for layer, result in probe.evaluate(Plain(), train, test, replace(VIEWING, batch_size=32), 0, quiet).items():
        found = measure_multilabel(result)
        assert result.scores.shape == (300, 3)
        assert len(result.held_scores) == 40
        truth = [average_precision_score(test.labels[:, k], result.scores[:, k]) for k in range(3)]
        assert found.per_class == pytest.approx(truth, abs=1e-6)
        assert found.value == pytest.approx(np.mean(truth), abs=1e-6)
        areas = [roc_auc_score(test.labels[:, k], result.scores[:, k]) for k in range(3)]
        assert found.areas_per_class == pytest.approx(areas, abs=1e-6)
        assert found.numbers() == {"roc_auc": pytest.approx(np.mean(areas), abs=1e-6)}
        assert min(areas) > 0.75, layer  # the best classifier reaches 0.92


@pytest.mark.parametrize("probe", [LogisticProbe(costs=(0.1,)), SVMProbe(), KNNProbe(k=20)], ids=named)
def test_a_class_does_not_depend_on_the_others(probe):
    """Unlike classes that exclude each other: without the second class, the other ones have the same scores."""
    train, test = findings(300, 0), findings(100, 1)
    fewer = [Given(source.images, source.labels[:, [0, 2]], ("red", "blue")) for source in (train, test)]
    all_three, two = (
        probe.evaluate(Plain(), *pair, VIEWING, 0, quiet)["mean"].scores for pair in ((train, test), fewer)
    )
    torch.testing.assert_close(all_three[:, [0, 2]], two, atol=2e-3, rtol=1e-2)


def test_ridge_is_that_of_scikit_learn():
    train, test = findings(400, 0), findings(100, 1)
    result = RidgeProbe().evaluate(Plain(), train, test, VIEWING, 0, quiet)["mean"]
    kept = ~held_out(400, 0).numpy()
    x = means(train)[kept]
    unit = x.var(0).sum() * len(x) / 3  # the mean variance of a dimension, times the images
    model = Ridge(alpha=result.penalty * unit).fit(x, train.labels.numpy()[kept])
    np.testing.assert_allclose(result.scores, model.predict(means(test)), atol=1e-3)


def test_logistic_regression_is_that_of_scikit_learn():
    train, test = findings(400, 0), findings(100, 1)
    result = LogisticProbe(costs=(0.1,)).evaluate(Plain(), train, test, VIEWING, 0, quiet)["mean"]
    kept = ~held_out(400, 0).numpy()
    x = means(train)[kept]
    center = x.mean(0)
    scale = np.sqrt(np.square(x - center).mean())
    for k in range(3):
        model = LogisticRegression(C=0.1, tol=1e-8, max_iter=1000).fit((x - center) / scale, train.labels[kept, k])
        expected = model.decision_function((means(test) - center) / scale)
        np.testing.assert_allclose(result.scores[:, k], expected, atol=2e-3)


def test_support_vector_machines_are_those_of_scikit_learn():
    train, test = findings(400, 0), findings(100, 1)
    result = SVMProbe(costs=(1.0,)).evaluate(Plain(), train, test, VIEWING, 0, quiet)["mean"]
    kept = ~held_out(400, 0).numpy()

    def with_one(source: Given) -> np.ndarray:
        unit = F.normalize(torch.from_numpy(means(source)), dim=1).numpy()
        return np.concatenate([unit, np.ones((len(unit), 1))], 1)

    for k in range(3):
        model = LinearSVC(C=1.0, class_weight={0: 1, 1: 2}, fit_intercept=False, tol=1e-8, max_iter=100_000)
        model.fit(with_one(train)[kept], train.labels[kept, k])
        np.testing.assert_allclose(result.scores[:, k], model.decision_function(with_one(test)), atol=1e-3)


def test_k_nn_scores_are_fractions_of_the_votes_as_in_scikit_learn():
    train, test = findings(200, 0), findings(50, 1)
    result = KNNProbe(k=15, temperature=0.1).evaluate(Plain(), train, test, VIEWING, 0, quiet)["mean"]
    unit = [F.normalize(torch.from_numpy(means(source)), dim=1).numpy() for source in (train, test)]

    def weights(distances: np.ndarray) -> np.ndarray:  # |a - b|^2 = 2 - 2 s
        return np.exp((1 - distances**2 / 2) / 0.1)

    model = KNeighborsClassifier(15, weights=weights).fit(unit[0], train.labels.numpy())
    expected = np.stack([column[:, 1] for column in model.predict_proba(unit[1])], 1)
    np.testing.assert_allclose(result.scores, expected, atol=1e-4)


def test_a_low_temperature_does_not_lose_the_votes():
    """exp(s / 0.001) underflows for all neighbors but the most similar one, and for that one if it is not alike."""
    train, test = findings(200, 0, noise=0), findings(200, 1, noise=0)
    result = KNNProbe(k=5, temperature=0.001).evaluate(Plain(), train, test, VIEWING, 0, quiet)["image"]
    assert result.scores.isfinite().all()
    assert measure_multilabel(result).value > 0.95


@pytest.fixture(scope="module")
def table():
    train, test = findings(600, 0), findings(300, 1)
    return probe_layers(Plain(), lambda seed: Plain(), train, test, size=4, seeds=2, progress=False)


def test_the_table_has_map_and_area_of_every_class(table):
    result = json.loads(json.dumps(table.to_json()))
    assert result["metric"] == "map"
    assert all({"map", "held_out", "random", "metrics"} <= set(row) for row in result["layers"])
    assert not any("accuracy" in row for row in result["layers"])
    positives = findings(300, 1).labels.sum(0).tolist()
    assert result["positives"] == positives
    assert result["chance"] == pytest.approx(sum(positives) / 900)
    assert result["per_class"] == pytest.approx(result["random_per_class"], abs=0.02)  # the same encoder
    assert all(0.6 < area <= 1 for area in result["areas_per_class"])
    assert result["confusion"] == []
    assert result["gain"]["low"] <= 0 <= result["gain"]["high"]
    shown = render(table)
    assert str(shown.title).startswith("mAP (ridge probe) on 300 test images")
    headings = [str(column.header) for column in shown.columns]
    assert headings[1] == "mAP"
    assert headings[-2:] == ["ROC AUC", "random weights, ROC AUC"]
    by_class = render_classes(table)
    assert [str(cell) for cell in by_class.columns[0].cells] == ["red", "green", "blue"]


def test_values_on_bootstrap_samples_are_kept(table):
    found = table.observations
    assert found.trained.shape == (2, 2, 500)
    assert found.random.shape == found.trained.shape  # an encoder without parameters has no random initializations
    assert found.trained_values.shape == (2, 2)
    assert found.labels.shape == (300, 3)
    assert found.trained.mean() == pytest.approx(found.trained_values.mean(), abs=0.03)


def test_results_of_random_weights_are_cached(tmp_path):
    train, test = findings(200, 0), findings(100, 1)
    tables = [
        probe_layers(
            Plain(), lambda seed: Plain(), train, test, size=4, cache=tmp_path, encoder_setting={}, progress=False
        )
        for _ in range(2)
    ]
    assert tables[0].to_json() == tables[1].to_json()
    assert np.array_equal(tables[0].observations.random, tables[1].observations.random)
    assert list(tmp_path.glob("*.npz"))


def test_images_without_labels_are_left_out():
    train, test = findings(200, 0), findings(100, 1)
    few = Given(train.images, train.labels.clone(), train.classes)
    few.labels[50:] = -1
    table = probe_layers(Plain(), lambda seed: Plain(), few, test, size=4, progress=False)
    assert table.train == 50


def test_labels_without_any_class_are_an_error():
    train, test = findings(60, 0), findings(60, 1)
    train.labels[:] = 0
    with pytest.raises(UserError, match="none of the 6 held-out training images has any of the classes"):
        probe_layers(Plain(), lambda seed: Plain(), train, test, size=4, progress=False)
    train = findings(60, 0)
    train.labels[:, 2] = 0
    with pytest.raises(UserError, match="class blue of given has 0"):
        probe_layers(Plain(), lambda seed: Plain(), train, test, size=4, probe="svm", progress=False)
