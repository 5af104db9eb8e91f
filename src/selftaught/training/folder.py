"""A run folder: the seam between training, which writes it, and everything that reads it.

config.yaml  run.json  log.jsonl  checkpoint/  encoder.safetensors  encoder.json  shown/  probes/  figures/
skipped.txt  report.html
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from selftaught.errors import UserError


class RunFolder:
    """Paths of a run and how its files are written: whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.status, self.log = path / "config.yaml", path / "run.json", path / "log.jsonl"
        self.checkpoints, self.shown, self.probes = path / "checkpoint", path / "shown", path / "probes"
        self.weights, self.encoder, self.skipped = (
            path / "encoder.safetensors",
            path / "encoder.json",
            path / "skipped.txt",
        )

    def must_be_free(self) -> None:
        """Refuse a folder that holds something, or that cannot be made or written; leave no trace of having asked."""
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self.claim()
        for path in made:
            path.rmdir()

    def claim(self) -> None:
        """Make the folder, which must not hold anything yet.

        Raises:
            UserError: there is something in it, or it cannot be made or written.
        """
        try:
            if self.path.exists() and (not self.path.is_dir() or set(self.path.iterdir()) - {self.path / ".lock"}):
                what = "another run" if self.config.exists() else "something else"
                way = (
                    "give another --out, or --resume to go on with it" if self.config.exists() else "give another --out"
                )
                raise UserError(f"--out must be a new or empty folder, found {what} in {self.path}: {way}.")
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.path / ".writable", "")
            (self.path / ".writable").unlink()
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def must_be_run(self) -> None:
        """Refuse a folder that no pretraining wrote."""
        if not self.config.exists():
            found = "a folder without config.yaml" if self.path.is_dir() else "nothing"
            raise UserError(
                f"a run must be a folder written by `selftaught pretrain`, found {found} at {self.path}: "
                "check the path."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder: two processes must not train one run."""
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"one process at a time may train a run, found another at work on {self.path}: wait for it or stop it."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def read_config(self) -> dict[str, Any]:
        """The settings of the run, flat, and its `data`."""
        self.must_be_run()
        return read_yaml(self.config)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the settings of the run."""
        write_text(self.config, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))

    def read_status(self) -> dict[str, Any]:
        """How the run stands; empty where it never began."""
        return json.loads(self.status.read_text()) if self.status.exists() else {}

    def update_status(self, **facts: Any) -> None:
        """Change some facts of how the run stands."""
        write_text(self.status, json.dumps({**self.read_status(), **facts}, indent=1))

    def write_encoder(self, weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
        """Write the encoder, which from then on needs nothing else of the run."""
        part = self.weights.with_suffix(".part")
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, part)
        part.replace(self.weights)
        write_text(self.encoder, json.dumps(description, indent=1))

    def read_encoder(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and description of the encoder."""
        self.must_be_run()
        if not self.weights.exists():
            raise UserError(
                f"a run must have trained an encoder, found none yet in {self.path}: go on with "
                f"`selftaught pretrain --resume --out {self.path}`."
            )
        try:
            return load_file(self.weights), json.loads(self.encoder.read_text())
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(
                f"the encoder of a run must be readable, found {error} in {self.path}: restore the file or train again."
            ) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds one mapping."""
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"a config must be a YAML file that can be read, found {reason}: check {path}.") from error
    if not isinstance(found, dict):
        raise UserError(f"a config must hold `name: value` lines, found {type(found).__name__} in {path}: check it.")
    return found


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise _cannot_write(path.parent, error) from error


def _cannot_write(path: Path, error: OSError) -> UserError:
    reason = (error.strerror or str(error)).lower()
    return UserError(f"a run folder must be writable, found {reason} at {path}: give another --out.")
