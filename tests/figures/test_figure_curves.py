import math

import numpy as np
import pytest

from selftaught.figures import curves, svg
from selftaught.figures.curves import running_mean
from selftaught.figures.style import SERIES

LOG = [{"step": 10.0 * n, "seconds": 30.0 * n, "loss": 2.0 / n, "accuracy": 0.1 * n} for n in range(1, 8)]


def test_curves_plot_logged_values_over_steps() -> None:
    axes = curves({"run": LOG}, "accuracy", chance=0.25).axes[0]
    across, up = axes.lines[0].get_data()
    np.testing.assert_allclose(across, [10, 20, 30, 40, 50, 60, 70])
    np.testing.assert_allclose(up, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert axes.lines[1].get_ydata() == [0.25, 0.25]
    assert axes.get_xlabel() == "training steps"
    assert axes.get_ylabel() == "pretext accuracy"
    assert {text.get_text() for text in axes.texts} == {"0.700", "chance 0.250"}


@pytest.mark.parametrize("steps", [2, 6, 7, 2400])
def test_step_ticks_are_at_their_positions(steps: int) -> None:
    figure = curves({"run": [{"step": float(step), "loss": 1.0 / step} for step in range(1, steps + 1)]})
    figure.draw_without_rendering()
    ticks = figure.axes[0].xaxis.get_major_ticks()
    assert [float(tick.label1.get_text().replace(",", "").replace("−", "-")) for tick in ticks] == [
        tick.get_loc() for tick in ticks
    ]


def test_several_runs_are_plotted_over_minutes_in_their_own_colors() -> None:
    axes = curves({"first": LOG, "second": LOG[:3]}, "loss", over="minutes").axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.5, 1, 1.5, 2, 2.5, 3, 3.5])
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [2, 1, 2 / 3])
    assert [line.get_color() for line in axes.lines] == list(SERIES[:2])
    assert {text.get_text(): text.get_color() for text in axes.texts} == {"first": SERIES[0], "second": SERIES[1]}
    assert axes.get_xlabel() == "minutes of training"


def test_nan_losses_leave_a_gap() -> None:
    log = [*LOG, {"step": 80.0, "loss": math.nan}, {"step": 90.0, "loss": math.inf}, {"step": 100.0, "loss": 0.2}]
    axes = curves({"run": log}).axes[0]
    up = np.asarray(axes.lines[0].get_ydata())
    assert np.isnan(up).tolist() == [False] * 7 + [True, True, False]
    assert np.isfinite(axes.get_ylim()).all()


@pytest.mark.parametrize("log", [[], [{"step": 1.0}], [{"step": 1.0, "seconds": 1.0, "loss": math.nan}]])
def test_logs_without_numbers_give_an_empty_chart(log: list[dict[str, float]]) -> None:
    assert svg(curves({"run": log}, chance=0.1)).startswith("<svg")


def test_long_logs_are_plotted_with_their_running_mean() -> None:
    log = [{"step": float(n), "loss": float(n % 2)} for n in range(100)]
    raw, mean = curves({"run": log}).axes[0].lines
    np.testing.assert_array_equal(raw.get_ydata(), [n % 2 for n in range(100)])
    assert np.ptp(np.asarray(mean.get_ydata())) < 0.4
    assert raw.get_alpha() < 0.5


def test_running_mean_equals_brute_force() -> None:
    values = np.random.default_rng(0).random(40)
    values[[3, 4, 5, 6, 7, 20]] = np.nan
    known = [values[max(0, n - 2) : n + 3] for n in range(40)]
    expected = [np.mean(w[~np.isnan(w)]) if (~np.isnan(w)).any() else np.nan for w in known]
    np.testing.assert_allclose(running_mean(values, 2), expected)
