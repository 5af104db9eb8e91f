"""Defaults that depend on the task and on the optimizer."""

from dataclasses import fields

import pytest
import torch

from selftaught.config.build import build_source
from selftaught.config.settings import General, Settings, offered, resolve
from selftaught.contracts import ParameterGroup
from selftaught.data.crops import Cropping
from selftaught.pretext import TASKS, task_class
from selftaught.pretext.gan import GAN
from selftaught.training.optimizer import OF_ONE_OPTIMIZER, Optimization


def shown(*arguments):
    return {setting.name: setting.default for setting in offered(*arguments)}


@pytest.mark.parametrize("name", TASKS)
def test_defaults_of_a_task_are_settings_of_the_run_the_optimizer_or_the_crops(name):
    own = task_class(name).defaults
    assert set(own) <= {field.name for owner in (General, Optimization, Cropping) for field in fields(owner)}
    offers, _ = resolve({"task": name})
    values = Settings.of(task=name).values()
    by_name = {setting.name: values[setting.key] for setting in offers if not setting.owner.startswith("Task")}
    assert {setting: by_name[setting] for setting in own} == dict(own)
    optimizer = own.get("optimizer", "adamw")
    advised = {key: value for key, value in own.items() if hasattr(Optimization, key)}
    assert vars(Settings.of(task=name).optimization) == vars(Optimization(**{"optimizer": optimizer, **advised}))


def test_an_explicit_choice_takes_precedence_over_the_default_of_a_task():
    chosen = Settings.of(task="gan", momentum=0.9).optimization
    assert chosen.momentum == 0.9
    assert chosen.weight_decay == GAN.defaults["weight_decay"]
    assert shown("gan", "convnet")["momentum"] == 0.5
    assert shown("rotation", "convnet")["momentum"] == 0.9
    assert Settings.of(task="bigan", batch_size=64).general.batch_size == 64
    assert Settings.of(task="bigan").general.batch_size == shown("bigan", "convnet")["batch_size"] == 32


def test_igpt_needs_no_option_to_run():
    chosen = Settings.of(task="igpt")
    assert (chosen.general.encoder, chosen.general.size, chosen.general.batch_size) == ("gpt", 16, 32)
    assert "depth" in chosen.encoder


@pytest.mark.parametrize(
    ("optimizer", "rate", "decay"), [("adamw", 3e-3, 0.05), ("muon", 3e-3, 0.05), ("sgd", 0.1, 5e-4)]
)
def test_learning_rate_and_weight_decay_depend_on_the_optimizer(optimizer, rate, decay):
    for chosen in (Optimization(optimizer), Settings.of(optimizer=optimizer).optimization):
        assert (chosen.learning_rate, chosen.weight_decay) == (rate, decay)
        group, unregularized, *_ = chosen.build([ParameterGroup(list(torch.nn.Linear(2, 2).parameters()))]).param_groups
        assert (group["lr"], group["weight_decay"], unregularized["weight_decay"]) == (rate, decay, 0.0)
    flat = Settings.of(optimizer=optimizer).values()
    assert (flat["optimizer.learning_rate"], flat["optimizer.weight_decay"]) == (rate, decay)  # what config.yaml stores
    help_shows = shown("rotation", "convnet", optimizer)
    assert (help_shows["learning_rate"], help_shows["weight_decay"]) == (rate, decay)
    given = Optimization(optimizer, learning_rate=1.0, weight_decay=0.0)
    assert (given.learning_rate, given.weight_decay) == (1.0, 0.0)


@pytest.mark.parametrize("name", TASKS)
def test_values_for_one_optimizer_do_not_apply_to_the_other(name):
    own = task_class(name).defaults
    other = "adamw" if own.get("optimizer") == "sgd" else "sgd"
    chosen, general = Settings.of(task=name, optimizer=other).optimization, Optimization(other)
    for field in fields(Optimization):
        expected = own.get(field.name) if field.name not in (*OF_ONE_OPTIMIZER, "optimizer") else None
        assert getattr(chosen, field.name) == (getattr(general, field.name) if expected is None else expected)


def test_colorization_of_a_photo_predicts_its_true_colors():
    """The colors that crops of photos are jittered in are no target: they say nothing of what is shown."""
    source = build_source(["chelsea"], Settings.of(task="colorization", num_crops=8, size=32))
    plain = build_source(["chelsea"], Settings.of(task="rotation", num_crops=8, size=32, crop_jitter=0.0))
    task, indices, device = task_class("colorization")(size=32), torch.arange(8), torch.device("cpu")
    colors = [
        task.views(each.batch(indices, device), torch.Generator().manual_seed(0))["colors"] for each in (source, plain)
    ]
    assert torch.equal(*colors)
    assert colors[0].abs().max() > 10
