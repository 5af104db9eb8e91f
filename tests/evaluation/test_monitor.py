"""A complete collapse is reported, a healthy task is not, and nothing of the training changes."""

import io
from dataclasses import replace

import pytest
import torch
from modern_toys import VICReg
from rich.console import Console
from test_wrong_tasks import InvarianceAlone

from selftaught.contracts import evenly_spaced
from selftaught.evaluation.monitor import FeatureMonitor, spread
from selftaught.pretext import vicreg
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
    """A partial one is not, if the loss returns no embeddings."""
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


def test_spread_is_that_of_the_definition():
    z = torch.randn(50, 12, generator=torch.Generator().manual_seed(0)) + 2
    found = spread(z)
    unit = z.double() / z.double().norm(dim=1, keepdim=True)
    assert found.std == pytest.approx(float(((unit - unit.mean(0)) ** 2).mean(0).sqrt().mean()))
    shares = torch.linalg.svdvals(z.double() - z.double().mean(0))
    shares = shares / shares.sum() + 1e-7
    assert found.rank == pytest.approx(float(torch.exp(-(shares * shares.log()).sum())), rel=1e-4)


@pytest.mark.parametrize("shape", [(100, 16), (64, 512)])
def test_isotropic_embeddings_have_not_collapsed(shape):
    found = spread(torch.randn(*shape, generator=torch.Generator().manual_seed(0)))
    assert found.relative_std == pytest.approx(1, abs=0.05)
    assert found.rank > 0.8 * min(shape)
    assert not found.collapsed()


def test_embeddings_collapse_to_a_point_or_to_a_line():
    noise = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    assert spread(torch.ones(64, 32)).collapsed()
    assert spread(1 + 0.01 * noise).collapsed()
    assert spread(noise[:, :1] * noise[:1] + 1e-4 * noise).collapsed()
    assert not spread(noise[:, :8] @ noise[:8]).collapsed()


@pytest.mark.parametrize("variance", [25.0, 0.0])
def test_vicreg_without_its_variance_term_is_reported(variance, tmp_path):
    task = vicreg.VICReg(size=16, variance=variance, dimensions=64)
    _, told = go(task, tmp_path, steps=120, rate=0.03)
    assert ("the embeddings have collapsed at step" in told) == (variance == 0)
    lines = read_log(tmp_path / "log.jsonl")
    assert all({"embedding_rank", "embedding_std"} <= set(line) for line in lines)


def test_embeddings_that_shrink_have_collapsed_only_if_the_loss_compares_distances():
    small = 0.05 * torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    found = spread(small)
    assert found.scale == pytest.approx(float(small.double().std(0, correction=0).mean()))
    assert not found.collapsed()
    assert found.collapsed(1.0)
    assert not found.collapsed(0.1)
    assert not spread(5 * small).collapsed(1.0)
    assert spread(5 * small).collapsed(1.0, factor=2)
    for task, reported in ((vicreg.VICReg(size=16), True), (Rotation(size=16), False)):
        told, encoder, source = io.StringIO(), ToyEncoder(), ToySource(64)
        run = Pretraining(task, encoder, task.heads(encoder, source), source, Optimization(), 1000, 12, 0)
        watch = FeatureMonitor(run, 1, CPU, Console(file=told, width=400))
        for step in range(1, 5):
            watch(step, encoder, run.heads, {}, {"embeddings": small})
        assert ("standard deviation 0.05, while the loss aims at 1" in told.getvalue()) == reported


def test_embeddings_that_collapse_for_one_line_only_are_not_reported():
    told = io.StringIO()
    source = ToySource(64)
    encoder, task = ToyEncoder(), Rotation(size=16)
    run = Pretraining(task, encoder, task.heads(encoder, source), source, Optimization(), 1000, 12, 0)
    watch = FeatureMonitor(run, 1, CPU, Console(file=told, width=400))
    same, different = {"embeddings": torch.ones(12, 32)}, {"embeddings": torch.eye(12, 32)}
    for step, outputs in enumerate([same, same, different, same], 1):
        watch(step, encoder, run.heads, {}, outputs)
    assert told.getvalue() == ""
    for step, outputs in enumerate([different, same, same, same, same, different], 5):
        watch(step, encoder, run.heads, {}, outputs)
    assert told.getvalue().count("the embeddings have collapsed at step 8") == 1
    assert told.getvalue().count("step 10: embeddings have recovered") == 1
