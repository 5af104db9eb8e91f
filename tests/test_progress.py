"""Progress: a bar after a delay on a terminal, plain lines now and then elsewhere."""

import time

import pytest
from rich.console import Console

from selftaught.display import progress
from selftaught.display.progress import Meter, duration, time_left


def run(steps: int, pause: float = 0.0) -> None:
    with Meter("decoding toys", steps) as meter:
        for _ in range(steps):
            time.sleep(pause)
            meter.advance()


class Clock:
    """A clock that is moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def test_a_file_gets_a_plain_line_every_half_minute(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    with Meter("decoding [toys]", 4000) as meter:
        for number in range(80):
            clock.now += 1
            meter.advance(50, f"image {number}" if number > 40 else None)
    assert capfd.readouterr() == (
        "",
        "decoding [toys] 1,500 of 4,000 · 30 s · 50 seconds left\n"
        "decoding [toys] 3,000 of 4,000 · 60 s · 20 seconds left · image 59\n",
    )


def test_plain_lines_may_follow_the_steps_and_go_on_where_they_ended(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    with Meter("step", 50, plain_every=20) as meter:
        meter.begin(10, 7.0)
        for _ in range(10):
            clock.now += 1
            meter.advance(4)
    assert capfd.readouterr().err == (
        "step 22 of 50 · 10 s · 13 seconds left\nstep 42 of 50 · 15 s · 3 seconds left\nstep 50 of 50 · 17 s\n"
    )


def test_short_and_hidden_operations_print_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    run(20)
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.0)
    with Meter("hidden", shown=False) as meter:
        meter.advance()
    assert capfd.readouterr() == ("", "")


def test_terminals_show_a_bar_after_a_delay(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "stderr_console", lambda: Console(stderr=True, force_terminal=True, width=100))
    run(20)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    run(20, pause=0.01)
    out, err = capfd.readouterr()
    assert out == ""
    assert "decoding toys" in err
    assert "/20" in err


def test_counts_are_shown_if_the_total_is_unknown(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "stderr_console", lambda: Console(stderr=True, force_terminal=True, width=100))
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    with Meter("listing toys") as meter:
        for _ in range(3):
            time.sleep(0.15)
            meter.advance(1000)
    assert "2000/?" in capfd.readouterr().err


def test_a_line_is_announced_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_announced", set())
    for line in ("one", "two", "one"):
        progress.announce(line)
    assert capsys.readouterr() == ("", "one\ntwo\n")


def test_durations_are_in_the_largest_unit_with_more_than_one_digit() -> None:
    given = (1.2, 40, 99.4, 100, 99 * 60, 6000, 3600 * 47, 3600 * 48)
    assert [*map(duration, given)] == [
        *("1 second", "40 seconds", "99 seconds", "2 minutes", "99 minutes", "1.7 hours", "47.0 hours", "2.0 days")
    ]


def test_the_time_left_needs_a_total_and_a_finished_part() -> None:
    assert time_left(60, 1, 3) == "2 minutes left"
    assert [time_left(60, 0, 3), time_left(60, 3, 3), time_left(60, 1, None)] == ["", "", ""]
