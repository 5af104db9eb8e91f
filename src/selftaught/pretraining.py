"""Pretraining as one call: settings and images in, a run folder out."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import selftaught
from selftaught.build import Built, build, describe_encoder
from selftaught.data.crops import Crops
from selftaught.data.photos import words
from selftaught.data.reader import readable
from selftaught.data.stored import Stored
from selftaught.errors import UserError
from selftaught.run import Run
from selftaught.settings import Settings, plain, tupled
from selftaught.shown import keep_shown
from selftaught.training.checkpoint import Checkpoints
from selftaught.training.folder import RunFolder
from selftaught.training.interruption import stop_on_signals
from selftaught.training.log import Log
from selftaught.training.loop import Trainer, train
from selftaught.training.machine import hardware, keep_freed_memory, use_threads
from selftaught.training.plan import choose_device, make_fabric, make_plan
from selftaught.training.whole import write_text

LINES = 400
"""About how many lines a log has, whatever the length of the run."""


def pretrain(
    data: str | Path | Sequence[str | Path] = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    labels: str | Path | None = None,
    **settings: Any,
) -> Run:
    """Train an encoder without labels.

    Args:
        data: where images come from: a folder, photos, parquet, a known name.
        out: the run folder, new or empty; by default a new one under `runs/`.
        resume: go on with the run in `out`; its settings are those it has, but for the device.
        labels: CSV file with path and label, for sources whose labels are elsewhere.
        settings: any of `selftaught pretrain --help`, with underscores: task, encoder, minutes, size ...

    Returns:
        The run, finished or interrupted (`Run.finished` says which).

    Raises:
        UserError: something was asked for that cannot be.
    """
    keep_freed_memory()
    console = Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)
    where = [_absolute(word) for word in words(data)] if data else []
    listed = None if labels is None else _absolute(str(labels))
    if resume:
        folder, chosen, built = _take_up(out, where, listed, settings)
    else:
        chosen = Settings.of(**settings)
        folder = RunFolder(Path(out) if out is not None else _new_path(where, chosen))
        _ = chosen.general.budget, choose_device(chosen.general.device)
        folder.must_be_free()
        built = build(where, chosen, None if listed is None else Path(listed))
        folder.claim()
    if built.skipped:
        where_said = readable(str(folder.skipped))
        console.print(f"{len(built.skipped):,} images skipped, listed with reasons in {where_said}")
    source = built.pretraining.source
    for note in source.notes if isinstance(source, Stored) else ():
        console.print(f"note: {note}.")
    with folder.locked(), use_threads(chosen.general.threads):
        if not resume:
            _begin(folder, where, listed, chosen, built)
        _carry_out(folder, built, chosen.general.device if resume else None, console)
    return Run(folder.path)


def _absolute(word: str) -> str:
    """A path that holds wherever the run is gone on with or repeated; names stay names."""
    return os.path.abspath(word) if os.path.lexists(word) else word  # noqa: PTH100 (links stay links)


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


def _take_up(
    out: str | Path | None, data: list[str], labels: str | None, given: Mapping[str, Any]
) -> tuple[RunFolder, Settings, Built]:
    """A run as it was begun; what is given again must be as it was given or decided then, but for the device."""
    if out is None:
        raise UserError("--resume needs the run to go on with, found no --out: name its folder.")
    folder = RunFolder(Path(out))
    config = {name: tupled(value) for name, value in folder.read_config().items()}
    begun = list(config.pop("data")), config.pop("labels", None)
    asked = folder.read_status().get("asked", {})  # so that the command that began it can be repeated with --resume
    differing = [
        name
        for name, value in given.items()
        if name != "device" and tupled(value) not in (config.get(name), asked.get(name, config.get(name)))
    ]
    differing += ["SOURCE"] if data and data != begun[0] else []
    differing += ["labels"] if labels is not None and labels != begun[1] else []
    if differing:
        raise UserError(
            f"a resumed run keeps its settings, found another {differing[0].replace('_', '-')}: leave it out, or begin "
            "a new run."
        )
    settings = Settings.of(**{**config, "device": given.get("device", config["device"])})
    return folder, settings, build(begun[0], settings, None if begun[1] is None else Path(begun[1]))


def _begin(folder: RunFolder, data: list[str], labels: str | None, settings: Settings, built: Built) -> None:
    """Decide what is to be decided and write it down; from here on the run is only carried out."""
    general, source = settings.general, built.pretraining.source
    plan = make_plan(
        built.pretraining,
        general.budget,
        device=general.device,
        precision=general.precision,
        compiling=general.compile,
    )
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
        crops=len(source) if isinstance(source, Crops) else None,
    )
    if built.skipped:
        write_text(folder.skipped, "".join(f"{name}: {reason}\n" for name, reason in built.skipped))
    folder.update_status(
        status="running",
        began=datetime.now().astimezone().isoformat(timespec="seconds"),
        step=0,
        steps=plan.steps,
        seconds=0.0,
        minutes=general.minutes,
        asked={name: value for name, value in vars(general).items() if value != vars(decided)[name]},
        seconds_per_step=plan.seconds_per_step,
        images=len(source),
        source=source.name,
        fingerprint=source.fingerprint,
        chance=built.pretraining.task.chance(source),
        skipped=len(built.skipped),
        hardware=hardware(torch.device(plan.device)),
        version=selftaught.__version__,
        torch=torch.__version__,
    )
    # Last, because a folder is a run from the moment that it has a config.
    config = {"data": data, "labels": labels, **replace(settings, general=decided).flat()}
    folder.write_config({name: plain(value) for name, value in config.items()})


def _carry_out(folder: RunFolder, built: Built, device: str | None, console: Console) -> None:
    """Carry a run out from where it stands, and leave it in a state that says so whatever happens."""
    config, status = folder.read_config(), folder.read_status()
    run = replace(built.pretraining, steps=config["steps"])
    if status.get("fingerprint") != run.source.fingerprint:
        raise UserError(
            f"a resumed run needs the images it began with, found others in {run.source.name}: restore them, or begin "
            "a new run."
        )
    where = choose_device(device or config["device"])
    checkpoints = Checkpoints(folder.checkpoints, folder.identity())
    every = max(1, run.steps // LINES)
    log = Log(folder.log, run.steps, run.batch_size, run.task.chance(run.source), every, console)
    console.print(
        f"{config['task']} on {config['encoder']}, {len(run.source):,} images from {run.source.name}, "
        f"{run.steps:,} steps of {run.batch_size}, {config['size']} px, precision {config['precision']}, "
        f"{hardware(where)}"
    )
    folder.update_status(status="running")
    try:
        trainer = Trainer(make_fabric(where, config["precision"]), run, config["compile"] == "on")
        with stop_on_signals() as stop, log:
            done = train(run, trainer, checkpoints, log, watch=keep_shown(folder, run, every), stop=stop)
        stands = "finished" if done == run.steps else "interrupted"
        _leave(folder, stands, built, checkpoints, log)
    except BaseException as error:
        stands = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        with suppress(UserError):  # the first mistake is the one to tell of; on a full disk the next is not far
            if log.begun:  # before that nothing was changed: a checkpoint that does not fit becomes no encoder
                _leave(folder, stands, built, checkpoints, log)
        with suppress(UserError):
            folder.update_status(status=stands)
        raise
    if stands == "finished":
        console.print(f"{readable(str(folder.path))}: {done:,} steps in {log.seconds / 60:.1f} minutes")
    else:
        again = f"selftaught pretrain --resume --out {readable(str(folder.path))}"
        console.print(f"stopped after step {done:,} of {run.steps:,}; to go on: {again}")


def _leave(folder: RunFolder, stands: str, built: Built, checkpoints: Checkpoints, log: Log) -> None:
    """Write the encoder of the last good checkpoint, which after a failure is all there is, and how the run stands."""
    saved, config = checkpoints.load(), folder.read_config()
    if saved is not None:
        description = describe_encoder(
            config["encoder"], built.pretraining.encoder, built.encoder_options, config["size"]
        )
        folder.write_encoder(saved["encoder"], {**description, "tiled": built.pretraining.task.tiled})
    folder.update_status(status=stands, step=0 if saved is None else saved["step"], seconds=log.seconds)
