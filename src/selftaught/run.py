"""Pretraining as one call, and the run it leaves behind: what Python users and the command line both use."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

import selftaught
from selftaught.build import Built, build, describe_encoder, fresh_encoder, load_encoder
from selftaught.contracts import Encoder, Source, Views
from selftaught.data import open_splits
from selftaught.data.crops import Crops
from selftaught.data.photos import words
from selftaught.downstream.layers import Protocol, probe_layers
from selftaught.downstream.table import ProbeTable
from selftaught.errors import UserError
from selftaught.figures.grid import save_png
from selftaught.settings import Settings, plain
from selftaught.training.checkpoint import Checkpoints
from selftaught.training.folder import RunFolder, write_text
from selftaught.training.interruption import stop_on_signals
from selftaught.training.log import Log
from selftaught.training.loop import Trainer, train
from selftaught.training.machine import hardware, keep_freed_memory
from selftaught.training.plan import choose_device, make_fabric, make_plan

LINES = 400
"""About how many lines a log has, whatever the length of the run."""
SHOWN = 32
"""Pictures in a grid."""


class Run:
    """A folder that a pretraining wrote.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder(Path(path))
        self.folder.must_be_run()

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.folder.path

    @property
    def encoder(self) -> Encoder:
        """The trained encoder, in eval mode on the CPU."""
        return load_encoder(self.folder)

    def probe(
        self,
        data: str | Path | tuple[Source, Source],
        *,
        seeds: int = 1,
        protocol: Protocol = "fast",
        size: int | None = None,
        limit: int | None = None,
        labels: Path | None = None,
        device: str = "auto",
    ) -> ProbeTable:
        """Ask every layer what it learned, beside random weights, raw pixels and chance.

        Args:
            data: labelled images: a name or path, or sources to teach and to judge the probe.
            seeds: how many probes the spread is over.
            protocol: "fast" (closed form) or "paper" (SGD with augmentation).
            size: side of the views in pixels; by default that of pretraining.
            limit: take only this many images of each part.
            labels: CSV file with path and label.
            device: auto, cpu, cuda ...

        Returns:
            The table, which is also written to `probes/` in the run.
        """
        keep_freed_memory()
        encoder, description = self.encoder, json.loads(self.folder.encoder.read_text())
        size = size or description["size"]
        parts = data if isinstance(data, tuple) else open_splits(data, side=size, limit=limit, labels=labels)
        train_part, test_part = parts
        table = probe_layers(
            encoder,
            lambda seed: fresh_encoder(description, seed),
            train_part,
            test_part,
            size=size,
            seeds=seeds,
            protocol=protocol,
            device=choose_device(device),
        )
        self.folder.probes.mkdir(exist_ok=True)
        name = re.sub(r"\W+", "-", Path(train_part.name).name.removesuffix("(train)")).strip("-")
        write_text(self.folder.probes / f"{name or 'images'}-{protocol}.json", json.dumps(table.to_json(), indent=1))
        return table

    def report(self, out: Path | None = None) -> Path:
        """Write the run as one self-contained page; returns where it is."""
        from selftaught.report import write_report

        return write_report([self.path], out or self.path / "report.html")


def pretrain(
    data: str | Path | Sequence[str | Path] = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    labels: Path | None = None,
    **settings: Any,
) -> Run:
    """Train an encoder without labels.

    Args:
        data: where images come from: a folder, photos, parquet, a known name.
        out: the run folder, new or empty; by default a new one under `runs/`.
        resume: go on with the run in `out`; its settings are those it has.
        labels: CSV file with path and label, for sources whose labels are elsewhere.
        settings: any of `selftaught pretrain --help`, with underscores: task, encoder, minutes, size ...

    Returns:
        The run, finished or interrupted (`run.json` says which).
    """
    spec = words(data) if data else []
    if resume:
        if out is None:
            raise UserError("--resume needs the run to go on with, found no --out: name its folder.")
        folder = RunFolder(Path(out))
        spec, labels, chosen = _resumed(folder, spec, settings)
    else:
        chosen = Settings.of(**settings)
        folder = RunFolder(Path(out)) if out is not None else _new_folder(spec, chosen)
        # What can be refused is refused before any image is decoded.
        _ = chosen.general.budget, choose_device(chosen.general.device)
        folder.must_be_free()
    keep_freed_memory()
    console = Console(file=sys.stderr)
    built = build(spec, chosen, labels)
    if built.skipped:
        console.print(f"{len(built.skipped):,} images skipped, listed with reasons in {folder.skipped}", soft_wrap=True)
    if not resume:
        folder.claim()
    with folder.locked():
        if not resume:
            _begin(folder, spec, labels, chosen, built)
        _go(folder, built, console)
    return Run(folder.path)


def _resumed(folder: RunFolder, spec: list[str], given: Mapping[str, Any]) -> tuple[list[str], Path | None, Settings]:
    """What a run was begun with; what is given again must be the same."""
    config: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in folder.read_config().items()}
    data, labels = list(config.pop("data")), config.pop("labels", None)
    differing = [name for name, value in given.items() if plain(value) != plain(config.get(name))]
    if (spec and spec != data) or differing:
        what = f"--{differing[0].replace('_', '-')}" if differing else f"SOURCE {' '.join(spec)}"
        raise UserError(f"a resumed run keeps its settings, found another {what}: leave it out, or begin a new run.")
    return data, Path(labels) if labels else None, Settings.of(**config)


def _new_folder(spec: list[str], settings: Settings) -> RunFolder:
    """runs/TASK-ENCODER-SOURCE, numbered if that is taken."""
    source = Path(spec[0]).stem if spec else "nothing"
    name = f"{settings.general.task}-{settings.general.encoder.replace(':', '-').replace('/', '-')}-{source}"
    path, number = Path("runs") / name, 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{number}"
    return RunFolder(path)


def _begin(folder: RunFolder, spec: list[str], labels: Path | None, settings: Settings, built: Built) -> None:
    """Decide what is to be decided and write it down; from here on the run is only carried out."""
    general, pretraining = settings.general, built.pretraining
    plan = make_plan(
        pretraining,
        general.budget,
        device=general.device,
        precision=general.precision,
        compiling=general.compile,
    )
    source = pretraining.source
    resolved = replace(
        settings,
        general=replace(
            general,
            minutes=None,
            epochs=None,
            steps=plan.steps,
            size=pretraining.task.size,
            precision=plan.precision,
            compile="on" if plan.compiled else "off",
            crops=len(source) if isinstance(source, Crops) else None,
        ),
    )
    config = {"data": spec, **({"labels": str(labels)} if labels else {}), **resolved.flat()}
    folder.write_config({key: plain(value) for key, value in config.items()})
    folder.update_status(
        status="running",
        began=datetime.now().astimezone().isoformat(timespec="seconds"),
        step=0,
        steps=plan.steps,
        seconds=0.0,
        minutes=general.minutes,
        seconds_per_step=plan.seconds_per_step,
        images=len(source),
        source=source.name,
        fingerprint=source.fingerprint,
        chance=pretraining.task.chance(source),
        skipped=len(built.skipped),
        hardware=hardware(torch.device(plan.device)),
        version=selftaught.__version__,
        torch=torch.__version__,
    )
    if built.skipped:
        write_text(folder.skipped, "".join(f"{name}: {reason}\n" for name, reason in built.skipped))


def _go(folder: RunFolder, built: Built, console: Console) -> None:
    """Carry a run out from where it stands."""
    config, status = folder.read_config(), folder.read_status()
    run = replace(built.pretraining, steps=config["steps"])
    if status["fingerprint"] != run.source.fingerprint:
        raise UserError(
            f"a resumed run needs the images it began with, found others in {run.source.name}: restore them, or begin "
            "a new run."
        )
    fabric = make_fabric(choose_device(config["device"]), config["precision"])
    trainer = Trainer(fabric, run, config["compile"] == "on")
    log = Log(folder.log, run.steps, run.batch_size, status["chance"], max(1, run.steps // LINES), console)
    console.print(
        f"{config['task']} on {config['encoder']}, {len(run.source):,} images from {run.source.name}, "
        f"{run.steps:,} steps of {run.batch_size}, {config['size']} px, precision {config['precision']}, "
        f"{status['hardware']}",
        soft_wrap=True,
        highlight=False,
    )

    def watch(step: int, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> None:
        if step == run.steps or step // log.every % (LINES // 4) == 1:
            encoder.eval(), heads.eval()
            with torch.no_grad():
                for name, pictures in run.task.show(encoder, heads, views).items():
                    _keep_grid(folder, step, name, pictures[:SHOWN])

    done = 0
    try:
        with stop_on_signals() as stop, log:
            done = train(run, trainer, Checkpoints(folder.checkpoints), log, watch=watch, stop=stop)
    except BaseException:
        folder.update_status(status="failed")
        raise
    description = describe_encoder(config["encoder"], trainer.encoder, built.encoder_options, config["size"])
    folder.write_encoder(trainer.encoder.state_dict(), description)
    finished = done == run.steps
    folder.update_status(status="finished" if finished else "interrupted", step=done, seconds=log.seconds)
    if finished:
        console.print(f"{folder.path}: {done:,} steps in {log.seconds / 60:.1f} minutes", soft_wrap=True)
    else:
        console.print(
            f"stopped after step {done:,} of {run.steps:,}; to go on: selftaught pretrain --resume --out {folder.path}",
            soft_wrap=True,
        )


def _keep_grid(folder: RunFolder, step: int, name: str, pictures: Tensor) -> None:
    for place in (folder.shown / f"step-{step:06d}", folder.shown):
        place.mkdir(parents=True, exist_ok=True)
        save_png(pictures.float().cpu(), place / f"{name}.png")
