"""Pretraining in one call: settings and images in, a run folder out."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import selftaught
from selftaught.api.resume import existing_run, resume_run
from selftaught.api.run import Run
from selftaught.api.session import monitored_source, require_divisible, train_folder, writes
from selftaught.config.build import Built, build, require_photos_for_crops
from selftaught.config.settings import Settings, absolute
from selftaught.config.types import to_yaml
from selftaught.contracts import Source
from selftaught.data.crops import Crops
from selftaught.data.photos import as_paths
from selftaught.display.console import stderr_console
from selftaught.modules.processes import processes
from selftaught.runs.atomic import write_text
from selftaught.runs.claim import claimed
from selftaught.runs.folder import RunFolder
from selftaught.training.distributed import explained, in_turn, joined
from selftaught.training.interruption import Stop
from selftaught.training.machine import hardware, use_threads
from selftaught.training.plan import Plan, choose_device, make_fabric, make_plan
from selftaught.training.trial import require_batch_norm_inputs


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
        folder = existing_run(out)
        with joined(str(settings.get("device", "auto"))):
            console = stderr_console(highlight=False, markup=False, soft_wrap=True)
            with folder.locked() if writes() else nullcontext(), explained():
                resume_run(folder, sources, label_file, settings, stop, console)
        return Run(folder.path)
    chosen = Settings.of(**settings)
    _ = chosen.general.budget, choose_device(chosen.general.device)
    require_photos_for_crops(sources, chosen)
    with joined(chosen.general.device):
        console = stderr_console(highlight=False, markup=False, soft_wrap=True)
        path = processes().first(lambda: Path(out) if out is not None else _new_path(sources, chosen))
        folder = RunFolder(path)
        with claimed(folder) if writes() else nullcontext(), explained():
            built = in_turn(lambda: build(sources, chosen, None if label_file is None else Path(label_file), download))
            require_divisible(built)
            with use_threads(chosen.general.threads):
                monitored = monitored_source(chosen, built, download)
                _begin(folder, sources, label_file, chosen, built)
                train_folder(folder, built, None, stop, console, monitored)
    return Run(folder.path)


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


def _seen_images(source: Source, encoder_from: Path | None) -> Tensor:
    """`Source.content_ids` of the images of a run, and of the run that its encoder comes from, if they are known."""
    before = None if encoder_from is None else RunFolder(Path(encoder_from)).read_image_ids()
    own = source.content_ids
    return own if before is None else torch.from_numpy(np.union1d(own.numpy(), before.numpy()))


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
    folder.write_image_ids(_seen_images(source, general.encoder_from))
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
