"""Run folders of encoders that were not pretrained here: of baselines, and of encoders that other code trained."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch

import selftaught
from selftaught.api.run import Run
from selftaught.config.build import describe_encoder, fresh_encoder
from selftaught.config.types import to_yaml
from selftaught.contracts import Encoder, Source
from selftaught.errors import UserError
from selftaught.runs.atomic import write_text
from selftaught.runs.claim import claimed
from selftaught.runs.folder import RunFolder
from selftaught.runs.models import Config, LogLine, mismatch
from selftaught.training.machine import hardware


def save_encoder(
    encoder: Encoder,
    name: str,
    out: str | Path,
    *,
    method: str,
    source: Source,
    size: int,
    options: Mapping[str, Any] | None = None,
    steps: int = 0,
    seconds: float = 0.0,
    log: Sequence[Mapping[str, float]] = (),
    **settings: Any,
) -> Run:
    """Save an encoder that other code trained as a run folder, which is probed, compared and reported like any run.

    Args:
        encoder: made by `make_encoder(name, size=size, **options)`, with its trained weights.
        name: its name in `ENCODERS`.
        out: run folder, new or empty.
        method: how it was trained, such as "simclr of lightly 1.6.0"; the report names the run by it.
        source: the training images. A probe counts which of its test images are among them.
        size: side of the views in pixels.
        options: further options that it was built with, such as `width`.
        steps: number of optimizer steps taken.
        seconds: duration of the training.
        log: lines of the log in order, each with its `step` and numbers such as `seconds`, `images_per_second` and
            `loss`.
        settings: further settings to show in the report, such as `batch_size` and `seed`.

    Returns:
        The run. It has no pretext task, so it cannot be audited or resumed.

    Raises:
        UserError: the weights do not match the name and the options, or are not finite; a setting or a line of the log
            is not valid; or the folder is not empty.
    """
    built_with = {**(options or {}), "size": size}
    description = describe_encoder(name, encoder, built_with, size)
    _check_weights(encoder, description)
    device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    config: dict[str, Any] = {"data": [source.name], "task": method, "external": True, "encoder": name, "size": size}
    config |= {"steps": steps, "device": str(device), **settings}
    config |= {f"encoder.{key}": value for key, value in built_with.items() if key != "size"}
    config = {key: to_yaml(value) for key, value in config.items()}
    if reason := mismatch(Config, config):
        raise UserError(f"a setting of this run is not valid ({reason}): correct it.")
    for line in log:
        if reason := mismatch(LogLine, dict(line)):
            raise UserError(f"a line of the log is not valid ({reason}): every line needs its step, a whole number.")
    folder = RunFolder(Path(out))
    with claimed(folder):
        write_text(folder.log, "".join(json.dumps(dict(line)) + "\n" for line in log), folder.path)
        write_encoder_run(folder, encoder, description, source, device, config, steps, seconds)
    return Run(folder.path)


def write_encoder_run(
    folder: RunFolder,
    encoder: Encoder,
    description: Mapping[str, Any],
    source: Source,
    device: torch.device,
    config: Mapping[str, Any],
    steps: int,
    seconds: float,
) -> None:
    """Write the files of a finished run without a pretext task; the config comes last, because it makes it a run."""
    folder.write_encoder(encoder.state_dict(), {**description, "uses_tiles": False})
    folder.write_image_ids(source.content_ids)
    folder.update_status(
        status="finished",
        began=(datetime.now().astimezone() - timedelta(seconds=seconds)).isoformat(timespec="seconds"),
        step=steps,
        steps=steps,
        seconds=seconds,
        images=len(source),
        source=source.name,
        fingerprint=source.fingerprint,
        hardware=hardware(device),
        version=selftaught.__version__,
        torch=torch.__version__,
    )
    folder.write_config(config)


def _check_weights(encoder: Encoder, description: Mapping[str, Any]) -> None:
    """Raise an error if the encoder cannot be loaded from what will be saved."""
    try:
        fresh_encoder(dict(description), 0).load_state_dict(encoder.state_dict())
    except RuntimeError as error:
        raise UserError(
            f"the weights are not those of the encoder {description['name']} with these options: give the name and the "
            "options that it was built with."
        ) from error
    if not all(value.isfinite().all() for value in encoder.state_dict().values()):
        raise UserError("the weights contain infinity or NaN: train again with a lower learning rate.")
