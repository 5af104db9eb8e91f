"""A complete collapse is reported, a healthy task is not, and nothing of the training changes."""

import io
from dataclasses import replace

import pytest
import torch
from modern_toys import VICReg
from rich.console import Console
from test_wrong_tasks import InvarianceAlone

from selftaught.contracts import evenly_spaced
from selftaught.evaluation.monitor import FeatureMonitor
from selftaught.pretext.autoencoder import Autoencoder
from selftaught.pretext.rotation import Rotation
from selftaught.runs.checkpoint import Checkpoints
from selftaught.runs.log import read_log
from selftaught.training.log import Log
from selftaught.training.loop import Pretraining, Trainer, train
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import make_fabric
from selftaught.training.randomness import seeded_rng
from toys import ToyEncoder, ToySource

CPU = torch.device("cpu")


def go(
    task, folder, steps: int = 60, rate: float = 0.03, watched: bool = True, images: int = 64
) -> tuple[Pretraining, str]:
    """Train; returns the run and what was printed by the monitor."""
    source, told = ToySource(images), io.StringIO()
    with seeded_rng(0, "weights"):
        encoder = ToyEncoder(**task.encoder_options())
        heads = task.heads(encoder, source)
    run = Pretraining(task, encoder, heads, source, Optimization(learning_rate=rate), steps, 12, 0)
    trainer = Trainer(make_fabric(CPU, "32"), run)
    watch = FeatureMonitor(run, 1, CPU, Console(file=told, width=400)) if watched else None
    log = Log(folder / "log.jsonl", steps, 12, {}, 1, Console(file=io.StringIO()))
    train(run, trainer, Checkpoints(folder / "checkpoint"), log, watch=watch)
    return run, told.getvalue()


def test_a_complete_collapse_is_reported_once(tmp_path):
    """A partial one is not: VICReg without its variance term alone, or BYOL without its target, with some seeds."""
    _, told = go(InvarianceAlone(), tmp_path, steps=200, images=128)
    assert told.count("warning: the features have collapsed at step") == 1


@pytest.mark.parametrize(
    "task", [VICReg(), Rotation(size=16), Autoencoder(size=16)], ids=lambda task: type(task).__name__
)
def test_a_healthy_task_is_not(task, tmp_path):
    _, told = go(task, tmp_path, rate=0.003)
    assert told == ""


def test_the_weights_are_those_without_a_monitor(tmp_path):
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    watched, _ = go(Rotation(size=16), tmp_path / "with", steps=24)
    alone, _ = go(Rotation(size=16), tmp_path / "without", steps=24, watched=False)
    for one, other in ((watched.encoder, alone.encoder), (watched.heads, alone.heads)):
        assert all(
            torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )


def test_the_log_has_the_values_at_steps_that_depend_on_the_settings_alone(tmp_path):
    run, _ = go(Rotation(size=16), tmp_path, steps=100, rate=0.003)
    # 64 images of 12 x 3 forward passes a step, at most 2 % of them: every 89 steps, and the last
    lines = [line for line in read_log(tmp_path / "log.jsonl") if "feature_rank" in line]
    assert [line["step"] for line in lines] == [89, 100]
    images = run.source.images[evenly_spaced(128, 64)]
    with torch.no_grad():
        z = run.encoder(images).double()
    unit = z / z.norm(dim=1, keepdim=True)
    assert lines[-1]["feature_std"] == pytest.approx(float(unit.std(0, correction=0).mean()), abs=1e-4)
    shares = torch.linalg.svdvals(z)
    shares = shares / shares.sum() + 1e-7
    assert lines[-1]["feature_rank"] == pytest.approx(float(torch.exp(-(shares * shares.log()).sum())), rel=1e-2)


def test_a_large_batch_is_measured_at_every_line(tmp_path):
    run, _ = go(Rotation(size=16), tmp_path, steps=1)
    assert FeatureMonitor(replace(run, batch_size=4096), 7, CPU, Console(file=io.StringIO())).interval == 7
