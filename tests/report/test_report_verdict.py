import math

import pytest
from fake_runs import GOOD, probe

from selftaught.report.verdict import judge


def test_a_clear_gain_compares_best_with_best() -> None:
    verdict = judge(GOOD)
    assert (verdict.best, verdict.accuracy, verdict.random) == ("layer3", 0.723, 0.563)  # random is best at layer2
    assert verdict.kind == "helped"
    assert verdict.sentence == (
        "Pretraining helped, by 0.160: the best layer, layer3, reads 0.723 of the test images of cifar10 right; "
        "random weights of the same encoder 0.563 at their best; raw pixels 0.402; chance 0.100."
    )


def test_published_weights_may_be_who_gained() -> None:
    verdict = judge(GOOD, published=True)
    assert verdict.kind == "unknown"
    assert verdict.sentence.startswith(
        "What this pretraining added to the published weights that it began with is not known: the best layer, layer3,"
    )


def test_random_weights_that_read_better_are_said_to() -> None:
    verdict = judge(probe([0.4, 0.5, 0.5, 0.4], [0.5, 0.6, 0.5, 0.5]))
    assert verdict.kind == "hurt"
    assert verdict.gain == pytest.approx(-0.1)
    assert verdict.sentence.startswith("Pretraining did not help, as random weights read better by 0.100: ")


@pytest.mark.parametrize(("gain", "kind"), [(0.03, "helped"), (0.02, "unclear"), (-0.02, "unclear"), (-0.03, "hurt")])
def test_the_margin_is_two_standard_errors_of_the_difference(gain: float, kind: str) -> None:
    # n = 10,000 and p near 0.5: the binomial error of one accuracy is 0.005; the spreads are 0.006 and 0.008.
    layers = [{"layer": "last", "accuracy": 0.5 + gain, "std": 0.006, "random": 0.5, "random_std": 0.008}]
    verdict = judge({"data": "d", "test": 10000, "layers": layers})
    expected = 2 * math.sqrt((0.5 + gain) * (0.5 - gain) / 10000 + 0.25 / 10000 + 0.006**2 + 0.008**2)
    assert verdict.margin == pytest.approx(expected)
    assert 0.0240 < expected < 0.0250
    assert verdict.kind == kind


def test_few_test_images_make_a_gain_unclear() -> None:
    few = judge(probe([0.60], [0.55], layers=["last"], test=100))
    assert few.kind == "unclear"
    assert "within the noise" in few.sentence
    assert judge(probe([0.60], [0.55], layers=["last"], test=10000)).kind == "helped"


def test_pixels_that_beat_every_layer_are_said_to() -> None:
    assert "raw pixels 0.402, more than any layer" in judge(probe([0.35] * 4, [0.3] * 4)).sentence
    assert "more than any layer" not in judge(GOOD).sentence


def test_without_random_weights_no_gain_is_claimed() -> None:
    verdict = judge(probe([0.6, 0.7, 0.65, 0.6], [None] * 4))
    assert (verdict.kind, verdict.gain, verdict.random) == ("unknown", None, None)
    assert verdict.sentence.startswith("What pretraining gave is not known")


def test_missing_numbers_never_win() -> None:
    verdict = judge(probe([math.nan, 0.3, math.nan, 0.2], [None, 0.1, math.nan, 0.25]))
    assert (verdict.best, verdict.accuracy, verdict.random) == ("layer2", 0.3, 0.25)
    assert "nothing can be said" in judge(probe([math.nan] * 4, [0.1] * 4)).sentence
