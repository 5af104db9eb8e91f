"""A run folder, read: all that the report knows of a run comes through here.

A run may be unfinished, interrupted or not yet probed, so only `config.yaml` must be there and everything else may be
missing. A log whose last line was cut short is read up to there.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor

from selftaught.errors import UserError


@dataclass(frozen=True)
class Record:
    """What a run folder says."""

    path: Path
    """The folder, as the user gave it."""
    name: str
    """What the run is called in tables: the folder's name, with its parent's where two would be alike."""
    config: Mapping[str, Any]
    state: Mapping[str, Any]
    """`run.json`; empty where there is none."""
    log: Sequence[Mapping[str, float]]
    """The numbers of each line of `log.jsonl`, in order; every line has a `step`."""
    encoder: Mapping[str, Any]
    """`encoder.json`; empty where there is none."""
    probes: Sequence[Mapping[str, Any]]
    """`probes/*.json` that name at least one layer, by file name; none of an encoder that was trained further since."""
    audits: Sequence[Mapping[str, Any]]
    """`audit/*.json`, in the same way."""
    invariances: Sequence[Mapping[str, Any]]
    """`invariance/*.json`, in the same way."""
    shown: Mapping[str, Path]
    """Images that the task shows for people: name -> PNG; the final ones, else the last from during training."""
    earlier: Mapping[str, Sequence[tuple[int, Path]]]
    """The same before them, where they were others then: name -> steps and PNGs, in order."""
    skipped: Sequence[str]
    """Images that were left out and why, one line each."""

    @property
    def published(self) -> bool:
        """Whether training began with published weights."""
        return bool(self.config.get("pretrained"))

    @property
    def pretext(self) -> str:
        """The pretext task and on which encoder."""
        return f"{self.config.get('task', 'n.a.')} on {self.config.get('encoder', 'n.a.')}"

    @property
    def status(self) -> str:
        """How it stands: finished, interrupted, running, failed, or unknown."""
        return str(self.state.get("status", "unknown"))

    @property
    def step(self) -> int | None:
        """Optimizer steps taken."""
        taken = self.state.get("step", self.log[-1]["step"] if self.log else None)
        return int(taken) if is_number(taken) else None

    @property
    def minutes(self) -> float | None:
        """Minutes of training."""
        seconds = self.state.get("seconds", self.log[-1].get("seconds") if self.log else None)
        return float(seconds) / 60 if is_number(seconds) else None

    @property
    def images_seen(self) -> int | None:
        """Steps times batch size: an image counts as often as it was drawn."""
        size = self.config.get("batch_size")
        return self.step * int(size) if self.step is not None and is_number(size) else None

    @property
    def source(self) -> str:
        """Where the images came from."""
        data = self.config.get("data", [])
        return str(self.state.get("source") or (data if isinstance(data, str) else ", ".join(map(str, data))) or "n.a.")

    @property
    def filters(self) -> Tensor | None:
        """(F, 1 to 3, h, w): the first convolution of the encoder, or None where there is none to show."""
        name, path = self.encoder.get("filters"), self.path / "encoder.safetensors"
        if not name or not path.is_file():
            return None
        try:
            with safe_open(str(path), framework="pt") as weights:
                weight: Tensor = weights.get_tensor(str(name))
        except (SafetensorError, OSError):
            return None
        return weight if weight.ndim == 4 and weight.shape[1] <= 3 and weight.shape[2] > 1 else None


def runs_among(paths: Sequence[Path]) -> list[Path]:
    """The run folders among several paths, such as `runs/*`, where pages and other files may lie between them.

    One path alone is a run or a mistake, and so are several of which none is one.
    """
    found = [path for path in paths if (path / "config.yaml").is_file()] if len(paths) > 1 else []
    return found or list(paths)


def read_records(runs: Sequence[Path]) -> list[Record]:
    """Read several run folders; runs whose folders have the same name are told apart by their parents' names.

    Raises:
        UserError: if there is none, if one is no run folder, or if one holds a file that cannot be read.
    """
    if not runs:
        raise UserError("a report needs at least one run folder, but none was given: name one, such as runs/rotation.")
    names = [text_name(run.resolve().name) for run in runs]
    return [
        read_record(run, name if names.count(name) == 1 else f"{text_name(run.resolve().parent.name)}/{name}")
        for run, name in zip(runs, names, strict=True)
    ]


def _is_current(probe: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    """Whether a probe asked the encoder as it is now: once an interrupted run is resumed it does not hold."""
    return "step" not in probe or "step" not in state or bool(probe["step"] == state["step"])


def read_record(run: Path, name: str) -> Record:
    """Read one run folder.

    Args:
        run: the folder that `selftaught pretrain` wrote.
        name: what to call it.
    """
    config, state = read_config(run), read_json(run / "run.json")

    def found(folder: str, filled: str) -> list[Mapping[str, Any]]:
        read = [read_json(path) for path in sorted(run.glob(f"{folder}/*.json"))]
        return [one for one in read if one.get(filled) and _is_current(one, state)]

    shown = {path.stem: path for path in find_shown(run / "shown")}
    return Record(
        path=run,
        name=name,
        config=config,
        state=state,
        log=read_log(run / "log.jsonl"),
        encoder=read_json(run / "encoder.json"),
        probes=found("probes", "layers"),
        audits=found("audit", "answers"),
        invariances=found("invariance", "rows"),
        shown=shown,
        earlier={name: find_earlier(run / "shown", path) for name, path in shown.items()},
        skipped=read_lines(run / "skipped.txt"),
    )


def read_config(run: Path) -> Mapping[str, Any]:
    """`config.yaml`, whose presence makes a folder a run."""
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(f"a run folder holds config.yaml, but {run} has none: give a folder that `pretrain` wrote.")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as problem:
        raise UserError(
            f"{path} must be YAML, but it cannot be read ({one_line(problem)}): mend or remove it."
        ) from None
    if not isinstance(config, dict):
        raise UserError(f"{path} must hold settings by name, but it holds {type(config).__name__}: mend or remove it.")
    return config


def read_json(path: Path) -> Mapping[str, Any]:
    """One JSON object, or nothing where there is no such file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as problem:
        raise UserError(f"{path} must be JSON, but it cannot be read ({one_line(problem)}): remove it.") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} must hold one JSON object, but it holds {type(found).__name__}: remove it.")
    return found


def read_log(path: Path) -> list[Mapping[str, float]]:
    """The numbers of each line; a line that was cut short, as the last may be, or that has no step is left out."""
    lines: list[Mapping[str, float]] = []
    for text in read_lines(path):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and is_number(line.get("step")):
            lines.append({name: float(value) for name, value in line.items() if isinstance(value, int | float)})
    return lines


def read_lines(path: Path) -> list[str]:
    """The lines of a text that are not blank; none where there is no such file."""
    if not path.is_file():
        return []
    return [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


def find_shown(folder: Path) -> list[Path]:
    """The final images; where a run did not get that far, the last ones from during training."""
    final, earlier = sorted(folder.glob("*.png")), find_steps(folder)
    return final or (sorted(earlier[-1].glob("*.png")) if earlier else [])


def find_earlier(folder: Path, shown: Path) -> list[tuple[int, Path]]:
    """Images of the same name from during training, by step; those that never change are not worth a second look."""
    found = [
        (int(digits), step / shown.name)
        for step in find_steps(folder)
        if (digits := step.name.removeprefix("step-")).isdecimal() and (step / shown.name).is_file()
    ]
    last = shown.read_bytes()
    return [(step, path) for step, path in found if path.read_bytes() != last]


def find_steps(folder: Path) -> list[Path]:
    """The folders of images from during training, in order."""
    return sorted(folder.glob("step-*"), key=lambda step: (len(step.name), step.name))


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number (a truth value is none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def text_name(name: str) -> str:
    """A file's name as text that can be written: bytes that are no UTF-8 become question marks."""
    return name.encode("utf-8", errors="replace").decode("utf-8")


def last_part(name: str) -> str:
    """What a source is called without its folders: "a/b/cifar10 (train)" is "cifar10 (train)"."""
    return ", ".join(part.rstrip("/").rsplit("/", 1)[-1] for part in name.split(", "))


def one_line(problem: Exception) -> str:
    """What went wrong, on one line."""
    return " ".join(str(problem).split())
