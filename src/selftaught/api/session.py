"""Training of a run folder from its last checkpoint, with its status recorded whatever happens."""

from contextlib import suppress
from dataclasses import replace

import torch
from rich.console import Console

from selftaught.api.watching import Watchers, open_monitored
from selftaught.config.build import (
    Built,
    describe_encoder,
)
from selftaught.config.settings import Settings
from selftaught.contracts import Source
from selftaught.display.progress import duration
from selftaught.errors import ProcessLostError, ReportedError, UserError, readable
from selftaught.evaluation.knn_monitor import KNNMonitor
from selftaught.modules.processes import alone, processes
from selftaught.runs.checkpoint import Checkpoints
from selftaught.runs.folder import RunFolder
from selftaught.training.distributed import explained, in_turn
from selftaught.training.interruption import Stop, stop_on_signals
from selftaught.training.log import Log
from selftaught.training.loop import Pretraining, Trainer, Watch, train
from selftaught.training.machine import hardware
from selftaught.training.pace import planned_pace
from selftaught.training.plan import choose_device, make_fabric

LINES = 400
"""About how many lines a log has, whatever the length of the run."""


def writes() -> bool:
    """Whether this process writes the run folder: of several processes the first one."""
    return processes().rank == 0


def require_divisible(built: Built) -> None:
    """Raise an error if a batch cannot be split into equal parts, one for each process."""
    images, count = built.pretraining.batch_size, processes().count
    if images % count:
        near = [number for number in (images // count * count, (images // count + 1) * count) if number]
        raise UserError(
            f"--batch-size is the number of images of all {count} processes together and must be divisible by their "
            f"number, got {images}: try --batch-size {' or '.join(map(str, near))}."
        )


def train_folder(
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
    if writes():
        folder.update_status(status="running", steps=run.steps, chance=chance)
    try:
        with stop_on_signals(stop), explained():
            fabric = make_fabric(where, config["precision"], run.has_critic)
            trainer = Trainer(fabric, run, config["compile"] == "on")
            watch = _watch(folder, run, every, where, console, knn) if writes() else None
            with log:
                done = train(run, trainer, checkpoints, log, watch=watch, stop=stop)
            outcome = "finished" if done == run.steps else "interrupted"
            if writes():
                _finalize(folder, outcome, built, checkpoints, log)
    except BaseException as error:
        if writes():
            _record_failure(folder, built, checkpoints, log, error)
        raise
    if outcome == "finished":
        console.print(f"{readable(str(folder.path))}: {done:,} steps in {duration(log.seconds)}")
    else:
        again = f"selftaught pretrain --resume --out {readable(str(folder.path))}"
        console.print(f"interrupted after step {done:,} of {run.steps:,}; to continue: {again}")


def _watch(
    folder: RunFolder, run: Pretraining, every: int, where: torch.device, console: Console, knn: KNNMonitor | None
) -> Watch:
    """The callback at log lines."""
    with alone():
        return Watchers(folder, run, every, where, console, knn)


def monitored_source(settings: Settings, built: Built, download: bool) -> Source | None:
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
