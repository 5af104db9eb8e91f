"""Pretraining in one call: settings and images in, a run folder out."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import selftaught
from selftaught.api.run import Run
from selftaught.api.watching import Watchers, open_monitored
from selftaught.config.build import (
    Built,
    build,
    describe_encoder,
    not_pretrained,
    require_photos_for_crops,
    saved_config,
)
from selftaught.config.settings import BUDGETS, Settings, absolute, flag_of, resolve
from selftaught.config.types import from_yaml, to_yaml
from selftaught.contracts import Source
from selftaught.data.crops import Crops
from selftaught.data.photos import as_paths
from selftaught.display.console import stderr_console
from selftaught.errors import ProcessLostError, ReportedError, UserError, readable
from selftaught.evaluation.knn_monitor import KNNMonitor
from selftaught.modules.processes import alone, processes
from selftaught.runs.atomic import write_text
from selftaught.runs.checkpoint import Checkpoints
from selftaught.runs.claim import claimed
from selftaught.runs.files import exists
from selftaught.runs.folder import RunFolder
from selftaught.training.distributed import explained, in_turn, joined
from selftaught.training.interruption import Stop, stop_on_signals
from selftaught.training.log import Log
from selftaught.training.loop import Pretraining, Trainer, Watch, train
from selftaught.training.machine import hardware, use_threads
from selftaught.training.pace import planned_pace
from selftaught.training.plan import Budget, Plan, choose_device, make_fabric, make_plan
from selftaught.training.trial import require_batch_norm_inputs

FREE = ("device", "storage")
"""Settings that may change when a run is resumed, because the training is the same."""
LINES = 400
"""About how many lines a log has, whatever the length of the run."""


def pretrain(
    data: str | Path | Sequence[str | Path] = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    labels: str | Path | None = None,
    download: bool = True,
    stop: Stop | None = None,
    **settings: Any,
) -> Run:
    """Pretrain an encoder on unlabeled images.

    Several runs may train in threads of one process: each gives the weights that it gives alone.

    Args:
        data: source of images: a folder, photos, parquet, or a data set by name.
        out: run folder, new or empty; by default a new one under `runs/`.
        resume: continue the run in `out`, with its settings (device and storage may change). A finished run is
            extended by `minutes`, `epochs` or `steps`; the learning rate starts a new cycle of its schedule.
        labels: CSV file with path and label, for sources whose labels are elsewhere.
        download: whether a data set named in `data` may be downloaded. What only the config of a resumed run names
            is not.
        stop: request a stop from another thread; in the main thread SIGINT, SIGTERM and SIGHUP request it, too.
        settings: any of `selftaught pretrain --help`, with underscores: task, encoder, minutes, size ...

    Returns:
        The run, finished or interrupted (see `Run.finished`).

    Raises:
        UserError: a setting, the images or the run folder cannot be used. A new run that fails before its first
            checkpoint leaves no folder, unless the disk is full: then `resume` continues it.
    """
    sources = [absolute(word) for word in as_paths(data)] if data else []
    if isinstance(settings.get("monitor"), str):
        settings["monitor"] = absolute(settings["monitor"])
    label_file = None if labels is None else absolute(str(labels))
    stop = stop or Stop()
    if resume:
        folder = _existing(out)
        with joined(str(settings.get("device", "auto"))):
            console = stderr_console(highlight=False, markup=False, soft_wrap=True)
            with folder.locked() if _writes() else nullcontext(), explained():
                _resume(folder, sources, label_file, settings, stop, console)
        return Run(folder.path)
    chosen = Settings.of(**settings)
    _ = chosen.general.budget, choose_device(chosen.general.device)
    require_photos_for_crops(sources, chosen)
    with joined(chosen.general.device):
        console = stderr_console(highlight=False, markup=False, soft_wrap=True)
        path = processes().first(lambda: Path(out) if out is not None else _new_path(sources, chosen))
        folder = RunFolder(path)
        with claimed(folder) if _writes() else nullcontext(), explained():
            built = in_turn(lambda: build(sources, chosen, None if label_file is None else Path(label_file), download))
            _require_divisible(built)
            with use_threads(chosen.general.threads):
                monitored = _monitored(chosen, built, download)
                _begin(folder, sources, label_file, chosen, built)
                _train(folder, built, None, stop, console, monitored)
    return Run(folder.path)


def _writes() -> bool:
    """Whether this process writes the run folder: of several processes the first one."""
    return processes().rank == 0


def _require_divisible(built: Built) -> None:
    """Raise an error if a batch cannot be split into equal parts, one for each process."""
    images, count = built.pretraining.batch_size, processes().count
    if images % count:
        near = [number for number in (images // count * count, (images // count + 1) * count) if number]
        raise UserError(
            f"--batch-size is the number of images of all {count} processes together and must be divisible by their "
            f"number, got {images}: try --batch-size {' or '.join(map(str, near))}."
        )


def _new_path(data: list[str], settings: Settings) -> Path:
    """runs/TASK-ENCODER-SOURCE, numbered if that is taken."""
    source = Path(data[0]).stem if data else "nothing"
    return numbered(Path("runs") / f"{settings.general.task}-{settings.general.encoder}-{source}".replace(":", "-"))


def numbered(path: Path) -> Path:
    """The path, or the first of path-2, path-3 ... that is not taken."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _existing(out: str | Path | None) -> RunFolder:
    if out is None:
        raise UserError("--resume needs --out, the folder of the run to continue.")
    folder = RunFolder(Path(out))
    folder.must_be_run()
    return folder


def _resume(
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
    if config.get("encoder.pretrained") and "encoder.pretrained" not in named:
        if not processes().first(lambda: exists(folder.checkpoints / "last.pt")):
            raise UserError(
                "this run starts from published weights, which would have to be downloaded: give --pretrained to allow "
                "it."
            )
        config = not_pretrained(config, "encoder.")  # the checkpoint has the weights
    settings = Settings.of(**config)
    label_file = None if original_labels is None else Path(original_labels)
    built = in_turn(lambda: build(original_data, settings, label_file, download=bool(data)))
    _require_divisible(built)
    _require_same_images(status, built)
    monitored = _monitored(settings, built, bool(data or named.get("monitor")))
    with use_threads(settings.general.threads):
        if extends:
            _extend(folder, built, Budget(**budget), device, console)
        _train(folder, built, device, stop, console, monitored)


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


def _begin(folder: RunFolder, data: list[str], labels: str | None, settings: Settings, built: Built) -> None:
    """Choose the device, the precision, the number of steps and so on, and record them."""
    general = settings.general
    fabric = make_fabric(choose_device(general.device), "32", built.pretraining.has_critic)
    require_batch_norm_inputs(built.pretraining, fabric)
    plan = make_plan(
        built.pretraining,
        general.budget,
        device=general.device,
        precision=general.precision,
        compiling=general.compile,
    )
    processes().first(lambda: _write_plan(folder, data, labels, settings, built, plan))


def _write_plan(
    folder: RunFolder, data: list[str], labels: str | None, settings: Settings, built: Built, plan: Plan
) -> None:
    general, source = settings.general, built.pretraining.source
    decided = replace(
        general,
        minutes=None,
        epochs=None,
        steps=plan.steps,
        size=built.pretraining.task.size,
        device=plan.device,
        precision=plan.precision,
        threads=torch.get_num_threads(),
        compile="on" if plan.compiled else "off",
        num_crops=len(source) if isinstance(source, Crops) else None,
    )
    if built.skipped:
        write_text(folder.skipped, "".join(f"{name}: {reason}\n" for name, reason in built.skipped), folder.path)
    folder.write_image_ids(source.content_ids)
    folder.update_status(
        status="running",
        began=datetime.now().astimezone().isoformat(timespec="seconds"),
        step=0,
        steps=plan.steps,
        seconds=0.0,
        minutes=general.minutes,
        requested={name: value for name, value in vars(general).items() if value != vars(decided)[name]},
        seconds_per_step=plan.seconds_per_step,
        seconds_per_epoch=plan.seconds_per_epoch,
        images=len(source),
        source=source.name,
        fingerprint=source.fingerprint,
        skipped=len(built.skipped),
        hardware=hardware(torch.device(plan.device)),
        processes=processes().count,
        version=selftaught.__version__,
        torch=torch.__version__,
    )
    # Last, because a folder is a run from the moment that it has a config.
    config = {"data": data, "labels": labels, **replace(settings, general=decided).values()}
    folder.write_config({name: to_yaml(value) for name, value in config.items()})


def _train(
    folder: RunFolder, built: Built, device: str | None, stop: Stop, console: Console, monitored: Source | None
) -> None:
    """Train a run from its last checkpoint, and record its status whatever happens."""
    config, status = processes().first(lambda: (folder.read_config(), folder.read_status()))
    run = replace(built.pretraining, steps=config["steps"], restarts=tuple(config.get("restarts") or ()))
    where = choose_device(device or config["device"])
    checkpoints = Checkpoints(folder.checkpoints, processes().first(folder.identity))
    every = max(1, run.steps // LINES)
    knn = None if monitored is None else KNNMonitor(monitored, run, every, where)
    chance = {**run.task.chance(run.source, run.batch_size), **(knn.chance if knn else {})}
    pace = planned_pace(status, run.steps, run.steps_per_epoch)
    log = Log(folder.log, run.steps, run.batch_size, chance, every, console, pace)
    if built.skipped:
        console.print(f"{len(built.skipped):,} images skipped, listed with reasons in {readable(str(folder.skipped))}")
    console.print(
        f"{config['task']} on {config['encoder']}, {len(run.source):,} images from {readable(run.source.name)}, "
        f"{run.steps:,} steps of {run.batch_size}, {config['size']} px, precision {config['precision']}, "
        f"{hardware(where)}" + (f", {processes().count} processes" if processes().count > 1 else "")
    )
    if _writes():
        folder.update_status(status="running", steps=run.steps, chance=chance)
    try:
        with stop_on_signals(stop), explained():
            fabric = make_fabric(where, config["precision"], run.has_critic)
            trainer = Trainer(fabric, run, config["compile"] == "on")
            watch = _watch(folder, run, every, where, console, knn) if _writes() else None
            with log:
                done = train(run, trainer, checkpoints, log, watch=watch, stop=stop)
            outcome = "finished" if done == run.steps else "interrupted"
            if _writes():
                _finalize(folder, outcome, built, checkpoints, log)
    except BaseException as error:
        if _writes():
            _record_failure(folder, built, checkpoints, log, error)
        raise
    if outcome == "finished":
        console.print(f"{readable(str(folder.path))}: {done:,} steps in {log.seconds / 60:.1f} minutes")
    else:
        again = f"selftaught pretrain --resume --out {readable(str(folder.path))}"
        console.print(f"interrupted after step {done:,} of {run.steps:,}; to continue: {again}")


def _watch(
    folder: RunFolder, run: Pretraining, every: int, where: torch.device, console: Console, knn: KNNMonitor | None
) -> Watch:
    """What is done at log lines."""
    with alone():
        return Watchers(folder, run, every, where, console, knn)


def _monitored(settings: Settings, built: Built, download: bool) -> Source | None:
    """The source of `--monitor`."""
    size = built.pretraining.task.size
    general = settings.general
    return in_turn(lambda: open_monitored(general.monitor, size, download, general.storage))


def _record_failure(folder: RunFolder, built: Built, checkpoints: Checkpoints, log: Log, error: BaseException) -> None:
    """Leave a run that failed in a state from which it can be resumed and probed."""
    lost = isinstance(error, ProcessLostError) or (isinstance(error, ReportedError) and error.resumable)
    status = "interrupted" if lost or isinstance(error, KeyboardInterrupt) else "failed"
    with suppress(UserError):  # the first error is the one to report; on a full disk the next is not far
        if log.begun:  # before that nothing was changed: a checkpoint that does not fit becomes no encoder
            _finalize(folder, status, built, checkpoints, log)
    with suppress(UserError):
        folder.update_status(status=status)


def _finalize(folder: RunFolder, status: str, built: Built, checkpoints: Checkpoints, log: Log) -> None:
    """Write the encoder of the last checkpoint and the status of the run."""
    saved, config = checkpoints.load(), folder.read_config()
    if saved is not None:
        description = describe_encoder(
            config["encoder"], built.pretraining.encoder, built.encoder_options, config["size"]
        )
        folder.write_encoder(saved["encoder"], {**description, "uses_tiles": built.pretraining.task.uses_tiles()})
    folder.update_status(status=status, step=0 if saved is None else saved["step"], seconds=log.seconds)
