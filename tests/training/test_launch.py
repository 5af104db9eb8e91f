"""The place of a process from the variables of torchrun and Slurm; the commands that only one process may run."""

import signal

import pytest

from selftaught import cli
from selftaught.training.interruption import Stop
from selftaught.training.launch import Launch, launch, requeue

TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "29500",
    "TORCHELASTIC_RESTART_COUNT": "2", "TORCHELASTIC_USE_AGENT_STORE": "True",
}  # fmt: skip
SRUN = {
    "SLURM_JOB_ID": "1234567", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_NTASKS": "4",
}  # fmt: skip


def test_a_process_of_torchrun_has_its_place():
    assert launch(TORCHRUN) == Launch(5, 8, 1, "node0", 29500, "2", has_store=True)
    assert launch({**TORCHRUN, **SRUN}) == launch(TORCHRUN)  # torchrun started by srun on each node


def test_a_task_of_srun_has_its_place():
    found = launch(SRUN)
    assert (found.rank, found.count, found.local_rank) == (3, 4, 1)
    assert (found.address, found.port, found.has_store) == ("gpu[07-08]", 19567, False)
    assert launch({**SRUN, "MASTER_ADDR": "gpu07", "MASTER_PORT": "77"}).address == "gpu07"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**TORCHRUN, "WORLD_SIZE": "1"},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1"},
        # A batch script, before srun: the first task's variables but those of a step.
        {name: value for name, value in SRUN.items() if "STEP" not in name},
    ],
)
def test_a_single_process_has_none(environment):
    assert launch(environment) is None


@pytest.mark.parametrize(
    ("number", "job", "expected"),
    [(signal.SIGUSR1, "77", "requeue 77\n"), (signal.SIGTERM, "77", ""), (None, "77", ""), (signal.SIGUSR1, None, "")],
)
def test_only_the_warning_of_slurm_requeues_the_job(monkeypatch, tmp_path, number, job, expected):
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    if job is None:
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    else:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    assert requeue(number) == bool(expected)
    called = tmp_path / "called"
    assert (called.read_text() if called.exists() else "") == expected


def test_a_job_without_scontrol_is_not_requeued(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert not requeue(signal.SIGUSR1)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("command", ["audit", "report"])
def test_other_commands_are_refused_by_the_first_of_several_processes(monkeypatch, capsys, command, rank):
    for name, value in {**TORCHRUN, "RANK": str(rank)}.items():
        monkeypatch.setenv(name, value)
    assert cli.main([command, "somewhere"]) == 2
    said = capsys.readouterr().err
    assert said == (
        "" if rank else f"selftaught: `selftaught {command}` runs in one process: start it without torchrun or srun.\n"
    )


def test_a_single_process_stops_when_asked():
    stop = Stop()
    assert not stop.agreed()
    stop.request(signal.SIGUSR1)
    assert stop.agreed()
    assert stop.exit_code == 128 + signal.SIGUSR1
    stop = Stop()
    stop.request()
    assert stop.agreed()
    assert stop.exit_code == 0
