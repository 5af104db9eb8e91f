"""Content of a run folder, as the report needs it.

A run may be unfinished, interrupted or not yet probed, so only `config.yaml` is required and all other files are
optional. A log whose last line is incomplete is read up to that line.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from torch import Tensor

from selftaught.errors import UserError, readable
from selftaught.evaluation.baselines import FIXED
from selftaught.runs.files import exists, list_folder, read_limited
from selftaught.runs.folder import RunFolder
from selftaught.runs.sections import value_of
from selftaught.runs.weights import read_digest, read_weight

MAX_FILTERS, MAX_FILTER_SIDE = 2048, 64
"""Maximum number of filters that are drawn, and their maximum side in pixels."""
MAX_STEPS = 20
"""Maximum number of folders of images saved during training; a run writes four."""
MAX_PICTURE = 2**24
"""Maximum bytes of an image file; a grid of 32 views of 128 pixels has at most two million."""


@dataclass(frozen=True)
class Record:
    """The content of a run folder."""

    path: Path
    """The folder, as given by the user."""
    name: str
    """Name in tables: that of the folder, preceded by its parent's where two runs would have the same name."""
    config: Mapping[str, Any]
    state: Mapping[str, Any]
    """`run.json`; empty if missing."""
    log: Sequence[Mapping[str, float]]
    """The numbers of each line of `log.jsonl`, in order; every line has a `step`."""
    encoder: Mapping[str, Any]
    """`encoder.json`; empty if missing."""
    probes: Sequence[Mapping[str, Any]]
    """`probes/*.json` with at least one layer, sorted by file name; those of an earlier training step are excluded.

    Those of a baseline without parameters have neither random weights nor a gain.
    """
    audits: Sequence[Mapping[str, Any]]
    """`audit/*.json`, selected in the same way."""
    invariances: Sequence[Mapping[str, Any]]
    """`invariance/*.json`, selected in the same way."""
    finetunes: Sequence[Mapping[str, Any]]
    """`finetune/*.json`, selected in the same way."""
    qualities: Sequence[Mapping[str, Any]]
    """`quality/*.json`, selected in the same way."""
    transfers: Sequence[tuple[Mapping[str, Any], Path | None]]
    """`transfer/*.json`, selected in the same way, each with the path of its PNG if there is one."""
    pictures: Sequence[tuple[Mapping[str, Any], Path]]
    """`pictures/*.json`, selected in the same way, each with the path of its PNG."""
    shown: Mapping[str, Path]
    """Example images of the task: name -> PNG; the final ones, otherwise the last ones saved during training."""
    earlier: Mapping[str, Sequence[tuple[int, Path]]]
    """Versions saved during training that differ from `shown`: name -> steps and PNGs, in order."""
    skipped: Sequence[str]
    """Images that were skipped and why, one line each."""

    @property
    def published(self) -> bool:
        """Whether training started from published weights."""
        return bool(value_of(self.config, "encoder.pretrained")) and not self.baseline

    @property
    def baseline(self) -> str:
        """Name of the baseline that the run is; empty for a pretraining run."""
        return str(self.config.get("baseline") or "")

    @property
    def pretext(self) -> str:
        """Pretext task and encoder."""
        if self.baseline:
            return f"baseline {self.baseline} on {self.config.get('encoder', 'n.a.')}"
        return f"{self.config.get('task', 'n.a.')} on {self.config.get('encoder', 'n.a.')}"

    @property
    def status(self) -> str:
        """One of finished, interrupted, running, failed and unknown."""
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
    def images_processed(self) -> int | None:
        """Steps times batch size, so an image counts once for each time it was drawn."""
        size = self.config.get("batch_size")
        return self.step * int(size) if self.step is not None and is_number(size) else None

    @property
    def source(self) -> str:
        """The source of the images."""
        data = self.config.get("data", [])
        return str(self.state.get("source") or (data if isinstance(data, str) else ", ".join(map(str, data))) or "n.a.")

    @property
    def filters(self) -> Tensor | None:
        """(F, 1 to 3, h, w): the first convolution of the encoder, or None if it cannot be drawn."""
        name, path = self.encoder.get("filters"), self.path / "encoder.safetensors"
        weight = read_weight(path, name) if name and exists(path) else None
        drawable = (
            weight is not None
            and weight.ndim == 4
            and 1 <= weight.shape[0] <= MAX_FILTERS
            and 1 <= weight.shape[1] <= 3
            and 2 <= weight.shape[2] <= MAX_FILTER_SIDE
            and 1 <= weight.shape[3] <= MAX_FILTER_SIDE
            and weight.is_floating_point()
        )
        return weight if drawable else None


def runs_among(paths: Sequence[Path]) -> list[Path]:
    """The run folders among several paths, such as `runs/*`, which may also match reports and other files.

    A single path is returned unchanged, and so are several without any run folder: reading them raises the error.
    """
    runs = [path for path in paths if exists(path / "config.yaml")] if len(paths) > 1 else []
    return runs or list(paths)


def read_records(runs: Sequence[Path]) -> list[Record]:
    """Read several run folders; folders with the same name are distinguished by their parents' names.

    Raises:
        UserError: no run is given, one is not a run folder, or one contains an unreadable file.
    """
    if not runs:
        raise UserError("a report needs at least one run folder, such as runs/rotation; none was given.")
    names = [readable(run.resolve().name) for run in runs]
    return [
        read_record(run, name if names.count(name) == 1 else f"{readable(run.resolve().parent.name)}/{name}")
        for run, name in zip(runs, names, strict=True)
    ]


def _is_current(result: Mapping[str, Any], state: Mapping[str, Any], digest: str | None) -> bool:
    """Whether a result belongs to the current weights of the encoder: the same step and the same digest."""
    same_step = "step" not in result or "step" not in state or result["step"] == state["step"]
    return same_step and (digest is None or result.get("weights") in (None, digest))


def read_record(run: Path, name: str) -> Record:
    """Read one run folder.

    Args:
        run: the folder that `selftaught pretrain` wrote.
        name: its name in tables.
    """
    folder = RunFolder(run)
    state, digest = folder.read_status(), read_digest(folder.weights)

    def current(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [result for result in results if _is_current(result, state, digest)]

    shown = {readable(path.stem): path for path in find_shown(folder)}
    config, probes = folder.read_config(complete=False), current(folder.read_probes())
    return Record(
        path=run,
        name=name,
        config=_printable(config),
        state=state,
        log=folder.read_log(),
        encoder=folder.read_description(),
        probes=list(map(_without_random, probes)) if config.get("baseline") in FIXED else probes,
        audits=current(folder.read_audits()),
        invariances=current(folder.read_invariances()),
        finetunes=current(folder.read_finetunes()),
        qualities=current(folder.read_qualities()),
        transfers=[
            (table, path if exists(path) else None)
            for table, path in folder.read_transfers()
            if _is_current(table, state, digest)
        ],
        pictures=[
            (facts, path)
            for facts, path in folder.read_pictures()
            if _is_current(facts, state, digest) and exists(path)
        ],
        shown=shown,
        earlier={name: find_earlier(folder, path) for name, path in shown.items()},
        skipped=folder.read_skipped(),
    )


def _without_random(probe: Mapping[str, Any]) -> Mapping[str, Any]:
    """A probe without random weights and gain: an encoder without parameters is the same for every seed."""
    gain = probe.get("gain")
    best = {"layer": gain.get("layer")} if isinstance(gain, Mapping) else None
    layers = [{key: value for key, value in row.items() if not key.startswith("random")} for row in probe["layers"]]
    kept = {key: value for key, value in probe.items() if not key.startswith("random") and key != "initializations"}
    return {**kept, "layers": layers, "gain": best, "spread": ""}


def _printable(value: Any) -> Any:
    """A setting with control characters escaped."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, dict):
        return {readable(name): _printable(item) for name, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list) else value


def find_shown(folder: RunFolder) -> list[Path]:
    """The final images; for an unfinished run, the last ones saved during training."""
    steps = find_steps(folder)
    return list_pictures(folder, folder.shown) or (list_pictures(folder, steps[-1]) if steps else [])


def find_earlier(folder: RunFolder, shown: Path) -> list[tuple[int, Path]]:
    """Images of the same name that were saved during training and differ from the final one, by step."""
    candidates = [
        (int(step.name.removeprefix("step-")), step / shown.name)
        for step in find_steps(folder)
        if exists(step / shown.name) and step / shown.name != shown
    ]
    last = read_limited(shown, folder.path, MAX_PICTURE)
    return [(step, path) for step, path in candidates if read_limited(path, folder.path, MAX_PICTURE) != last]


def find_steps(folder: RunFolder) -> list[Path]:
    """The folders of images saved during training, in order."""
    folders = [path for path in list_folder(folder.shown, folder.path) if _is_step(path.name)]
    return sorted(folders, key=lambda step: int(step.name.removeprefix("step-")))[-MAX_STEPS:]


def _is_step(name: str) -> bool:
    digits = name.removeprefix("step-")
    return name.startswith("step-") and digits.isascii() and digits.isdecimal() and len(digits) < 19


def list_pictures(run: RunFolder, folder: Path) -> list[Path]:
    """The PNG files in a folder of a run, sorted by name."""
    return [path for path in list_folder(folder, run.path) if path.suffix == ".png"]


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number; bool does not count."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def last_part(name: str) -> str:
    """The name of a source without its folders: "a/b/cifar10 (train)" -> "cifar10 (train)"."""
    return ", ".join(part.rstrip("/").rsplit("/", 1)[-1] for part in name.split(", "))
