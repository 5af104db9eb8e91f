"""Runs of a study as jobs, on this machine in place of a cluster."""

import contextlib
import functools
import json
import signal
from types import SimpleNamespace

import pytest
from tiny_study import written

from selftaught.cli import main
from selftaught.errors import UserError
from selftaught.studies import slurm, study
from selftaught.studies.slurm import parse_options, run_on_slurm
from selftaught.studies.study import Options, run_study
from selftaught.training.interruption import Stop

pytest.importorskip("submitit")


@pytest.fixture
def local(monkeypatch, quick):
    """Jobs are processes of this machine, canceled by SIGINT, which shells let background jobs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(study, "run_on_slurm", functools.partial(run_on_slurm, cluster="local"))
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # submitit does not close the files of a canceled process
def test_a_stop_cancels_the_jobs_and_the_command_continues_to_the_page_of_runs_in_this_process(images, tmp_path, local):
    file, stop = written(tmp_path, images), Stop()
    options = {"seeds": 1, "threads": 1}
    here = run_study(file, Options(**options), tmp_path / "here")
    stop.request()
    slurm = Options(**options, jobs=2, slurm=["partition=any"])
    assert run_study(file, slurm, tmp_path / "jobs", stop) is None
    jobs = run_study(file, slurm, tmp_path / "jobs")
    outcomes = [json.loads((page.parent / "outcome.json").read_text())["comparisons"] for page in (here, jobs)]
    assert outcomes[0] == outcomes[1]
    assert "--jobs 2 --slurm 'partition=any'" in jobs.read_text()


class FailedJobs:
    """An executor whose jobs have failed."""

    def batch(self):
        return contextlib.nullcontext()

    def submit(self, job):
        return SimpleNamespace(
            done=lambda: True,
            exception=lambda: None,
            result=lambda: {"error": "all-0: a reason."},
            cancel=lambda **_: None,
        )


def test_a_failed_run_is_one_sentence(images, tmp_path, quick, monkeypatch):
    monkeypatch.setattr(slurm, "_executor", lambda *_: FailedJobs())
    with pytest.raises(UserError, match=r"^all-0: a reason\.$"):
        run_study(written(tmp_path, images), Options(seeds=1, threads=1, slurm=()), tmp_path / "out")


@pytest.mark.parametrize(
    "option", ["gpu", "=3", "partition=", "--partition=gpu", "a b=c", "time=4:00", "time=0", "x=1\n#SBATCH"]
)
def test_options_that_sbatch_does_not_take(option):
    with pytest.raises(UserError, match="--slurm"):
        parse_options([option])


def test_a_machine_without_slurm(images, tmp_path, quick, capsys):
    command = ["study", written(tmp_path, images), "--out", str(tmp_path / "out"), "--slurm", "partition=gpu"]
    assert main(command) == 2
    assert "needs the command sbatch" in capsys.readouterr().err
