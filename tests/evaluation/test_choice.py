"""How certain the choice of a layer is, against the paired standard error by hand and by simulation."""

import json

import numpy as np
import pytest
import torch

from probe_toys import Plain, half_red, noise
from selftaught.evaluation import (
    KNNProbe,
    LogisticProbe,
    MLPProbe,
    RidgeProbe,
    SGDProbe,
    SVMProbe,
    probe_layers,
    render,
)
from selftaught.evaluation.choice import layer_choice
from selftaught.evaluation.features import Viewing
from selftaught.evaluation.metrics import LayerMetrics
from selftaught.evaluation.probes import name_of
from selftaught.evaluation.probes.base import held_out

CPU = torch.device("cpu")


def metrics(held: torch.Tensor) -> LayerMetrics:
    return LayerMetrics(torch.ones(3, dtype=torch.bool), held, 1, None, torch.zeros(2, 2), None, None)


def results(only_best: int, only_second: int, both: int, neither: int):
    """One probe seed with a layer that is always wrong and two better ones; the first one on a tie."""
    best = [1] * only_best + [0] * only_second + [1] * both + [0] * neither
    second = [0] * only_best + [1] * only_second + [1] * both + [0] * neither
    held = {"bad": torch.zeros(len(best)), "best": torch.tensor(best), "second": torch.tensor(second)}
    return {name: metrics(rows.bool()) for name, rows in held.items()}


def test_the_standard_error_is_that_of_the_paired_difference():
    found = layer_choice([results(30, 20, 100, 50)])
    difference = np.array([1] * 30 + [-1] * 20 + [0] * 150)
    assert (found.layer, found.runner_up, found.images) == ("best", "second", 200)
    assert found.difference == pytest.approx(difference.mean())
    assert found.standard_error == pytest.approx(difference.std() / np.sqrt(200))


def test_probe_seeds_are_pooled():
    one, two = layer_choice([results(30, 20, 100, 50)]), layer_choice([results(30, 20, 100, 50)] * 4)
    assert two.standard_error == pytest.approx(one.standard_error / 2)
    assert two.images == one.images
    unequal = layer_choice([results(30, 20, 100, 50), results(3, 2, 10, 5)])
    assert unequal.images == 20


@pytest.mark.parametrize(
    ("counts", "separated", "noted"),
    [
        ((30, 20, 100, 50), False, True),  # z = 0.05 / 0.035
        ((30, 5, 100, 65), True, False),  # z = 0.125 / 0.028
        ((0, 0, 150, 50), False, True),  # no image tells the layers apart
        ((150, 120, 400, 329), False, True),  # 999 images
        ((150, 120, 400, 330), False, False),  # 1,000 images: enough, whether separated or not
        ((12, 0, 0, 0), True, False),
        ((2, 0, 1, 0), False, True),
    ],
)
def test_a_note_needs_layers_that_are_not_separated_and_few_images(counts, separated, noted):
    found = layer_choice([results(*counts)])
    assert found.separated == separated
    images = f"{sum(counts):,}"
    expected = (
        f"Only {images} held-out images: the choice of layer (best or second) is uncertain; the interval of the "
        "gain covers both."
    )
    assert found.note == found.to_json()["note"] == (expected if noted else "")


def test_equally_good_layers_are_rarely_separated():
    """The best of two is chosen, so 5 % of the intervals at most may be above 0."""
    rng, separated = np.random.default_rng(0), 0
    for _ in range(500):
        difficulty = rng.uniform(0.3, 0.9, 200)
        rows = {name: metrics(torch.from_numpy(rng.random(200) < difficulty)) for name in ("a", "b")}
        separated += layer_choice([rows]).separated
    assert separated / 500 < 0.07


def test_a_single_layer_is_no_choice():
    assert layer_choice([{"only": metrics(torch.ones(5, dtype=torch.bool))}]) is None


def test_the_note_is_below_the_table_and_in_the_json_only_where_the_layers_are_alike():
    class Two(Plain):
        """The second layer has the informative channel, or both have it."""

        alike = True

        def features(self, inputs):
            return {"image": inputs if self.alike else inputs[:, 1:], "mean": inputs.mean((2, 3))}

    class Unlike(Two):
        alike = False

    train, test = half_red(200, 0), half_red(60, 1)
    train.images[:, 1:] = noise(200, 3).images[:, 1:]
    for kind in (Two, Unlike):
        table = probe_layers(kind(), lambda seed, kind=kind: kind(), train, test, size=4, progress=False)
        choice = json.loads(json.dumps(table.to_json()))["layer_choice"]
        assert choice["images"] == 20
        note = "Only 20 held-out images: the choice of layer (image or mean)" if kind.alike else ""
        assert choice["note"].startswith(note)
        assert bool(choice["note"]) == kind.alike == ("held-out images: the choice" in str(render(table).caption))


@pytest.mark.parametrize(
    "probe",
    [
        RidgeProbe(),
        LogisticProbe(costs=(1.0,)),
        SVMProbe(costs=(1.0,)),
        KNNProbe(),
        SGDProbe(epochs=5),
        MLPProbe(epochs=5, hidden=8),
    ],
    ids=lambda probe: name_of(probe),
)
def test_held_out_correctness_is_that_of_the_held_out_images_in_order(probe):
    """With one class label flipped on some held-out images, exactly these become wrong."""
    train, test = half_red(200, 0), half_red(20, 1)
    train.labels[5] = -1
    chosen = held_out(200, 0) & (train.labels >= 0)
    rows = chosen.nonzero().flatten()
    before = probe.evaluate(Plain(), train, test, Viewing(4, CPU), 0, lambda *_: None)
    flipped = rows[::3]
    train.labels[flipped] = 1 - train.labels[flipped]
    after = probe.evaluate(Plain(), train, test, Viewing(4, CPU), 0, lambda *_: None)
    for layer in before:
        assert before[layer].held_correct.dtype == torch.bool
        assert len(before[layer].held_correct) == len(rows)
        changed = before[layer].held_correct != after[layer].held_correct
        assert changed.nonzero().flatten().tolist() == list(range(0, len(rows), 3))
