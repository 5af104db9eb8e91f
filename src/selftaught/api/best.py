"""A resumable training that keeps the weights that are best on validation images."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console

from selftaught.contracts import Encoder
from selftaught.errors import DivergedError, readable
from selftaught.evaluation.baselines.cache import digest
from selftaught.runs.atomic import write_text
from selftaught.runs.checkpoint import Checkpoints
from selftaught.runs.files import exists, make_folder
from selftaught.runs.validated import read_typed
from selftaught.training.interruption import Stop
from selftaught.training.log import Log
from selftaught.training.loop import Pretraining, Trainer, train
from selftaught.training.plan import make_fabric

MAX_BYTES = 2**10
"""Maximum size of the file of validation scores."""
WORST = (0.0, -1e9)

Validate = Callable[[Encoder, torch.nn.ModuleDict], tuple[float, float]]
"""Encoder and heads -> two scores on the validation images, of which the second decides between equal first ones."""


class Stopped(Exception):
    """A signal stopped a training; its checkpoint is saved."""


def best_weights(folder: Path, run: Pretraining) -> Checkpoints:
    """The best weights of a training: `encoder`, `heads`, `scores` and `step`."""
    return Checkpoints(folder / "best", _identity(run))


def train_best(
    run: Pretraining,
    folder: Path,
    root: Path,
    *,
    validate: Validate,
    evaluations: int,
    device: torch.device,
    precision: str,
    name: str,
    console: Console,
    stop: Stop,
) -> tuple[float, float, int]:
    """Train to the end, or read what an earlier call recorded.

    Args:
        run: the training.
        folder: where its log, its checkpoint and the best weights are.
        root: the run folder that contains it.
        validate: measures the weights; called at most `evaluations` times.
        evaluations: how often.
        device: where to compute.
        precision: 32 or bf16.
        name: name of the first score in messages.
        console: where to report; training progress is shown on terminals only.
        stop: a requested stop is obeyed after the current step.

    Returns:
        The scores and the step of the best weights; step 0 if the training diverged.

    Raises:
        Stopped: it was stopped.
    """
    path = folder / "validation.json"
    if exists(path):
        return read_typed(path, root, tuple[float, float, int])
    make_folder(folder, root)
    best, every = best_weights(folder, run), -(-run.steps // evaluations)
    saved = best.load()
    top = (*WORST, 0) if saved is None else (*saved["scores"], saved["step"])

    def watch(step: int, encoder: Encoder, heads: torch.nn.ModuleDict, *rest: object) -> None:
        nonlocal top
        scores = validate(encoder, heads)
        if scores > top[:2]:
            top = (*scores, step)
            state = {"encoder": encoder.state_dict(), "heads": heads.state_dict()}
            best.save({**state, "scores": scores, "step": step})

    quiet = console if console.is_terminal else Console(quiet=True)
    log = Log(folder / "log.jsonl", run.steps, run.batch_size, run.task.chance(run.source, 1), every, quiet)
    trainer = Trainer(make_fabric(device, precision), run)
    try:
        with log:
            checkpoints = Checkpoints(folder / "checkpoint", _identity(run))
            done = train(run, trainer, checkpoints, log, watch=watch, stop=stop)
    except DivergedError:
        top, done = (*WORST, 0), run.steps
    if done < run.steps:
        raise Stopped
    write_text(path, json.dumps(top), root)
    place = readable(str(folder.relative_to(root)))
    console.print(f"{place}: validation {name} {top[0]:.3f} at step {top[2]:,} of {run.steps:,}")
    return top


def _identity(run: Pretraining) -> str:
    facts = [repr(run.task), repr(run.optimization), run.steps, run.batch_size, run.seed, run.source.fingerprint]
    return digest({"training": facts})
