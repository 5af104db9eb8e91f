"""The loop, on the toy tasks: it resumes bit for bit whatever a task has, and refuses to go on with nonsense."""

import io
import json
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from rich.console import Console
from torch import nn
from toy_tasks import TOYS, encoder_for

from selftaught.contracts import ParameterGroup
from selftaught.errors import UserError
from selftaught.pretext.bigan import BiGAN
from selftaught.pretext.deepcluster import DeepCluster
from selftaught.pretext.gan import GAN
from selftaught.pretext.igpt import IGPT
from selftaught.pretext.inpainting import Inpainting
from selftaught.pretext.rotation import Rotation
from selftaught.runs.checkpoint import Checkpoints
from selftaught.training import loop
from selftaught.training.interruption import Stop
from selftaught.training.log import Log
from selftaught.training.loop import Pretraining, Trainer, train
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import make_fabric
from selftaught.training.randomness import seeded_rng
from selftaught.training.trial import require_batch_norm_inputs
from toys import ToyEncoder, ToySource

GAMES = {
    "gan": GAN,
    "bigan": BiGAN,
    "inpainting": partial(Inpainting, adversarial=0.1),
    "igpt": IGPT,
    "deepcluster": partial(DeepCluster, clusters=4),
}
"""What has an opponent, a palette or clusters of its own."""
STEPS = 11  # two epochs of five steps, and one more


def pretraining(kind, **optimization) -> Pretraining:
    source = ToySource(40)
    with seeded_rng(3, "weights"):
        task = kind(size=8) if kind is TOYS["nextword"] else kind(size=16)
        encoder = encoder_for(task)
        encoder.fit(source)
        heads = task.heads(encoder, source)
    optimization = Optimization(**{"learning_rate": 0.05, **optimization})
    return Pretraining(task, encoder, heads, source, optimization, STEPS, 8, 3)


def go(run: Pretraining, folder, stop_after: int | None = None, watch=None, every: int = 1) -> int:
    folder.mkdir(exist_ok=True)
    stop = Stop()

    def look(step, encoder, heads, views, outputs):
        stop.requested = step == stop_after
        if watch is not None:
            watch(step, encoder, heads, views, outputs)

    trainer = Trainer(make_fabric(torch.device("cpu"), "32"), run)
    log = Log(folder / "log.jsonl", run.steps, 8, {}, every, Console(file=io.StringIO()))
    return train(run, trainer, Checkpoints(folder / "checkpoint"), log, watch=look, stop=stop)


def final(folder):
    """The last checkpoint, but for what depends on the clock."""
    state = torch.load(folder / "checkpoint" / "last.pt", weights_only=True)
    assert state.pop("seconds") >= 0
    return state


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def logged(folder) -> list[dict[str, float]]:
    """The log without the clock."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


class Forgetful(ToyEncoder):
    """With dropout, whose randomness is ambient."""

    def features(self, seen):
        made = super().features(seen)
        return {**made, "second": nn.functional.dropout(made["second"], 0.5, self.training)}


@pytest.mark.parametrize("kind", [Rotation, *TOYS.values()], ids=lambda kind: kind.__name__)
def test_an_interrupted_run_ends_as_if_nothing_had_happened(kind, tmp_path):
    """Stopped in the first epoch, in the first step of the second one, and again in it."""
    resumes_exactly(kind, (1, 5, 7), tmp_path)


@pytest.mark.parametrize("kind", GAMES.values(), ids=GAMES)
def test_opponents_palettes_and_clusters_resume_too(kind, tmp_path):
    resumes_exactly(kind, (3, 7), tmp_path)


@pytest.mark.parametrize("name", ["game", "clusters"])
def test_muon_resumes_too(name, tmp_path):
    resumes_exactly(TOYS[name], (3, 7), tmp_path, optimizer="muon")


def resumes_exactly(kind, stops, tmp_path, **optimization) -> None:
    assert go(pretraining(kind, **optimization), tmp_path / "whole") == STEPS
    for stop in stops:
        torch.manual_seed(stop)  # another process has another ambient state
        # the watch sees a step after it is done, so the stop takes effect one step later
        assert go(pretraining(kind, **optimization), tmp_path / "parts", stop_after=stop) == stop + 1
    assert go(pretraining(kind, **optimization), tmp_path / "parts") == STEPS
    assert same(final(tmp_path / "whole"), final(tmp_path / "parts"))
    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")


class Killed(BaseException):
    """Ends a run as a kill does: nothing is saved."""


class Clock:
    """Seconds that pass at every step and every checkpoint, and nowhere else."""

    def __init__(self, monkeypatch, per_step: float, per_save: float = 0.0, killed_at: int | None = None) -> None:
        self.now, self.saved = 0.0, []
        step, save = Trainer.step, Checkpoints.save

        def slow_step(trainer, *arguments):
            self.now += per_step
            if killed_at is not None and self.now > killed_at * per_step:
                raise Killed
            return step(trainer, *arguments)

        def slow_save(checkpoints, state):
            self.now += per_save
            self.saved.append(state["step"])
            save(checkpoints, state)

        monkeypatch.setattr(loop, "monotonic", lambda: self.now)
        monkeypatch.setattr(Trainer, "step", slow_step)
        monkeypatch.setattr(Checkpoints, "save", slow_save)


def test_checkpoints_are_saved_by_the_clock_between_log_lines(tmp_path, monkeypatch):
    """A run with one line of the log at its end loses a minute when it is killed, and ends as one that was not."""
    assert go(pretraining(Rotation), tmp_path / "whole", every=STEPS) == STEPS
    with monkeypatch.context() as patch:
        clock = Clock(patch, per_step=25.0, killed_at=8)
        with pytest.raises(Killed):
            go(pretraining(Rotation), tmp_path / "parts", every=STEPS)
        assert clock.saved == [3, 6]
    assert logged(tmp_path / "parts") == []
    seen = []
    go(pretraining(Rotation), tmp_path / "parts", every=1, watch=lambda step, *rest: seen.append(step))
    assert seen == [7, 8, 9, 10, 11]
    assert same(final(tmp_path / "whole"), final(tmp_path / "parts"))


def test_saving_takes_a_small_part_of_the_time(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, per_step=25.0, per_save=10.0)
    go(pretraining(Rotation), tmp_path / "run", every=STEPS)
    assert clock.saved == [3, 11]  # 10 seconds are a twentieth of 200, eight steps


def test_a_resumed_run_counts_the_seconds_since_the_last_log_line(tmp_path):
    log = Log(tmp_path / "log.jsonl", 9, 8, {}, 5, Console(file=io.StringIO()))
    log.begin(7, 42.0)
    assert 42 <= log.elapsed < 60
    log.begin(0)
    assert log.elapsed < 42


def test_dropout_resumes_too(tmp_path):
    def run():
        made = pretraining(Rotation)
        with seeded_rng(3, "other"):
            return Pretraining(**{**vars(made), "encoder": Forgetful()})

    go(run(), tmp_path / "whole")
    go(run(), tmp_path / "parts", stop_after=4)
    go(run(), tmp_path / "parts")
    assert same(final(tmp_path / "whole"), final(tmp_path / "parts"))


def test_the_ambient_generator_is_given_back(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    go(pretraining(Rotation), tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(tmp_path):
    go(pretraining(Rotation), tmp_path / "run", stop_after=3)
    good = final(tmp_path / "run")
    run = pretraining(Rotation, learning_rate=1e30)
    with pytest.raises(UserError, match=r"became (NaN|infinite) at step"):
        go(run, tmp_path / "run")
    assert same(final(tmp_path / "run"), good)


def test_batch_norm_of_one_view_is_one_sentence():
    run = replace(pretraining(partial(Rotation, copies="one")), batch_size=1)
    run.heads["angle"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 4))
    with pytest.raises(UserError, match=r"more than one view per step.*--batch-size"):
        require_batch_norm_inputs(run, make_fabric(torch.device("cpu"), "32"))


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_players_train_their_own_weights_only_at_their_own_rate(scale):
    run = pretraining(partial(TOYS["game"], critic_lr_scale=scale))
    trainer = Trainer(make_fabric(torch.device("cpu"), "32"), run)
    views = run.task.views(run.source.batch(torch.arange(8), torch.device("cpu")), torch.Generator())
    before = {name: weight.clone() for name, weight in trainer.module.named_parameters()}
    critic_before = run.heads["critic"][1].weight.clone()
    logged = trainer.step(views, 0.5)
    assert {"loss", "critic_loss", "realness"} <= logged.keys()
    changed = {n for n, w in trainer.module.named_parameters() if not torch.equal(w, before[n])}
    assert any("critic" in name for name in changed)
    assert any("encoder" in name for name in changed)
    # one step of each by hand: the critic first, against what the others were before
    again = pretraining(TOYS["game"])
    optimizer = run.optimization.build([ParameterGroup(list(again.heads["critic"].parameters()))])
    for group in optimizer.param_groups:
        group["lr"] = scale * run.optimization.rate(0.5)
    again.task.critic_loss(again.encoder, again.heads, views)[0].backward()
    optimizer.step()
    assert not torch.equal(critic_before, again.heads["critic"][1].weight)
    torch.testing.assert_close(run.heads["critic"][1].weight, again.heads["critic"][1].weight)


def test_relabelling_resets_the_head_and_its_momentum(tmp_path):
    seen = []
    go(
        pretraining(TOYS["clusters"]),
        tmp_path / "run",
        watch=lambda s, e, h, v, o: seen.append(h["top"].weight.detach().clone()),
    )
    moved = [float((b - a).abs().max()) for a, b in pairwise(seen)]
    assert moved[4] > 3 * max(moved[:4])  # steps 1 to 5 are an epoch; between 5 and 6 the head starts anew
