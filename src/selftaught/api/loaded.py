"""The encoder of a run, loaded for an evaluation, with what identifies it in the results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch

from selftaught.config.build import fresh_encoder, load_encoder
from selftaught.contracts import Encoder
from selftaught.encoders.inputs import require_input_sizes
from selftaught.errors import UserError, require_between
from selftaught.limits import SIZE
from selftaught.runs.folder import RunFolder
from selftaught.runs.weights import weights_digest
from selftaught.training.plan import choose_device


class Arguments(TypedDict):
    """Arguments of every evaluation of an encoder."""

    encoder: Encoder
    fresh: Callable[[int], Encoder]
    """Seed -> the same encoder with random weights."""
    size: int
    """Side of the views in pixels."""
    device: torch.device
    recalibrate: bool


@dataclass(frozen=True)
class Loaded:
    """The encoder of a run, ready to be evaluated."""

    arguments: Arguments
    setting: Mapping[str, object]
    """The settings from which the encoder was built."""
    stamp: Mapping[str, object]
    """`step` at which the weights were saved and a digest of the `weights`: part of every result."""


def load_trained(folder: RunFolder, size: int | None, device: str) -> Loaded:
    """Load the encoder of a run.

    Args:
        folder: the run.
        size: side of the views in pixels; that of pretraining where None.
        device: auto, cpu, cuda ...

    Raises:
        UserError: the encoder cannot process views of this size.
    """
    step = _step(folder)
    while True:  # a run being resumed may save new weights between two reads
        encoder, description = load_encoder(folder), folder.read_description()
        step, before = _step(folder), step
        if step == before:
            break
    side = int(description["size"]) if size is None else size
    require_between("--size", side, *SIZE)
    require_input_sizes(encoder, {"view": side})
    arguments = Arguments(
        encoder=encoder,
        fresh=_fresh(encoder, description),
        size=side,
        device=choose_device(device),
        recalibrate=bool(description.get("uses_tiles")),
    )
    setting = {name: description[name] for name in ("name", "options", "size")}
    return Loaded(arguments, setting, stamp_of(step, encoder))


def stamp_of(step: object, encoder: Encoder) -> dict[str, object]:
    """The step and digest that identify the weights of a result."""
    return {"step": step, "weights": weights_digest(encoder.state_dict())}


def run_names(paths: Sequence[Path]) -> list[str]:
    """The names of run folders; with the folder above them where two are equal.

    Raises:
        UserError: a run is given twice.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("a run is given twice: give every run once.")
    names = [path.resolve().name for path in paths]
    return [
        name if names.count(name) == 1 else f"{path.resolve().parent.name}/{name}"
        for name, path in zip(names, paths, strict=True)
    ]


def _step(folder: RunFolder) -> object:
    return folder.read_status().get("step")


def _fresh(encoder: Encoder, description: Mapping[str, Any]) -> Callable[[int], Encoder]:
    """A function from a seed to the same encoder with random weights."""

    def fresh(seed: int) -> Encoder:
        made = fresh_encoder(dict(description), seed)
        made.fit_like(encoder)  # a palette or a dictionary is not learned by the task
        return made

    return fresh
