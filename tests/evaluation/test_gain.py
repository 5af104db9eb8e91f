"""Intervals of paired differences, against exact tests and simulation."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm
from scipy.stats import t as student

from selftaught.evaluation.gain import best_layer, gain_over_random
from selftaught.evaluation.intervals import paired_interval
from selftaught.evaluation.metrics import LayerMetrics


def sides(both: int, ours: int, theirs: int, neither: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Correctness of one repetition each: how many images both, one or none classify correctly."""
    first = [True] * both + [True] * ours + [False] * theirs + [False] * neither
    second = [True] * both + [False] * ours + [True] * theirs + [False] * neither
    return torch.tensor([first]), torch.tensor([second])


def test_an_interval_that_excludes_zero_has_a_small_exact_p_value():
    """McNemar's exact test: of the images on which the sides differ, each is as likely right."""
    excluded = 0
    for count in (2, 3, 5, 6, 8, 12, 20, 40):
        for ours in range(count + 1):
            for theirs in range(count + 1 - ours):
                low, high = paired_interval(*sides(0, ours, theirs, count - ours - theirs))
                if not low <= 0 <= high:
                    excluded += 1
                    assert binomtest(ours, ours + theirs).pvalue < 0.08
    assert excluded > 100


def test_many_images_have_the_normal_interval():
    low, high = paired_interval(*sides(50_000, 12_000, 10_000, 28_000))
    difference, count = 0.02, 100_000
    margin = norm.ppf(0.975) * np.sqrt((0.22 - difference**2) / count)
    assert (low, high) == pytest.approx((difference - margin, difference + margin), abs=1e-5)


def test_pairing_makes_the_interval_narrower_than_that_of_two_independent_samples():
    low, high = paired_interval(*sides(6000, 500, 400, 3100))
    independent = norm.ppf(0.975) * np.sqrt(0.65 * 0.35 / 10_000 + 0.64 * 0.36 / 10_000)
    assert (high - low) / 2 < 0.5 * independent


def test_sides_that_never_differ_on_six_images_decide_nothing():
    low, high = paired_interval(*sides(3, 0, 0, 3))
    assert low == pytest.approx(-high)
    assert 0.3 < high < 0.6


@pytest.mark.parametrize("count", [10, 50, 400])
def test_coverage_with_three_initializations(count):
    """Initializations differ in their true accuracy; the interval is of the difference to their mean."""
    rng = np.random.default_rng(0)
    covered, trials = 0, 1000
    for _ in range(trials):
        difficulty = rng.uniform(-0.3, 0.3, count)  # shared by the sides: what pairing exploits
        levels = np.concatenate([[0.7], 0.6 + 0.03 * rng.standard_normal(3)])
        correct = torch.from_numpy(rng.random((4, count)) < np.clip(levels[:, None] + difficulty, 0, 1))
        low, high = paired_interval(correct[:1], correct[1:])
        covered += low <= 0.1 <= high
    assert covered / trials > 0.93


def draws(rng: np.random.Generator, count: int, own: float, shared: float = 0.05, repetitions: int = 5):
    """Two sides with a true difference of 0.1: accuracies vary with the draw, by `shared` on both sides together and by
    `own` on each side, and with the image."""
    difficulty = rng.uniform(-0.2, 0.2, count)
    together = shared * rng.standard_normal((repetitions, 1))
    return tuple(
        torch.from_numpy(
            rng.random((repetitions, count))
            < level + together + own * rng.standard_normal((repetitions, 1)) + difficulty
        )
        for level in (0.6, 0.5)
    )


def test_the_variance_is_that_over_images_plus_that_over_draws():
    ours, theirs = draws(np.random.default_rng(0), 5000, own=0.02)
    difference = ours.numpy().astype(float) - theirs.numpy()
    over_images, over_draws = difference.mean(0).var() / 5000, difference.mean(1).var(ddof=1) / 5
    freedom = (over_images + over_draws) ** 2 / (over_images**2 / 4999 + over_draws**2 / 4)
    margin = student.ppf(0.975, freedom) * np.sqrt(over_images + over_draws)
    low, high = paired_interval(ours, theirs, by_repetition=True)
    assert (low, high) == pytest.approx((difference.mean() - margin, difference.mean() + margin), rel=0.01)


def test_draws_that_change_both_sides_alike_do_not_widen_the_paired_interval():
    """Perfectly correlated draws: in draw k, both sides lose the same images."""
    lost = torch.arange(4000)[None] < torch.tensor([0, 800, 1600, 400, 1200])[:, None]
    better, worse = torch.arange(4000) % 10 < 8, torch.arange(4000) % 10 < 7
    ours, theirs = better & ~lost, worse & ~lost
    (low, high), (wide_low, wide_high) = (paired_interval(ours, theirs, paired) for paired in (True, False))
    assert high - low < 0.2 * (wide_high - wide_low)
    assert low < float(ours.double().mean() - theirs.double().mean()) < high


def test_one_repetition_and_identical_repetitions_are_the_same_either_way():
    first, second = sides(60, 20, 10, 30)
    for count in (1, 4):
        ours, theirs = first.expand(count, -1), second.expand(count, -1)
        assert paired_interval(ours, theirs, True) == pytest.approx(paired_interval(ours, theirs))


@pytest.mark.parametrize("own", [0.0, 0.02, 0.05])
@pytest.mark.parametrize("repetitions", [3, 5])
def test_coverage_with_paired_draws(own, repetitions):
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        low, high = paired_interval(*draws(rng, 300, own, repetitions=repetitions), by_repetition=True)
        covered += low <= 0.1 <= high
    assert covered / 500 > 0.93


def test_initializations_that_differ_widen_the_interval():
    ours = torch.ones(1, 1000, dtype=torch.bool)
    alike = torch.arange(1000).remainder(2).bool().expand(3, -1)
    spread = torch.stack([torch.arange(1000) < 1000 * level for level in (0.3, 0.5, 0.7)])
    widths = [high - low for low, high in (paired_interval(ours, theirs) for theirs in (alike, spread))]
    assert widths[1] > 4 * widths[0]


def result(correct: list[bool], held_out: float) -> LayerMetrics:
    return LayerMetrics(torch.tensor(correct), torch.arange(10) < 10 * held_out, 1, None, torch.zeros(2, 2), None, None)


def test_layers_are_chosen_by_held_out_accuracy_on_either_side():
    trained = [{"first": result([True, True], 0.4), "last": result([True, False], 0.9)}]
    random = [
        {"first": result([False, False], 0.8), "last": result([True, True], 0.2)},
        {"first": result([False, True], 0.3), "last": result([True, True], 0.7)},
    ]
    gain = gain_over_random(trained, random)
    assert (gain.layer, gain.random_layer) == ("last", "first")
    assert gain.value == 0.5 - 0.25
    assert best_layer([{"a": result([True], 0.5), "b": result([True], 0.5)}]) == "a"


def net(rng: np.random.Generator, levels: tuple[float, ...], held: int, test: int) -> dict[str, LayerMetrics]:
    """A probe with layers of these accuracies."""
    correct = {str(level): torch.from_numpy(rng.random(held + test) < level) for level in levels}
    return {
        name: LayerMetrics(rows[held:], rows[:held], 1, None, torch.zeros(2, 2), None, None)
        for name, rows in correct.items()
    }


@pytest.mark.parametrize("levels", [(0.46, 0.50, 0.47), (0.5, 0.5001)])
def test_random_weights_rarely_gain_over_random_weights_when_few_held_out_images_choose_the_layers(levels):
    """Intervals of the chosen layers alone excluded zero in a quarter of these cases where the layers differ."""
    rng, excluded, trials = np.random.default_rng(0), 0, 60
    for _ in range(trials):
        trained, *random = (net(rng, levels, 100, 4000) for _ in range(4))
        gain = gain_over_random([trained], random)
        excluded += not gain.low <= 0 <= gain.high
    assert excluded / trials <= 0.07


def test_the_interval_covers_the_layers_that_held_out_images_leave_open():
    rng = np.random.default_rng(0)
    trained, random = net(rng, (0.2, 0.7, 0.71), 300, 3000), net(rng, (0.3, 0.6), 300, 3000)
    gain = gain_over_random([trained], [random])
    assert (gain.layers, gain.random_layers) == (("0.7", "0.71"), ("0.6",))
    intervals = [paired_interval(trained[name].correct[None], random["0.6"].correct[None]) for name in gain.layers]
    assert (gain.low, gain.high) == (min(low for low, _ in intervals), max(high for _, high in intervals))
    assert gain.value == trained[gain.layer].accuracy - random["0.6"].accuracy
