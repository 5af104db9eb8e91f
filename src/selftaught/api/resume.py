"""Continues interrupted runs, and extends finished ones by a further budget."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from selftaught.api.session import monitored_source, require_divisible, train_folder
from selftaught.config.build import Built, build, from_checkpoint, saved_config
from selftaught.config.settings import BUDGETS, Settings, flag_of, resolve
from selftaught.config.types import from_yaml
from selftaught.errors import UserError, readable
from selftaught.modules.processes import processes
from selftaught.runs.checkpoint import Checkpoints
from selftaught.runs.files import exists
from selftaught.runs.folder import RunFolder
from selftaught.training.distributed import in_turn
from selftaught.training.interruption import Stop
from selftaught.training.machine import use_threads
from selftaught.training.plan import Budget, Plan, make_plan

FREE = ("device", "storage")
"""Settings that may change when a run is resumed, because the training is the same."""


def existing_run(out: str | Path | None) -> RunFolder:
    """The folder of the run to resume."""
    if out is None:
        raise UserError("--resume needs --out, the folder of the run to continue.")
    folder = RunFolder(Path(out))
    folder.must_be_run()
    return folder


def resume_run(
    folder: RunFolder, data: list[str], labels: str | None, named: Mapping[str, Any], stop: Stop, console: Console
) -> None:
    """Continue a run with its settings, or extend a finished run by the given budget."""
    original_data, config, original_labels = processes().first(lambda: saved_config(folder))
    _, named = resolve({**{name: config[name] for name in ("task", "encoder", "optimizer") if name in config}, **named})
    budget = {name: value for name, value in named.items() if name in BUDGETS and value is not None}
    status = processes().first(folder.read_status)
    # An extension that was killed before the config had its steps counts as not started.
    done = status.get("status") == "finished" or (status.get("steps") or 0) > config["steps"]
    # With a source, the command that started the run is repeated: the budget is that of the whole run.
    extends = bool(budget) and not data and done
    fixed = {name: value for name, value in named.items() if name not in budget} if extends else named
    processes().first(lambda: _require_same(folder, config, fixed))
    if data and data != original_data:
        raise UserError("cannot change SOURCE when resuming: leave it out, or start a new run.")
    if labels is not None and labels != original_labels:
        raise UserError("cannot change --labels when resuming: leave it out, or start a new run.")
    device = named.get("device", config["device"])
    config = {**config, **{name: named[name] for name in FREE if name in named}}
    if processes().first(lambda: exists(folder.checkpoints / "last.pt")):
        if "encoder.pretrained" not in named:
            config = from_checkpoint(config)
    elif config.get("encoder.pretrained") and "encoder.pretrained" not in named:
        raise UserError(
            "this run starts from published weights, which would have to be downloaded: give --pretrained to allow it."
        )
    settings = Settings.of(**config)
    label_file = None if original_labels is None else Path(original_labels)
    built = in_turn(lambda: build(original_data, settings, label_file, download=bool(data)))
    require_divisible(built)
    _require_same_images(status, built)
    monitored = monitored_source(settings, built, bool(data or named.get("monitor")))
    if done and not budget:
        console.print(f"{readable(str(folder.path))} is finished; a budget extends it, such as --steps 1000.")
    with use_threads(settings.general.threads):
        if extends:
            _extend(folder, built, Budget(**budget), device, console)
        train_folder(folder, built, device, stop, console, monitored)


def _require_same(folder: RunFolder, config: Mapping[str, Any], named: Mapping[str, Any]) -> None:
    """Raise an error if a setting differs from that of the run, both as given and as resolved at its start."""
    status = folder.read_status()
    first = status.get("requested", {})
    for name, value in named.items():
        if name in FREE or from_yaml(value) in (config.get(name), from_yaml(first.get(name, config.get(name)))):
            continue
        flag, again = flag_of(name, config), f"`selftaught pretrain --resume --out {readable(str(folder.path))}"
        if name not in BUDGETS:
            hint = "leave it out, or start a new run."
        elif status.get("status") == "finished":
            hint = f"to extend a finished run, leave SOURCE out: {again} {flag} {value}`."
        else:
            hint = f"finish the interrupted run first with {again}`, then extend it."
        raise UserError(f"cannot change {flag} when resuming: {hint}")


def _require_same_images(status: Mapping[str, Any], built: Built) -> None:
    source = built.pretraining.source
    if status.get("fingerprint") != source.fingerprint:
        raise UserError(
            f"the images in {source.name} are not those that the run started with: restore them, or start a new run."
        )


def _extend(folder: RunFolder, built: Built, budget: Budget, device: str, console: Console) -> None:
    """Add a cycle of the learning-rate schedule to a finished run.

    A kill at any moment leaves the finished run or the extended one: the checkpoint is saved for both before the config
    changes, in that order.
    """
    config = processes().first(folder.read_config)
    plan = make_plan(
        built.pretraining, budget, device=device, precision=config["precision"], compiling=config["compile"]
    )
    processes().first(lambda: _write_extension(folder, config, plan, budget, console))


def _write_extension(
    folder: RunFolder, config: Mapping[str, Any], plan: Plan, budget: Budget, console: Console
) -> None:
    checkpoints = Checkpoints(folder.checkpoints, folder.identity())
    saved = checkpoints.load()
    if saved is None:
        raise UserError(f"cannot extend a run without its checkpoint: {checkpoints.last} is missing.")
    start, end = config["steps"], config["steps"] + plan.steps
    extended = {**config, "steps": end, "restarts": [*(config.get("restarts") or ()), start]}
    Settings.of(**{name: from_yaml(value) for name, value in extended.items() if name not in ("data", "labels")})
    checkpoints.save(saved)
    Checkpoints(folder.checkpoints, folder.identity(extended)).save(saved)
    first = {name: value for name, value in folder.read_status().get("requested", {}).items() if name not in BUDGETS}
    requested = {name: value for name, value in vars(budget).items() if value is not None}
    folder.update_status(
        status="interrupted", steps=end, requested={**first, **requested}, seconds_per_step=plan.seconds_per_step
    )
    folder.write_config(extended)
    console.print(f"extends the run from step {start:,} to {end:,}; the learning rate starts a new cycle")
