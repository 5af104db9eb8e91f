"""Processes that are stopped, killed, crowded or started in odd surroundings: exit codes, and what is left behind."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import torch

from crash import in_child
from forks import Fork, run_command
from selftaught import cli, pretrain
from selftaught.api.run import Run
from selftaught.errors import UserError

# The forks below happen while torch's threads sleep; see `in_child`.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

TINY = ["--size", "16", "--batch-size", "8", "--width", "8", "--precision", "32", "--threads", "1"]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "selftaught", *map(str, arguments)]


def as_program(*arguments: object) -> int:
    """Run a command as the program would, in this process (which should be a fork)."""
    sys.argv = ["selftaught", *map(str, arguments)]
    return cli.main()


def signalled_at(phase: str, number: int, times: int = 1):
    """Patch a fork so that it sends itself signals when it reaches a phase of a run."""
    from selftaught.api import pretrain as pretraining
    from selftaught.api import session
    from selftaught.config import build
    from selftaught.runs.checkpoint import Checkpoints
    from selftaught.training import loop

    owner, name = {
        "decoding": (pretraining, "build"),
        "planning": (pretraining, "make_plan"),
        "first step": (loop.Trainer, "step"),
        "checkpoint": (Checkpoints, "save"),
        "final writes": (session, "_finalize"),
        "resuming": (build, "build_source"),
    }[phase]
    original, left = getattr(owner, name), [times]

    def patched(*args, **kwargs):
        while left[0]:
            left[0] -= 1
            os.kill(os.getpid(), number)
            time.sleep(0)
        return original(*args, **kwargs)

    setattr(owner, name, patched)


NUMBERS = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP}


def moments() -> list[Any]:
    """Phases and signals; SIGHUP is handled as SIGTERM is, so the default suite has it once."""
    return [
        pytest.param(
            phase, number, id=f"{phase}-{name}",
            marks=[pytest.mark.slow] if name == "SIGHUP" and phase != "first step" else [],
        )
        for phase in ("decoding", "planning", "first step", "checkpoint", "final writes")
        for name, number in NUMBERS.items()
    ]  # fmt: skip


@pytest.mark.parametrize(("phase", "number"), moments())
def test_a_signal_at_any_moment_leaves_nothing_or_a_run_to_resume(images, tmp_path, phase, number):
    out = tmp_path / "new" / "run"
    arguments = ["pretrain", images, "--steps", 5, "--out", out, *TINY]

    def work() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signalled_at(phase, number)
        return as_program(*arguments)

    code, said = in_child(work)
    assert code == 0, said
    if phase in ("decoding", "planning"):
        assert said == str(128 + number)
        assert not (tmp_path / "new").exists()
        return
    if phase == "first step":
        assert said == str(128 + number)
        assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
        assert in_child(lambda: as_program("pretrain", "--resume", "--out", out)) == (0, "0")
    else:  # the last step is done: a stop comes too late to matter
        assert said == "0"
    assert Run(out).finished


def test_a_second_signal_stops_at_once_and_the_run_can_be_resumed(images, tmp_path):
    out = tmp_path / "run"

    def work() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signalled_at("first step", signal.SIGINT, times=2)
        return as_program("pretrain", images, "--steps", 5, "--out", out, *TINY)

    assert in_child(work) == (0, "130")
    assert json.loads((out / "run.json").read_text())["step"] == 0
    assert in_child(lambda: as_program("pretrain", "--resume", "--out", out)) == (0, "0")
    assert Run(out).finished


def test_ignored_signals_stay_ignored(images, tmp_path):
    """As under `nohup`."""

    def work() -> int:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signalled_at("first step", signal.SIGHUP)
        return as_program("pretrain", images, "--steps", 3, "--out", tmp_path / "run", *TINY)

    assert in_child(work) == (0, "0")
    assert Run(tmp_path / "run").finished


def test_a_demo_that_is_interrupted_says_so(tmp_path):
    def work() -> int:
        signalled_at("first step", signal.SIGTERM)
        return as_program("demo", "--minutes", 0.01, "--out", tmp_path / "demo")

    assert in_child(work)[1] == "143"
    assert not (tmp_path / "demo").exists()  # its first steps are those that measure the plan


def test_a_closed_output_pipe_ends_a_command_quietly():
    with subprocess.Popen(command("list", "tasks"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_odd_surroundings(images, tmp_path):
    """Nothing on standard input or output, no home, a strict umask, a working directory that cannot be written."""
    (tmp_path / "cwd").mkdir(mode=0o500)
    (tmp_path / "cache").mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "SELFTAUGHT_CACHE")}

    def surround() -> None:
        os.umask(0o077)
        os.close(0)
        os.close(1)

    process = subprocess.run(
        command("pretrain", images, "--steps", 2, "--out", tmp_path / "run", *TINY),
        stderr=subprocess.PIPE,
        cwd=tmp_path / "cwd",
        env={**environment, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        preexec_fn=surround,
    )
    assert (process.returncode, b"Traceback" in process.stderr) == (0, False), process.stderr
    assert Run(tmp_path / "run").finished
    assert (tmp_path / "run" / "config.yaml").stat().st_mode & 0o777 == 0o600


# What is left of runs that fail


def failing(monkeypatch, error: BaseException) -> None:
    def step(*_: object) -> None:
        raise error

    monkeypatch.setattr("selftaught.training.loop.Trainer.step", step)


@pytest.mark.parametrize("error", [UserError("no."), ValueError("a bug"), torch.OutOfMemoryError("full")])
def test_a_run_that_its_first_step_refuses_leaves_nothing(images, tmp_path, monkeypatch, error):
    failing(monkeypatch, error)
    with pytest.raises(type(error)):
        pretrain(images, out=tmp_path / "new" / "run", size=16, steps=3)
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(type(error)):
        pretrain(images, out=tmp_path / "mine", size=16, steps=3)
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_is_one_sentence(images, tmp_path, monkeypatch, capsys, error):
    failing(monkeypatch, error)
    assert cli.main(["pretrain", str(images), "--steps", "1", "--out", str(tmp_path / "run"), *TINY]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "selftaught: out of memory: reduce --batch-size or --size, or choose another --device."


def test_memory_that_is_really_short_is_one_sentence(images, tmp_path):
    """PyTorch's error for the CPU has no class; its text may change with a version."""

    def work() -> int:
        resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))
        try:
            torch.empty(2**40)
        except RuntimeError as error:
            from selftaught.errors import is_out_of_memory

            return int(is_out_of_memory(error))
        return -1

    assert in_child(work) == (0, "1")


def test_a_run_that_diverges_at_once_says_that_nothing_was_kept(images, tmp_path, capsys):
    out = tmp_path / "run"
    given = [
        "pretrain",
        str(images),
        "--steps",
        "30",
        "--learning-rate",
        "1e9",
        "--optimizer",
        "sgd",
        "--out",
        str(out),
    ]
    assert cli.main([*given, *TINY]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "became" in last
    assert "there was no checkpoint yet" in last
    assert not out.exists()


def test_one_image_per_step_is_refused_where_batch_norm_needs_more(images, tmp_path, capsys):
    given = ["pretrain", str(images), "--steps", "2", "--batch-size", "1", "--size", "32", "--task", "npid"]
    assert cli.main([*given, "--out", str(tmp_path / "new" / "run")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "needs more than one view per step; increase --batch-size" in said[0]
    assert not (tmp_path / "new").exists()
    # A task that shows every image several times trains on one image per step.
    rotation = [word.replace("npid", "rotation") for word in given]
    assert cli.main([*rotation, "--out", str(tmp_path / "run")]) == 0


def test_of_two_runs_in_one_folder_one_wins(images, tmp_path):
    """Both are started at the same time, under a parent that does not exist."""
    out = tmp_path / "new" / "run"
    given = ["pretrain", images, "--steps", 20, "--out", out, *TINY]
    processes = [Fork(run_command, *given) for _ in range(2)]
    said = [process.communicate()[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 2], said
    (loser,) = [text for process, text in zip(processes, said, strict=True) if process.returncode]
    assert "another" in loser
    assert "Traceback" not in loser
    assert Run(out).finished
