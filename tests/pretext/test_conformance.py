"""What every pretext task must hold; a task is tested by being in the table, and the toys by being here."""

import copy
import inspect
import io
from dataclasses import asdict

import pytest
import torch
import yaml
from torch import Tensor
from toy_tasks import TOYS, encoder_for

from selftaught.contracts import Task
from selftaught.errors import UserError
from selftaught.parts.crops import CropTask
from selftaught.pretext import TASKS, task_class
from selftaught.training.loop import Pretraining, Trainer
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import make_fabric
from toys import ToyEncoder, ToySource

CPU = torch.device("cpu")


NARROW = {"GAN": {"generator_width": 4}, "BiGAN": {"generator_width": 4, "critic_width": 4}}
"""Options for tests in bf16, which takes up to fifty times as long on a CPU without instructions for it."""


class Case:
    """A task with everything it needs, and one batch."""

    def __init__(self, kind: type[Task], size: int | None = None, **options: object) -> None:
        torch.manual_seed(0)
        self.source = ToySource()
        self.task = kind(size=size or (8 if kind.__name__ == "NextWord" else 16), **options)
        self.encoder = encoder_for(self.task)
        self.encoder.fit(self.source)
        self.heads = self.task.heads(self.encoder, self.source)
        self.batch = self.source.batch(torch.arange(12), CPU)
        with torch.no_grad():
            self.task.before_epoch(self.encoder, self.heads, self.source, torch.Generator().manual_seed(0))

    def views(self, seed: int = 0) -> dict[str, Tensor]:
        return self.task.views(self.batch, torch.Generator().manual_seed(seed))

    def loss(self, views: dict[str, Tensor], of_critic: bool = False) -> Tensor:
        loss = self.task.critic_loss if of_critic else self.task.loss
        torch.manual_seed(0)  # of dropout and the like
        return loss(self.encoder, self.heads, views)[0]

    def weights(self, of_critic: bool) -> list[Tensor]:
        critic = set(self.heads["critic"].parameters()) if "critic" in self.heads else set()
        everyone = [*self.encoder.parameters(), *self.heads.parameters()]
        return [p for p in everyone if p.requires_grad and (p in critic) == of_critic]

    @property
    def players(self) -> list[bool]:
        return [False, True] if "critic" in self.heads else [False]


def task_or_toy(name: str) -> type[Task]:
    return TOYS[name] if name in TOYS else task_class(name)


@pytest.fixture(params=[*TASKS, *TOYS])
def case(request) -> Case:
    return Case(task_or_toy(request.param))


def test_the_seed_decides_the_views_and_nothing_else_does(case):
    torch.manual_seed(1)
    first = case.views(7)
    torch.manual_seed(2)
    again = case.views(7)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(tensor.device == CPU for tensor in first.values())


def test_views_leave_the_batch_alone(case):
    before = copy.deepcopy(vars(case.batch))
    case.views()
    for name, value in vars(case.batch).items():
        pairs = value.items() if isinstance(value, dict) else [(None, value)]
        for key, tensor in pairs:
            was = before[name][key] if key is not None else before[name]
            assert torch.equal(tensor, was) if isinstance(tensor, Tensor) else tensor == was


def test_every_trainable_weight_gets_a_finite_gradient_from_its_own_loss(case):
    for of_critic in case.players:
        weights = case.weights(of_critic)
        for weight in weights:
            weight.grad = None
        case.loss(case.views(), of_critic).backward()
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights)


def test_forty_steps_on_one_batch_lower_the_loss(case):
    """For games: each player learns while the other is frozen."""
    views = case.views()
    for of_critic in case.players:
        optimizer = torch.optim.Adam(case.weights(of_critic), lr=3e-3)
        before = case.loss(views, of_critic).detach()
        for _ in range(40):
            loss = case.loss(views, of_critic)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert case.loss(views, of_critic).detach() < 0.95 * before


def test_a_step_in_bf16_sees_the_views_as_they_are(case, monkeypatch):
    kind, asked = type(case.task), []
    loss = kind.loss

    def remembered(task, encoder, heads, views):
        asked.append(views)
        return loss(task, encoder, heads, views)

    monkeypatch.setattr(kind, "loss", remembered)
    run = Pretraining(case.task, case.encoder, case.heads, case.source, Optimization(), 1, 12, 0)
    views = case.views()
    logged = Trainer(make_fabric(CPU, "bf16"), run).step(views, 0.5)
    assert logged["loss"].isfinite()
    assert all(torch.equal(asked[0][name], views[name]) for name in views)
    assert all(asked[0][name].dtype == views[name].dtype for name in views)


OTHER_WAYS = [
    ("autoencoder", {"space": "lab", "noise": 0.1, "masked": 0.25}),
    ("colorization", {"answer": "mean", "shrink": 3}),
    ("igpt", {"objective": "masked"}),
    ("inpainting", {"adversarial": 0.1, "holes": "free"}),
    ("npid", {"normalizer": "constant", "proximal": 1.0, "bank": "half"}),
    ("pirl", {"transform": "both", "head": "mlp"}),
    ("rotation", {"angles": (0, 45)}),
]
"""Options under which a task computes something else."""


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        *((name, size, {}) for name in TASKS for size in (20, 48)),
        *((name, 20, options) for name, options in OTHER_WAYS),
    ],
    ids=str,
)
def test_it_trains_and_shows_at_sizes_that_are_no_power_of_two(name, size, options, precision):
    kind = task_class(name)
    case = Case(kind, size, **{**NARROW.get(kind.__name__, {}), **options})
    run = Pretraining(case.task, case.encoder, case.heads, case.source, Optimization(), 2, 2, 0)
    trainer = Trainer(make_fabric(CPU, precision), run)
    batch = case.source.batch(torch.arange(2), CPU)
    for seed in (0, 1):
        views = case.task.views(batch, torch.Generator().manual_seed(seed))
        logged = trainer.step(views, 0.5)
        assert all(value.isfinite().all() for value in logged.values())
    assert all(weight.isfinite().all() for weight in trainer.module.parameters())
    assert all(weight.dtype == torch.float32 for weight in trainer.module.parameters())
    case.encoder.eval(), case.heads.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        shown = case.task.show(case.encoder, case.heads, views)
    for pictures in shown.values():
        assert pictures.isfinite().all()
        assert pictures.dtype == torch.float32


def test_bf16_changes_the_loss_by_rounding_alone(case):
    """Losses and what is logged are computed in float32, from activations of eight bits of precision."""
    views = case.views()
    for of_critic in case.players:
        expected = case.loss(views, of_critic)
        with torch.autocast("cpu", torch.bfloat16):
            found = case.loss(views, of_critic)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.01, atol=0.003)


def test_the_loop_trains_every_weight_once(case):
    run = Pretraining(case.task, case.encoder, case.heads, case.source, Optimization(), 1, 12, 0)
    trainer = Trainer(make_fabric(CPU, "32"), run)
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    trained = [id(weight) for group in groups for weight in group["params"]]
    weights = (*case.encoder.parameters(), *case.heads.parameters())
    assert sorted(trained) == sorted(id(weight) for weight in weights if weight.requires_grad)


def test_saving_and_loading_restores_the_loss_exactly(case):
    views = case.views()
    loss, outcome = case.task.loss(case.encoder, case.heads, views)
    with torch.no_grad():
        case.task.after_step(case.encoder, case.heads, views, {k: v.detach() for k, v in outcome.items()})
    file = io.BytesIO()
    torch.save([case.encoder.state_dict(), case.heads.state_dict()], file)
    expected = case.loss(views)
    other = Case(type(case.task))
    for weight in (*other.encoder.parameters(), *other.heads.parameters()):
        torch.nn.init.uniform_(weight)
    file.seek(0)
    encoder, heads = torch.load(file, weights_only=True)
    other.encoder.load_state_dict(encoder)
    other.heads.load_state_dict(heads)
    assert torch.equal(other.loss(views), expected)
    assert loss.ndim == 0


def test_hyperparameters_survive_yaml(case):
    kind = type(case.task)
    written = yaml.safe_dump({k: list(v) if isinstance(v, tuple) else v for k, v in asdict(case.task).items()})
    read = {k: tuple(v) if isinstance(v, list) else v for k, v in yaml.safe_load(written).items()}
    assert kind(**read) == case.task


def test_the_paper_is_named(case):
    text = (inspect.getmodule(case.task).__doc__ or "") + (type(case.task).__doc__ or "")
    assert "http" in text


def test_a_size_of_nothing_is_our_error(case):
    with pytest.raises(UserError, match="size"):
        type(case.task)(size=0).views(case.batch, torch.Generator())


class OneSize(ToyEncoder):
    """Reads nothing but 16 by 16 pixels, as a vision transformer its own size."""

    def features(self, seen):
        assert seen.shape[-1] == 16
        return super().features(seen)


@pytest.mark.parametrize("name", [name for name in TASKS if issubclass(task_class(name), CropTask)])
def test_crops_that_the_encoder_cannot_read_are_our_error(name):
    task = task_class(name)(size=16, crop=0.5)
    with pytest.raises(UserError, match=r"crops of 8 pixels are too small for it: give a larger --size or --crop"):
        task.heads(OneSize(size=16, **task.wants), ToySource())


def test_chance_is_what_an_untrained_encoder_scores(case):
    levels = case.task.chance(case.source)
    scores: dict[str, list[float]] = {name: [] for name in levels}
    for seed in range(30):
        torch.manual_seed(seed)
        encoder = encoder_for(case.task)
        heads = case.task.heads(encoder, case.source)
        with torch.no_grad():
            _, outcome = case.task.loss(encoder, heads, case.views(seed))
            if "critic" in heads:
                outcome |= case.task.critic_loss(encoder, heads, case.views(seed))[1]
        for name in levels:
            scores[name].append(float(outcome[name]))
    for name, level in levels.items():
        found = torch.tensor(scores[name])
        assert abs(found.mean() - level) < 4 * found.std() / 30**0.5 + 1e-6


def test_what_is_shown_are_images(case):
    case.encoder.eval(), case.heads.eval()
    with torch.no_grad():
        shown = case.task.show(case.encoder, case.heads, case.views())
    assert shown
    for pictures in shown.values():
        assert pictures.ndim == 4
        assert pictures.shape[1] == 3
        assert pictures.min() >= 0
        assert pictures.max() <= 1
