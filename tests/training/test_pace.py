"""A run that turns out slower or faster than planned says so, once per change, and never for a single slow step."""

import io
import json

import pytest
import torch
from rich.console import Console

from selftaught.training import log as log_module
from selftaught.training.log import Log
from selftaught.training.pace import PaceMonitor, planned_pace

STEPS, MINUTES, PLANNED = 4800, 8, 0.1


def reported(paces: list[float], every: int = 12, start: tuple[int, float] = (0, 0.0), **options) -> list[tuple]:
    """What is said, and at which step, of a run whose steps take these seconds."""
    monitor = PaceMonitor(STEPS, MINUTES, PLANNED, **options)
    step, seconds = start
    monitor.begin(step, seconds)
    found = []
    for pace in paces:
        step, seconds = step + 1, seconds + pace
        if step % every == 0 and (said := monitor.update(step, seconds)):
            found.append((step, said))
    return found


def test_as_planned_or_nearly_so_nothing_is_said():
    assert reported([PLANNED] * STEPS) == []
    assert reported([1.3 * PLANNED, PLANNED] * (STEPS // 2)) == []


def test_a_busy_machine_is_reported_once_with_the_new_total():
    ((step, said),) = reported([2.2 * PLANNED] * STEPS)
    assert step <= STEPS / 20
    assert said == "slower than planned: about 18 minutes in all instead of 8"


def test_the_total_counts_what_has_passed():
    ((step, said),) = reported([PLANNED] * 2400 + [3 * PLANNED] * 2400)
    assert 2400 < step <= 2400 + STEPS / 20
    assert said == "slower than planned: about 16 minutes in all instead of 8"


def test_each_change_is_reported():
    assert [said for _, said in reported([0.2] * 1200 + [0.1] * 1200 + [0.05] * 2400)] == [
        "slower than planned: about 16 minutes in all instead of 8",
        "back to the planned speed: about 10 minutes in all instead of 8, because earlier steps were slower",
        "faster than planned: about 8 minutes in all, as planned",
    ]


def test_only_the_planned_speed_is_called_so():
    slower, less = (said for _, said in reported([0.2] * 1200 + [0.125] * 3600))
    assert slower == "slower than planned: about 16 minutes in all instead of 8"
    assert less == "slower than planned: about 11 minutes in all instead of 8"


def test_a_total_as_planned_is_called_so():
    """1,600 steps take half of the planned time, 800 take twice as long as planned."""
    *_, (_, said) = reported([0.05] * 1600 + [0.2] * 800 + [0.1] * 2400)
    assert said == "back to the planned speed: about 8 minutes in all, as planned"


@pytest.mark.parametrize("period", [48, 96, 144, 240, 480])
def test_a_speed_that_varies_all_the_time_is_reported_rarely(period):
    """Alternating between the planned speed and half of it, as beside a job that comes and goes."""
    said = [text for _, text in reported(([0.1] * period + [0.2] * period) * (STEPS // period // 2))]
    assert len(said) <= 5


def test_a_slow_step_or_slow_checkpoints_say_nothing():
    paces = [PLANNED] * STEPS
    paces[700] = 60.0
    assert reported(paces) == []
    for step in range(599, STEPS, 600):
        paces[step] = 5.0  # a checkpoint every minute
    assert reported(paces) == []


def test_the_preparation_of_epochs_is_part_of_the_plan():
    """Of an epoch of 300 steps half of the time goes into clustering before the first."""
    paces = [0.05] * STEPS
    for step in range(0, STEPS, 300):
        paces[step] += 15.0
    assert reported(paces, span=300) == []
    ((_, said),) = reported([2 * pace for pace in paces], span=300)
    assert said.startswith("slower than planned: about 16 minutes")


def test_lines_much_shorter_than_a_second_are_not_compared_one_by_one():
    monitor = PaceMonitor(400, 1 / 60, 0.0025)
    assert not any(monitor.update(step, 0.004 * step) for step in range(1, 401))


def test_a_resumed_run_says_it_again():
    """A run of which half was done at twice the planned time is resumed on a machine that is as slow."""
    ((_, said),) = reported([2 * PLANNED] * 2400, start=(2400, 480.0))
    assert said == "slower than planned: about 16 minutes in all instead of 8"


@pytest.mark.parametrize(("preparation", "span"), [(0.0, 48), (0.5, 48), (5.0, 200)])
def test_measurements_cover_an_epoch_where_its_preparation_takes_long(preparation, span):
    status = {"minutes": 8, "seconds_per_step": 0.1, "seconds_per_epoch": preparation}
    assert planned_pace(status, STEPS, 200).span == span


def test_without_planned_minutes_nothing_is_compared():
    assert planned_pace({"minutes": None, "seconds_per_step": None}, STEPS, 100) is None
    assert planned_pace({}, STEPS, 100) is None


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("resumed", [0, 200])
def test_it_is_written_once_whether_or_not_there_is_a_terminal(tmp_path, monkeypatch, terminal, resumed):
    now = 0.0
    monkeypatch.setattr(log_module, "monotonic", lambda: now)
    path, output = tmp_path / "log.jsonl", io.StringIO()
    path.write_text(json.dumps({"step": resumed, "seconds": 2.0 * resumed}) + "\n")
    console = Console(file=output, force_terminal=terminal, width=200, highlight=False)
    with Log(path, 400, 8, {}, 4, console, PaceMonitor(400, 400 / 60, 1.0)) as log:
        log.begin(resumed)
        for step in range(resumed + 4, 401, 4):
            now += 8.0
            log.write(step, {"loss": torch.tensor(1.0)}, 0.1)
    assert output.getvalue().count("slower than planned: about 13 minutes in all instead of 6.7") == 1
