"""A run folder: the seam between training, which writes it, and everything that reads it.

config.yaml  run.json  log.jsonl  checkpoint/  encoder.safetensors  encoder.json  shown/  probes/  figures/
skipped.txt  report.html
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from torch import Tensor

from selftaught.errors import UserError
from selftaught.training.weights import read_weights, weights_bytes
from selftaught.training.whole import write_bytes, write_error, write_text

PROBED = {".lock", ".writable", ".writable.part"}
"""What asking for a folder leaves when it is killed."""
DECIDED: dict[str, type] = {
    **dict.fromkeys(("task", "encoder", "device", "precision", "compile"), str),
    **dict.fromkeys(("steps", "size"), int),
    "data": list,
}
"""What the config of a run always has, because it was decided when it began."""
UNBEGUN = PROBED | {"skipped.txt", "skipped.txt.part", "run.json", "run.json.part", "config.yaml.part"}
"""What a run leaves that is killed before it has a config, beside its lock."""


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

    def claim(self) -> None:
        """Make the folder, which must not hold anything yet.

        Raises:
            UserError: there is something in it, or it cannot be made or written.
        """
        try:
            if self.path.exists() and not (self.path.is_dir() and self._is_unused()):
                what = "another run" if self.config.exists() else "something else"
                way = (
                    "give another --out, or --resume to go on with it" if self.config.exists() else "give another --out"
                )
                raise UserError(f"--out must be a new or empty folder, found {what} in {self.path}: {way}.")
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.path / ".writable", "")
            (self.path / ".writable").unlink()
        except OSError as error:
            raise write_error(self.path, error) from error

    def _is_unused(self) -> bool:
        """Whether nothing is in the folder but what a run leaves that was killed before it began."""
        names = {path.name for path in self.path.iterdir()}
        return names <= (UNBEGUN if ".lock" in names else PROBED)

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
        config = read_yaml(self.config)
        for name, kind in DECIDED.items():
            if not isinstance(found := config.get(name), kind):
                raise UserError(
                    f"the config of a run must have its {name}, found {found!r} in {self.config}: restore the file."
                )
        return config

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the settings of the run."""
        write_text(self.config, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))

    def read_status(self) -> dict[str, Any]:
        """How the run stands; empty where it never began."""
        return _read_json(self.status) if self.status.exists() else {}

    def update_status(self, **facts: Any) -> None:
        """Change some facts of how the run stands."""
        write_text(self.status, json.dumps({**self.read_status(), **facts}, indent=1))

    def identity(self, config: Mapping[str, Any] | None = None) -> str:
        """A digest of settings and images, but not of where they are: runs that agree in it are the same run.

        Args:
            config: the settings; None for those of the run as they are.
        """
        config, status = self.read_config() if config is None else config, self.read_status()
        settings = {name: config[name] for name in config if name not in ("data", "labels", "device")}
        said = json.dumps([settings, status.get("fingerprint")], sort_keys=True, default=str)
        return blake2b(said.encode(), digest_size=16).hexdigest()

    def write_encoder(self, weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
        """Write the encoder, which from then on needs nothing else of the run.

        The description first: it is the same all through a run, so whenever there are weights, theirs is beside them.
        """
        write_text(self.encoder, json.dumps(description, indent=1))
        write_bytes(self.weights, weights_bytes(weights))

    def read_encoder(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and description of the encoder."""
        self.must_be_run()
        if not self.weights.exists():
            raise UserError(
                f"a run must have trained an encoder, found none yet in {self.path}: go on with "
                f"`selftaught pretrain --resume --out {self.path}`."
            )
        description = _read_json(self.encoder)
        for name, kind in (("name", str), ("options", dict), ("size", int), ("layers", dict)):
            if not isinstance(description.get(name), kind):
                raise UserError(
                    f"the description of an encoder must have its {name}, found none in {self.encoder}: restore the "
                    "file or train again."
                )
        return read_weights(self.weights), description


def _read_json(path: Path) -> dict[str, Any]:
    """A file of the run that holds one object."""
    try:
        found = json.loads(path.read_text())
        reason = "" if isinstance(found, dict) else f"{type(found).__name__} instead of an object"
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)
    if reason:
        raise UserError(f"a file of a run must be readable, found {reason} in {path}: restore it or train again.")
    return dict(found)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds one mapping."""
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"a config must be a YAML file that can be read, found {reason}: check {path}.") from error
    if not isinstance(found, dict):
        raise UserError(f"a config must hold `name: value` lines, found {type(found).__name__} in {path}: check it.")
    return found
