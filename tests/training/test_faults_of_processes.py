"""Runs of two processes that are killed, stopped, refused or fail in one of them; each starts real processes."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from processes import environment, finish, free_port, start, started
from selftaught import pretrain
from selftaught.runs.log import read_log

TINY = [
    *("--task", "simclr", "--size", "16", "--batch-size", "8", "--width", "8"),
    *("--precision", "32", "--threads", "1", "--optimizer", "sgd"),
]
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
{patch}
from selftaught import cli
sys.exit(cli.main())
"""

pytestmark = pytest.mark.slow


def begun(images: Path, out: Path, *more: str, patch: str = "", count: int = 2) -> list[subprocess.Popen[str]]:
    options = [*TINY, *more] if "--batch-size" not in more else [*TINY[:4], *TINY[6:], *more]
    program = ["-c", PROGRAM.format(patch=patch), "pretrain", str(images), *options, "--out", str(out)]
    return start(program, count)


def wait_for_steps(out: Path, children: list[subprocess.Popen[str]], more_than: int = 0) -> None:
    until = time.monotonic() + 240
    while not (out / "log.jsonl").exists() or len(read_log(out / "log.jsonl")) <= more_than:
        assert time.monotonic() < until, "no step was logged"
        assert all(child.poll() is None for child in children), finish(children)
        time.sleep(0.1)


def messages(ended: list[tuple[int, str]]) -> list[str]:
    """What was said as an error, by all processes."""
    outputs = "\n".join(output for _, output in ended)
    assert "Traceback" not in outputs, outputs
    return [line for line in outputs.splitlines() if line.startswith("selftaught: ")]


def weights(out: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(out / "encoder.safetensors")


def require_close(one: Path, other: Path) -> None:
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(other)[name], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_others_and_the_run_can_be_resumed(images, tmp_path, killed):
    children = begun(images, tmp_path / "run", "--steps", "4000")
    wait_for_steps(tmp_path / "run", children)
    children[killed].kill()
    at = time.monotonic()
    ended = finish(children, 180)
    assert time.monotonic() - at < 60
    assert ended[1 - killed][0] == 2
    (message,) = messages(ended)
    assert "ended unexpectedly" in message
    assert "--resume" in message
    assert (tmp_path / "run" / "config.yaml").exists()
    before = len(read_log(tmp_path / "run" / "log.jsonl"))
    again = begun(images, tmp_path / "run", "--resume", "--steps", "4000")
    wait_for_steps(tmp_path / "run", again, before)
    again[0].send_signal(signal.SIGTERM)
    assert [code for code, _ in finish(again)] == [143, 143]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("receiver", [0, 1])
def test_a_signal_to_one_process_stops_all_after_the_same_step(images, tmp_path, number, receiver):
    children = begun(images, tmp_path / "run", "--steps", "4000")
    wait_for_steps(tmp_path / "run", children)
    children[receiver].send_signal(number)
    ended = finish(children, 180)
    assert [code for code, _ in ended] == [128 + number] * 2
    assert messages(ended) == []
    assert sum(output.count("interrupted after step") for _, output in ended) == 1
    status = json.loads((tmp_path / "run" / "run.json").read_text())
    assert status["status"] == "interrupted"
    assert status["step"] > 0
    assert (tmp_path / "run" / "checkpoint" / "last.pt").exists()


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_run_can_be_resumed_on_another_number_of_processes(images, tmp_path, first, then):
    def interrupted_at(step: int) -> str:
        return (
            "from selftaught.training.interruption import Stop\n"
            "steps = iter(range(1, 1000))\n"
            f"Stop.agreed = lambda self: next(steps) == {step} and (self.request() or True)"
        )

    assert [code for code, _ in finish(begun(images, tmp_path / "whole", "--steps", "8", count=1))] == [0]
    parts = begun(images, tmp_path / "parts", "--steps", "8", patch=interrupted_at(3), count=first)
    assert {code for code, _ in finish(parts)} == {0}
    assert json.loads((tmp_path / "parts" / "run.json").read_text())["step"] == 3
    rest = begun(images, tmp_path / "parts", "--steps", "8", "--resume", count=then)
    assert {code for code, _ in finish(rest)} == {0}
    assert len(read_log(tmp_path / "parts" / "log.jsonl")) == 8
    require_close(tmp_path / "whole", tmp_path / "parts")


def test_a_second_run_in_the_same_folder_is_refused(images, tmp_path):
    children = begun(images, tmp_path / "run", "--steps", "4000")
    wait_for_steps(tmp_path / "run", children)
    second = finish(begun(images, tmp_path / "run", "--steps", "10"), 240)
    assert [code for code, _ in second] == [2, 2]
    (message,) = messages(second)
    assert "contains another run" in message
    resumed = finish(begun(images, tmp_path / "run", "--resume", "--steps", "4000"), 240)
    assert [code for code, _ in resumed] == [2, 2]
    (message,) = messages(resumed)
    assert "another process is training" in message
    children[1].send_signal(signal.SIGTERM)
    assert [code for code, _ in finish(children)] == [143, 143]


BROKEN_IMAGE = """
import os
from selftaught.data.stored import Stored
from selftaught.errors import UserError
batch, calls = Stored.batch, iter(range(100000))
def broken(self, indices, device):
    if os.environ["RANK"] == "1" and next(calls) == 20:
        raise UserError("cannot read image 7.")
    return batch(self, indices, device)
Stored.batch = broken
"""
FULL_DISK = """
from selftaught.errors import StorageError
from selftaught.runs.checkpoint import Checkpoints
def full(self, state):
    raise StorageError("cannot write a checkpoint: no space left on device.")
Checkpoints.save = full
"""


@pytest.mark.parametrize(("patch", "text"), [(BROKEN_IMAGE, "cannot read image 7"), (FULL_DISK, "no space left")])
def test_an_error_in_one_process_ends_all_with_one_message(images, tmp_path, patch, text):
    ended = finish(begun(images, tmp_path / "run", "--steps", "30", patch=patch), 240)
    assert [code for code, _ in ended] == [2, 2]
    (message,) = messages(ended)
    assert text in message


@pytest.mark.parametrize(
    ("more", "text"),
    [(["--batch-size", "7"], "try --batch-size 6 or 8"), (["--learning-rate", "-1"], "must be above 0")],
)
def test_a_mistake_is_reported_once(images, tmp_path, more, text):
    ended = finish(begun(images, tmp_path / "run", "--steps", "3", *more), 240)
    assert [code for code, _ in ended] == [2, 2]
    (message,) = messages(ended)
    assert text in message
    assert not (tmp_path / "run").exists()


def test_minutes_are_planned_by_all_processes_together(images, tmp_path):
    ended = finish(begun(images, tmp_path / "run", "--minutes", "0.02"), 240)
    assert [code for code, _ in ended] == [0, 0], ended
    status = json.loads((tmp_path / "run" / "run.json").read_text())
    assert status["processes"] == 2
    assert status["steps"] == len(read_log(tmp_path / "run" / "log.jsonl"))


def test_the_function_works_in_a_script_that_trains_twice(images, tmp_path):
    program = (
        "import selftaught, sys\n"
        "for number in (1, 2):\n"
        f"    run = selftaught.pretrain({str(images)!r}, steps=3, size=16, batch_size=8, width=8, precision='32',\n"
        f"                              out={str(tmp_path)!r} + f'/{{number}}')\n"
        "    assert run.finished"
    )
    ended = finish(start(["-c", program], 2), 240)
    assert [code for code, _ in ended] == [0, 0], ended
    alone = pretrain(images, steps=3, size=16, batch_size=8, width=8, precision="32", out=tmp_path / "alone")
    require_close(alone.path, tmp_path / "2")


def test_slurm_starts_processes_and_puts_the_job_back(images, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/requeued\n')
    (tools / "scontrol").chmod(0o755)
    children, port = [], free_port()
    for rank in range(2):
        place = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_STEP_NUM_TASKS": 2, "SLURM_JOB_ID": 4242}
        nodes = {"SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_ID": 0, "MASTER_PORT": port}
        variables = environment(0, 1, 0, PATH=f"{tools}{os.pathsep}{os.environ['PATH']}")
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            del variables[name]
        variables |= {name: str(value) for name, value in (place | nodes).items()}
        program = ["-c", PROGRAM.format(patch=""), "pretrain", str(images), *TINY, "--out", str(tmp_path / "run")]
        children.append(started([*program, "--steps", "4000"], variables))
    wait_for_steps(tmp_path / "run", children)
    for child in children:
        child.send_signal(signal.SIGUSR1)
    assert [code for code, _ in finish(children)] == [138, 138]
    assert (tmp_path / "requeued").read_text() == "requeue 4242\n"
