from typing import Any

import pytest
from fake_runs import GOOD, probe

from selftaught.report.verdict import judge


def gained(value: float, margin: float = 0.01, **changes: Any) -> dict[str, Any]:
    """A probe of one layer that gains so much over random weights at 0.5."""
    gain = {"layer": "last", "random_layer": "last", "value": value, "low": value - margin, "high": value + margin}
    return probe([0.5 + value], [0.5], layers=["last"], gain=gain, **changes)


def test_gain_compares_best_layer_with_best_random_layer() -> None:
    verdict = judge(GOOD)
    assert (verdict.best, verdict.accuracy, verdict.random) == ("layer3", 0.723, 0.563)  # random is best at layer2
    assert verdict.outcome == "helped"
    assert verdict.sentence == (
        "Pretraining helped: +0.160 top-1 accuracy over random weights (95 % interval +0.150 to +0.170) on 10,000 test "
        "images of cifar10. Accuracy: 0.723 at the best layer (layer3, chosen by held-out accuracy); random weights "
        "0.563 (layer2, mean of 3 initializations); raw pixels 0.402; chance 0.100. One pretraining run: variation "
        "between runs is not included."
    )


def test_further_baselines_are_in_the_sentence() -> None:
    rows = [{"title": "k-means initialization", "layer": "layer2", "accuracy": acc} for acc in (0.6, 0.9)]
    verdict = judge(GOOD | {"baselines": rows})
    said = "k-means initialization (layer2) 0.600; k-means initialization (layer2) 0.900, above the best layer; raw"
    assert said in verdict.sentence


def test_the_best_layer_is_the_one_chosen_on_held_out_images_not_the_best_on_test_images() -> None:
    chosen = {"layer": "layer1", "random_layer": "layer4", "value": 0.123, "low": 0.1, "high": 0.14}
    verdict = judge(GOOD | {"gain": chosen})
    assert (verdict.best, verdict.accuracy, verdict.random, verdict.gain) == ("layer1", 0.601, 0.478, 0.123)


def test_probes_with_layers_chosen_on_test_images_have_no_verdict() -> None:
    earlier = {key: value for key, value in GOOD.items() if key != "gain"}
    verdict = judge(earlier)
    assert (verdict.outcome, verdict.gain, verdict.best) == ("unknown", None, "n.a.")
    assert "is from an earlier version. Run the probe again." in verdict.sentence
    assert "None" not in verdict.sentence


def test_published_weights_that_were_not_probed_give_no_verdict() -> None:
    verdict = judge(GOOD, published=True)
    assert verdict.outcome == "unknown"
    assert verdict.sentence.startswith(
        "Gain of pretraining unknown: it started from published weights, which were not probed. Accuracy: 0.723"
    )


@pytest.mark.parametrize(
    ("gain", "outcome"), [(0.03, "helped"), (0.009, "unclear"), (-0.009, "unclear"), (-0.03, "hurt")]
)
def test_verdict_follows_the_interval(gain: float, outcome: str) -> None:
    verdict = judge(gained(gain))
    assert verdict.outcome == outcome
    claim = {"helped": "Pretraining helped: +", "unclear": "No significant gain: ", "hurt": "Pretraining hurt: -"}[
        outcome
    ]
    assert verdict.sentence.startswith(claim)
    assert "variation between runs is not included" in verdict.sentence
    assert "too few" not in verdict.sentence


@pytest.mark.parametrize(
    ("baseline", "subject", "single"),
    [
        ("", "Pretraining helped: ", "One pretraining run: variation between runs is not included."),
        ("kmeans", "K-means initialization helped: ", "One seed: variation between seeds is not included."),
        ("random", "This random initialization helped: ", "One seed: variation between seeds is not included."),
        ("timm:r18", "Published weights helped: ", "One pretraining run: variation between runs is not included."),
    ],
)
def test_the_gain_is_attributed_to_what_was_probed(baseline: str, subject: str, single: str) -> None:
    sentence = judge(GOOD, baseline=baseline).sentence
    assert sentence.startswith(f"{subject}+0.160 top-1 accuracy over random weights")
    assert sentence.endswith(single)


def test_small_test_sets_are_reported_with_two_digits() -> None:
    few = judge(gained(0.1667, 0.4, test=6))
    assert few.outcome == "unclear"
    assert "6 test images are too few: the 95 % interval is ±0.40." in few.sentence
    assert "+0.17 top-1 accuracy" in few.sentence
    assert "0.667" not in few.sentence


def test_raw_pixels_above_the_best_layer_are_reported() -> None:
    assert "raw pixels 0.402, above the best layer" in judge(probe([0.35] * 4, [0.3] * 4)).sentence
    assert "above the best layer" not in judge(GOOD).sentence


def test_missing_values_give_no_gain() -> None:
    for missing in (None, float("nan"), "many"):
        broken = {"layer": "layer1", "random_layer": "layer1", "value": missing, "low": missing, "high": missing}
        verdict = judge(GOOD | {"gain": broken, "pixels": missing, "chance": None})
        assert (verdict.outcome, verdict.gain) == ("unknown", None)
        assert "nan" not in verdict.sentence
