"""Whatever a stranger puts into a run folder: one sentence or success, and nothing outside is read, written or run."""

import shutil
import signal
from pathlib import Path

import pytest
import torch
from hostile import HAZARDS, SECRET, Outside, commands, require_harmless, watched

from selftaught import cli

COMMANDS = ("report", "compare", "config", "resume", "probe", "invariance", "audit")
NEEDED = {
    "config": ("config", "resume"), "yaml": ("config", "resume"), "aliases": ("config", "resume"),
    "huge": ("config", "resume"), "download": ("config", "resume", "audit"), "private": ("resume",),
    "published": ("config", "resume"), "hub": ("config", "resume"), "checkpoint": ("resume",), ".lock": ("resume",),
    "pickle": ("resume",), "torch": ("resume",), "zip": ("resume",), "lying": ("probe",), "encoder": ("probe",),
    "pickled": ("probe",), "audit": ("audit",), "log": ("resume",), "run.json": ("resume",),
}  # fmt: skip
"""Which commands besides `report` a hazard concerns, by what its name contains."""
RUN_STEPS = [
    (hazard, command)
    for hazard in HAZARDS
    for command in dict.fromkeys(["report", *(c for word, found in NEEDED.items() if word in hazard for c in found)])
]
REST = [(hazard, command) for hazard in HAZARDS for command in COMMANDS if (hazard, command) not in RUN_STEPS]


@pytest.fixture(autouse=True)
def _not_for_ever():
    """A command that waits for a pipe ends the test and not the suite."""

    def stop(number, frame):
        raise TimeoutError("the command hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(90)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def survive(hazard: str, command: str, valid: Path, images: Path, place: Path, capsys, monkeypatch) -> None:
    outside = Outside(place / "outside")
    monkeypatch.setenv("PATH", f"{outside.programs}:/usr/bin:/bin")
    run = Path(shutil.copytree(valid, place / "run"))
    HAZARDS[hazard](run, outside)
    capsys.readouterr()
    with watched() as opened:
        code = cli.main(commands(run, images, place / "new")[command])
    said = capsys.readouterr()
    require_harmless(code, said, outside, opened)
    assert SECRET not in said.out + said.err
    pages = [path for path in run.glob("report.html") if path.is_file() and not path.is_symlink()]
    assert not any(SECRET in page.read_text() or "\x1b" in page.read_text() for page in pages)


@pytest.mark.parametrize(("hazard", "command"), RUN_STEPS)
def test_no_hazard_does_harm(hazard, command, valid, images, tmp_path, capsys, monkeypatch):
    survive(hazard, command, valid, images, tmp_path, capsys, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("hazard", "command"), REST)
def test_no_hazard_does_harm_in_other_commands(hazard, command, valid, images, tmp_path, capsys, monkeypatch):
    survive(hazard, command, valid, images, tmp_path, capsys, monkeypatch)


def test_the_valid_run_passes_every_command(valid, images, tmp_path):
    """Else the tests above would prove nothing."""
    run = Path(shutil.copytree(valid, tmp_path / "run"))
    for command in ("report", "compare", "config", "resume", "audit"):
        assert cli.main(commands(run, images, tmp_path / "new")[command]) == 0


def test_the_marker_leaves_a_trace_where_it_runs(tmp_path):
    from hostile import Marker

    outside = Outside(tmp_path / "outside")
    torch.save(Marker(outside.trace), tmp_path / "x.pt")
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert outside.trace.exists()
