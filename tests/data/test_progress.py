"""The progress bar: hidden without a terminal, shown after a delay on one."""

import time

import pytest
from rich.console import Console

from selftaught.display import progress
from selftaught.display.progress import Meter


def run(steps: int, pause: float = 0.0) -> None:
    with Meter("decoding toys", steps) as meter:
        for _ in range(steps):
            time.sleep(pause)
            meter.advance()


def test_nothing_is_printed_to_a_file(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    run(20)
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
