"""What every pretext task must hold; a task is tested by being in the table, and the toys by being here."""

import copy
import inspect
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from tiny_tasks import OPTIONS, OTHER_WAYS
from torch import Tensor
from toy_tasks import TOYS, encoder_for

from selftaught.augment.warp import identity
from selftaught.config.types import from_yaml, to_yaml
from selftaught.contracts import Batch, Task
from selftaught.encoders.inputs import require_input_sizes
from selftaught.errors import UserError
from selftaught.evaluation.embedding import EMBEDDING, Projected
from selftaught.pretext import TASKS, task_class
from selftaught.training.loop import Pretraining, Trainer
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import make_fabric
from toys import ToyEncoder, ToySource

pytestmark = pytest.mark.usefixtures("narrow_heads")

CPU = torch.device("cpu")
Test = Callable[[Any], None]
NARROW = {"GAN": {"generator_width": 4}, "BiGAN": {"generator_width": 4, "critic_width": 4}}
"""Options for tests in bf16, which takes up to fifty times as long on a CPU without instructions for it."""


class Case:
    """A task with everything it needs, and one batch."""

    def __init__(self, kind: type[Task], size: int | None = None, **options: object) -> None:
        torch.manual_seed(0)
        self.source = ToySource()
        easy = next((OPTIONS[base] for base in kind.__mro__ if base in OPTIONS), {})
        self.task = kind(size=size or (8 if kind.__name__ == "NextWord" else 16), **{**easy, **options})
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
        groups = self.task.parameter_groups(self.encoder, self.heads)
        return [p for group in groups if group.critic == of_critic for p in group.parameters if p.requires_grad]

    @property
    def players(self) -> list[bool]:
        return [False, True] if self.weights(of_critic=True) else [False]


def task_or_toy(name: str) -> type[Task]:
    return task_class(name) if name in TASKS else TOYS[name.removeprefix(TOY)]


TOY = "toy-"
"""Some toys have the name of a task."""
NAMES = (*TASKS, *(TOY + name for name in TOYS))


@pytest.fixture(params=NAMES)
def case(request) -> Case:
    return Case(task_or_toy(request.param))


@cache
def example(name: str) -> Case | None:
    """A case by which conditions are decided; None if the task fails to build, which every test of it reports."""
    try:
        return Case(task_or_toy(name))
    except Exception:
        return None


def only_if(condition: Callable[[Case], bool]) -> Callable[[Test], Test]:
    """Generate a test only for the tasks to which it applies."""
    names = [name for name in NAMES if example(name) is None or condition(example(name))]

    def decorate(test: Test) -> Test:
        test.applies_to = condition
        return pytest.mark.parametrize("case", names, indirect=True)(test)

    return decorate


def has_critic(case: Case) -> bool:
    return len(case.players) > 1


def has_no_critic(case: Case) -> bool:
    return not has_critic(case)


def predicts_transformation(case: Case) -> bool:
    return case.task.predicts_transformation


def has_chance(case: Case) -> bool:
    return bool(case.task.chance(case.source, len(case.batch)))


def compares_embeddings(case: Case) -> bool:
    return case.task.projection(case.encoder) is not None


def has_palette(case: Case) -> bool:
    return hasattr(case.encoder.preprocess, "pictures")


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


def test_twenty_steps_on_one_batch_lower_the_loss(case):
    """For games: each player learns while the other is frozen."""
    views = case.views()
    for of_critic in case.players:
        optimizer = torch.optim.Adam(case.weights(of_critic), lr=6e-3)
        before = case.loss(views, of_critic).detach()
        for _ in range(20):
            loss = case.loss(views, of_critic)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert case.loss(views, of_critic).detach() < 0.95 * before


def test_a_step_in_bf16_sees_the_views_as_they_are(case, monkeypatch):
    kind, asked = type(case.task), []
    loss = kind.loss

    def remembered(task, encoder, heads, views, progress):
        asked.append(views)
        return loss(task, encoder, heads, views, progress)

    monkeypatch.setattr(kind, "loss", remembered)
    run = Pretraining(case.task, case.encoder, case.heads, case.source, Optimization(), 1, 12, 0)
    views = case.views()
    logged = Trainer(make_fabric(CPU, "bf16"), run).step(views, 0.5)
    assert logged["loss"].isfinite()
    assert all(torch.equal(asked[0][name], views[name]) for name in views)
    assert all(asked[0][name].dtype == views[name].dtype for name in views)


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
        shown = case.task.visualize(case.encoder, case.heads, views)
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
    loss, outputs = case.task.loss(case.encoder, case.heads, views)
    with torch.no_grad():
        case.task.after_step(case.encoder, case.heads, views, {k: v.detach() for k, v in outputs.items()})
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
    written = yaml.safe_dump({name: to_yaml(value) for name, value in asdict(case.task).items()})
    read = {name: from_yaml(value) for name, value in yaml.safe_load(written).items()}
    assert {name: to_yaml(value) for name, value in asdict(type(case.task)(**read)).items()} == yaml.safe_load(written)


def test_the_paper_is_named(case):
    text = (inspect.getmodule(case.task).__doc__ or "") + (type(case.task).__doc__ or "")
    assert "http" in text


def test_a_size_of_nothing_is_our_error(case):
    with pytest.raises(UserError, match="size"):
        type(case.task)(size=0).views(case.batch, torch.Generator())


class OneSize(ToyEncoder):
    """Reads nothing but 16 by 16 pixels, as a vision transformer its own size."""

    def features(self, inputs):
        assert inputs.shape[-1] == 16
        return super().features(inputs)


@pytest.mark.parametrize("name", [name for name in TASKS if hasattr(task_class(name), "crop")])
def test_crops_that_the_encoder_cannot_read_are_our_error(name):
    task = task_class(name)(size=16, crop=0.5)
    with pytest.raises(UserError, match=r"cannot process crops of 8 pixels: increase --size or --crop"):
        require_input_sizes(OneSize(size=16, **task.encoder_options()), task.view_sizes())


def test_the_encoder_gets_images_of_the_declared_sizes_only(case):
    sizes = set()
    case.encoder.preprocess.register_forward_pre_hook(lambda _, inputs: sizes.add(inputs[0].shape[-1]))
    with torch.no_grad():
        case.task.before_epoch(case.encoder, case.heads, case.source, torch.Generator().manual_seed(0))
        for of_critic in case.players:
            case.loss(case.views(), of_critic)
    assert sizes == set(case.task.view_sizes().values())


class Uninformed(ToyEncoder):
    """Features that do not depend on the image."""

    def features(self, seen):
        return {name: torch.randn_like(feature) for name, feature in super().features(seen).items()}


@only_if(has_chance)
def test_chance_is_what_features_without_information_score(case):
    """Not what an untrained encoder scores: the colors that pass through it identify views and keys."""
    levels = case.task.chance(case.source, len(case.batch))
    scores: dict[str, list[float]] = {name: [] for name in levels}
    for seed in range(30):
        torch.manual_seed(seed)
        encoder, options = encoder_for(case.task), case.task.encoder_options()
        if type(encoder) is ToyEncoder:
            encoder = Uninformed(size=case.task.size, **options)
        heads = case.task.heads(encoder, case.source)
        with torch.no_grad():
            views = case.views(seed)
            # Fills a queue. A bank stays as it is: half of it would become embeddings, the rest random vectors.
            queued = type(case.task).after_step is not Task.after_step and not case.task.index_based
            for _ in range(3 if queued else 1):
                _, outputs = case.task.loss(encoder, heads, views)
                case.task.after_step(encoder, heads, views, outputs)
            if has_critic(case):
                outputs |= case.task.critic_loss(encoder, heads, views)[1]
        for name in levels:
            scores[name].append(float(outputs[name]))
    for name, level in levels.items():
        measured = torch.tensor(scores[name])
        # 30 samples of a rare event may deviate less from each other than the event's own distribution.
        std = max(float(measured.std()), (level * (1 - level) / len(case.batch)) ** 0.5)
        assert abs(float(measured.mean()) - level) < 4 * std / 30**0.5


def test_what_is_shown_are_images(case):
    case.encoder.eval(), case.heads.eval()
    with torch.no_grad():
        shown = case.task.visualize(case.encoder, case.heads, case.views())
    assert shown
    for pictures in shown.values():
        assert pictures.ndim == 4
        assert pictures.shape[1] == 3
        assert pictures.min() >= 0
        assert pictures.max() <= 1


def by_image(tensor: Tensor, count: int) -> Tensor | None:
    """(count * K, ...) -> (count, K, ...); None for a tensor that all images of the batch share."""
    return tensor.unflatten(0, (count, -1)) if len(tensor) and len(tensor) % count == 0 else None


def permuted(tensor: Tensor, order: Tensor) -> Tensor:
    """The images of a view tensor in another order, the views of an image together."""
    blocks = by_image(tensor, len(order))
    return tensor if blocks is None else blocks[order].flatten(0, 1)


def test_the_loss_does_not_depend_on_the_order_of_the_images(case):
    """So nothing is compared across images by their position in the batch: no wrong positives, no shifted targets."""
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    views = case.views()
    other = {name: permuted(tensor, order) for name, tensor in views.items()}
    for of_critic in case.players:
        with torch.no_grad():
            torch.testing.assert_close(case.loss(other, of_critic), case.loss(views, of_critic), rtol=1e-5, atol=1e-6)


def trained(case: Case, batches: Sequence[Batch], rate: float = 6e-3) -> Case:
    """Train on fresh views of the batches, the players in turn."""
    steps = len(batches)
    optimizers = {of_critic: torch.optim.Adam(case.weights(of_critic), lr=rate) for of_critic in case.players}
    for step, batch in enumerate(batches):
        views = case.task.views(batch, torch.Generator().manual_seed(1000 + step))
        for of_critic in reversed(case.players):
            torch.manual_seed(step)
            compute = case.task.critic_loss if of_critic else case.task.loss
            loss, outputs = compute(case.encoder, case.heads, views, step / steps)
            optimizers[of_critic].zero_grad()
            loss.backward()
            optimizers[of_critic].step()
        with torch.no_grad():
            detached = {name: value.detach() for name, value in outputs.items()}
            case.task.after_step(case.encoder, case.heads, views, detached, step / steps)
    return case


def mismatches(case: Case, views: dict[str, Tensor]) -> list[float]:
    """The loss when one thing belongs to another image or view: a tensor, some views of an image, the features."""
    order = (torch.arange(12) + 1) % 12
    found = []
    for name, tensor in views.items():
        blocks = by_image(tensor, 12)
        if blocks is None:
            continue
        swapped = {**views, name: blocks[order].flatten(0, 1)}
        found.append(float(case.loss(swapped)))
        found.append(float(case.loss({**views, name: tensor.roll(1, 0)})))
        if blocks.shape[1] > 1:
            mixed = torch.cat([blocks[:, :1], blocks[order][:, 1:]], 1)
            found.append(float(case.loss({**views, name: mixed.flatten(0, 1)})))
    for method in ("features", "encode"):
        compute = getattr(case.encoder, method, None)
        if compute is not None:
            setattr(case.encoder, method, partial(_shifted, compute))
            found.append(float(case.loss(views)))
            delattr(case.encoder, method)
    return found


def rise_by_mismatch(case: Case) -> float:
    """By how much the worst mismatch raises the loss, averaged over views."""
    rises = []
    with torch.no_grad():
        for seed in range(4):
            views = case.views(seed)
            rises.append(torch.tensor(mismatches(case, views)) - float(case.loss(views)))
    return float(torch.stack(rises).mean(0).max())


def _shifted(compute, *inputs, **options):
    """Every view gets the features of the one before it."""
    return {name: feature.roll(1, 0) for name, feature in compute(*inputs, **options).items()}


@only_if(has_no_critic)  # an adversarial loss does not measure how well an image is represented
def test_after_training_a_mismatch_raises_the_loss(case):
    """What was learned concerns the image itself. A collapsed encoder, or one that is compared with itself, fails."""
    with torch.no_grad():
        initial = float(case.loss(case.views()))
    rise = 0.0
    for rate in (6e-3, 3e-3):  # most tasks are learned at the first one
        trained(case, [case.batch] * 60, rate)
        rise = rise_by_mismatch(case)
        if rise > 0.02 * abs(initial):
            break
    assert rise > 0.02 * abs(initial)


@only_if(has_critic)
def test_the_players_are_opponents(case):
    """What the critic's own steps gain, the other player loses."""
    views = case.views()
    optimizer = torch.optim.Adam(case.weights(of_critic=True), lr=1e-2)
    before = float(case.loss(views).detach())
    for _ in range(100):
        optimizer.zero_grad()
        case.loss(views, of_critic=True).backward()
        optimizer.step()
    assert float(case.loss(views).detach()) > before


class Noise(ToySource):
    """Images without content: uniform noise, and labels that say nothing about it."""

    def __init__(self, seed: int) -> None:
        super().__init__(12, seed)
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.rand(self.images.shape, generator=generator)
        self.labels = torch.randint(2, (12,), generator=generator)


@only_if(predicts_transformation)  # other answers depend on the image
def test_a_transformation_cannot_be_predicted_on_noise(case):
    """Images of noise hold no cue, so what is right above chance there was leaked by the task itself."""
    trained(case, batches=[Noise(step).batch(torch.arange(12), CPU) for step in range(40)])
    name, level = next(iter(case.task.chance(case.source, 12).items()))
    scores = []
    with torch.no_grad():
        for seed in range(40):
            case.batch = Noise(500 + seed).batch(torch.arange(12), CPU)
            scores.append(float(case.task.loss(case.encoder, case.heads, case.views(seed))[1][name]))
    found = torch.tensor(scores)
    assert found.mean() - level < 4 * found.std() / len(scores) ** 0.5 + 1e-6


def test_what_an_epoch_changes_depends_on_the_encoder_as_it_is(case):
    """Labels, weights and memories of an epoch are those of the present encoder, not of the epoch before."""
    losses = []
    for _ in range(2):
        torch.manual_seed(5)
        with torch.no_grad():
            case.task.before_epoch(case.encoder, case.heads, case.source, torch.Generator().manual_seed(5))
            losses.append(case.loss(case.views()))
    torch.testing.assert_close(losses[0], losses[1])


@only_if(has_palette)
def test_tokens_stand_for_the_colors_of_their_pixels(case):
    pictures = case.encoder.preprocess.pictures
    side = case.encoder.preprocess.side
    images = case.batch.warp(identity(12), side)
    off = (pictures(case.encoder.preprocess(images)) - images).square().mean()
    assert off < 0.1 * images.var((0, 2, 3), correction=0).mean()


def test_a_task_has_a_projection_if_its_loss_returns_embeddings(case):
    returned = "embeddings" in case.task.loss(case.encoder, case.heads, case.views())[1]
    assert compares_embeddings(case) == returned


@only_if(compares_embeddings)
def test_the_projection_is_the_head_whose_outputs_the_loss_compares(case):
    head, outputs = case.heads[case.task.projection_name], []
    made = case.task.projection(case.encoder).state_dict()
    assert {name: value.shape for name, value in made.items()} == {
        name: value.shape for name, value in head.state_dict().items()
    }
    head.register_forward_hook(lambda *arguments: outputs.append(F.normalize(arguments[2].detach().float(), dim=1)))
    with torch.no_grad():
        embeddings = F.normalize(case.task.loss(case.encoder, case.heads, case.views())[1]["embeddings"], dim=1)
    distances = torch.cdist(embeddings, torch.cat(outputs), compute_mode="donot_use_mm_for_euclid_dist")
    assert distances.amin(1).max() < 1e-5
    assert distances.median() > 0.01  # to embeddings of other images


@pytest.mark.parametrize("precision", ["32", "bf16"])
@only_if(compares_embeddings)
def test_the_embedding_of_an_image_does_not_depend_on_its_batch(case, precision):
    encoder = Projected(case.encoder, case.heads[case.task.projection_name]).eval()
    images = encoder.preprocess(case.batch.warp(identity(12), case.task.size))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        together = encoder.features(images)[EMBEDDING].float()
        apart = torch.cat([encoder.features(part)[EMBEDDING].float() for part in images.split(5)])
    assert together.shape == (12, encoder.layers[EMBEDDING].channels)
    assert together.isfinite().all()
    scale = float(together.std())
    assert scale > 0
    torch.testing.assert_close(apart, together, rtol=0, atol=(0.05 if precision == "bf16" else 1e-4) * scale)
