"""Every number of every task and encoder at its extremes: a step of training, or one sentence; nothing in between.

The settings are read from the classes in the tables, so a new task or encoder is tested by being there.
"""

import math
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_origin

import pytest
import torch

from bounds import bounded
from selftaught import errors
from selftaught.config.build import make_task
from selftaught.config.settings import Setting, Settings, offered
from selftaught.contracts import Encoder, Task
from selftaught.encoders import ENCODERS, make_encoder
from selftaught.encoders.inputs import require_input_sizes
from selftaught.errors import UserError
from selftaught.pretext import TASKS, task_class
from selftaught.training.loop import Pretraining, Trainer
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import make_fabric
from toys import ToySource

pytestmark = pytest.mark.usefixtures("narrow_heads")

EXTREMES = (0, -1, math.nan, math.inf, 1e-30, 1e30, 10**9)
TINY = {"latent": 4, "generator_width": 4, "critic_width": 4, "permutations": 4, "queue": 36, "negatives": 4}
"""Settings with which a task is built quickly."""
NARROW = {"width": 12, "heads": 3, "depth": 1}
TILED = ("context", "jigsaw")
"""Tasks whose tiles need larger views."""
ENCODER_NAMES = [name.replace("NAME", "vit_tiny_patch16_224") for name in ENCODERS]


def numeric(setting: Setting) -> bool:
    """Whether a setting is a number, or has numbers in it."""
    return bool({int, float} & set(_types(setting.annotation)))


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _types(part)


def is_tuple(setting: Setting) -> bool:
    return tuple in {get_origin(kind) or kind for kind in _types(setting.annotation)}


def few_extremes(setting: Setting) -> list[Any]:
    """Values of a setting whose code another task shares: one that is usually accepted and one that never is."""
    return [(value,) * len(setting.default) if is_tuple(setting) else value for value in (0, math.nan)]


def is_shared(task: str, setting: Setting) -> bool:
    """Whether a setting is that of a base class, perhaps with another default, which an earlier task has as well."""
    owners = [base for base in task_class(task).__mro__ if setting.name in vars(base).get("__annotations__", {})]
    return any(owners[-1] in task_class(other).__mro__ for other in list(TASKS)[: list(TASKS).index(task)])


def extremes(setting: Setting) -> list[Any]:
    """Values of a setting: an extreme in the place of each of its numbers, and too few and too many of them."""
    if not is_tuple(setting):
        return list(EXTREMES)
    default = tuple(setting.default)
    replaced = [(*default[:n], value, *default[n + 1 :]) for n in range(len(default)) for value in EXTREMES]
    return [*replaced, *[(value,) * len(default) for value in EXTREMES], (), (*default, 1), 5, default * 10**5]


def settings_of(section: str, names: list[str]) -> list[Any]:
    """(name of the task or encoder, setting) of every numeric setting."""
    found = []
    for name in names:
        task, encoder = (name, "convnet") if section == "task" else ("rotation", name)
        for setting in offered(task, encoder):
            if setting.section == section and numeric(setting):
                found.append(pytest.param(name, setting, id=f"{name}-{setting.name}"))
    return found


def train_one_step(task: Task, encoder: Encoder, source: ToySource) -> None:
    """What `pretrain` does with them: heads, a pass before the epoch, a step, pictures."""
    encoder.fit(source)
    require_input_sizes(encoder, task.view_sizes())
    heads = task.heads(encoder, source)
    task.chance(source, 8)
    run = Pretraining(task, encoder, heads, source, Optimization(), 1, 8, 0)
    trainer = Trainer(make_fabric(torch.device("cpu"), "32", run.has_critic), run)
    with torch.no_grad():
        task.before_epoch(encoder.eval(), heads.eval(), source, torch.Generator().manual_seed(0))
    encoder.train(), heads.train()
    batch = source.batch(torch.arange(8), torch.device("cpu"))
    views = task.views(batch, torch.Generator().manual_seed(0))
    logged = trainer.step(views, 0.5)
    assert logged["loss"].isfinite()
    with torch.no_grad():
        pictures = task.visualize(encoder.eval(), heads.eval(), views)
    assert all(picture.isfinite().all() for picture in pictures.values())


def attempt(task: str, encoder: str | None, chosen: dict[str, Any]) -> str:
    """Train a step with some settings; the sentence of a refusal, or nothing."""
    try:
        size = 64 if task in TILED else 16
        named = {"task": task, "size": size, **chosen, **({} if encoder is None else {"encoder": encoder})}
        settings = Settings.of(**named)
        made = make_task(settings, size)
        options = {**settings.encoder, **made.encoder_options(), "size": size}
        torch.manual_seed(0)
        train_one_step(made, make_encoder(settings.general.encoder, **options), ToySource())
    except UserError as error:
        return str(error)
    return ""


def tiny(task: str, encoder: str | None, setting: Setting | None) -> dict[str, Any]:
    """Settings that make a run small, but for the one that is tested."""
    chosen: dict[str, Any] = {"crop": 1.0} if encoder is not None and task == "rotation" else {}
    for offer in offered(task, encoder or _default_encoder(task)):
        small = TINY.get(offer.name) if offer.section == "task" else NARROW.get(offer.name)
        if offer.section in ("task", "encoder") and small is not None and (setting is None or offer.key != setting.key):
            chosen[offer.key] = small
    return chosen


@cache
def default_attempt(task: str, encoder: str | None) -> str:
    return attempt(task, encoder, tiny(task, encoder, None))


def _default_encoder(task: str) -> str:
    return next(offer.default for offer in offered(task, "convnet") if offer.key == "encoder")


def survive(task: str, encoder: str | None, setting: Setting, values: list[Any]) -> None:
    assert not default_attempt(task, encoder)  # else the refusals below would prove nothing
    wrong = []
    for value in values:
        try:
            with bounded(20):
                said = attempt(task, encoder, {**tiny(task, encoder, setting), setting.key: value})
        except Exception as error:
            wrong.append(f"{str(value)[:80]}: {type(error).__name__} {str(error)[:100]}")
            continue
        if said and not (len(said) < 400 and said.isprintable() and said.endswith(".")):
            wrong.append(f"{str(value)[:80]}: {said}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("name", "setting"), settings_of("task", list(TASKS)))
def test_extremes_of_a_task_train_or_are_refused(name, setting):
    survive(name, None, setting, few_extremes(setting) if is_shared(name, setting) else extremes(setting))


@pytest.mark.parametrize("name", TASKS)
def test_the_ends_of_ranges_can_be_trained(name, monkeypatch):
    """The largest integers need much memory; the smallest, and both ends of fractions and temperatures, do not."""
    ends: dict[str, set[float]] = {}
    check = errors.require_between

    def note(flag, value, low, high, above=False, below=False, *, hint=""):
        lowest, highest = [] if above else [low], [] if below or high > 1000 or isinstance(value, int) else [high]
        ends.setdefault(flag.strip("-").replace("-", "_"), set()).update((*lowest, *highest))
        return check(flag, value, low, high, above, below, hint=hint)

    settings = Settings.of(task=name)
    with monkeypatch.context() as patch:
        patch.setattr(errors, "require_between", note)
        make_task(settings, 64)
    offers = {offer.name: offer for offer in offered(name, "convnet") if offer.section == "task"}
    for setting, values in ((setting, values) for setting, values in ends.items() if setting in offers):
        many = isinstance(offers[setting].default, tuple) and len(offers[setting].default)
        for value in values:
            end = type(offers[setting].default)(value) if not many else (float(value),) * many
            with bounded(60):
                said = attempt(name, None, {**tiny(name, None, offers[setting]), offers[setting].key: end})
            assert not re.search(rf"--{setting.replace('_', '-')} must be (from|above|at least) \S+ (to|and) ", said), (
                said
            )


@pytest.mark.parametrize(("name", "setting"), settings_of("encoder", ENCODER_NAMES))
def test_extremes_of_an_encoder_train_or_are_refused(name, setting):
    survive("igpt" if name == "gpt" else "rotation", name, setting, extremes(setting))
