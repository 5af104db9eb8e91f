"""Initial weights that are not random: those of another run's encoder; names of those computed from images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftaught.config.types import to_yaml
from selftaught.contracts import Encoder
from selftaught.errors import UserError, readable
from selftaught.runs.folder import RunFolder

COMPUTED = ("kmeans", "pca")
"""Initial weights that are computed from the images of the run."""


def is_computed(start: Path) -> bool:
    """Whether initial weights are computed; given paths of existing folders are absolute."""
    return str(start) in COMPUTED


def start_from(encoder: Encoder, name: str, options: Mapping[str, Any], run: Path) -> None:
    """Replace the weights of an encoder, buffers included, by those in a run folder.

    Args:
        encoder: the encoder of the new run.
        name: its name.
        options: its options.
        run: folder of a pretraining, of a baseline or of an encoder that other code trained.

    Raises:
        UserError: the folder is not a run or has no encoder yet, or its encoder does not fit.
    """
    weights, description = RunFolder(run).read_encoder()
    place = readable(str(run))
    if description["name"] != name:
        raise UserError(
            f"--encoder-from expects a run with the encoder {name}, but {place} has {readable(description['name'])}: "
            "choose that with --encoder, or another run."
        )
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        theirs, ours = description["options"], {key: to_yaml(value) for key, value in options.items()}
        differing = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        reason = f"they differ in {readable(', '.join(differing))}" if differing else "its weights have other shapes"
        raise UserError(
            f"the encoder in {place} does not fit that of this run ({reason}): give --encoder-from a run with the same "
            "encoder options and size."
        ) from error
    if not all(value.isfinite().all() for value in weights.values()):
        raise UserError(f"the weights in {place} contain infinity or NaN: give --encoder-from another run.")
