"""The run folder: paths, readers and writers of all files of a run.

config.yaml  run.json  log.jsonl  checkpoint/  encoder.safetensors  encoder.json  shown/  probes/  audit/
invariance/  quality/  finetune/  transfer/  pictures/  skipped.txt  images.npy  report.html
"""

import io
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from selftaught.errors import UserError, readable
from selftaught.runs.atomic import write_bytes, write_error, write_text
from selftaught.runs.files import check_links, exists, list_folder, read_limited, read_start
from selftaught.runs.locking import LOCK, locked
from selftaught.runs.log import read_log
from selftaught.runs.models import Config, Description, Model, Status, mismatch
from selftaught.runs.parse import one_line, parse_arrays
from selftaught.runs.result_models import Audit, FineTune, Invariance, PictureFacts, Probe, Quality, Transfer
from selftaught.runs.sections import flatten, nest
from selftaught.runs.validated import read_json, read_yaml
from selftaught.runs.weights import read_weights, weights_bytes

CLAIM_FILES = {LOCK, ".writable", ".writable.part"}
"""Files that `claim` may leave in a folder when it is killed."""
REQUIRED_SETTINGS = ("task", "encoder", "device", "precision", "compile", "steps", "size", "data")
"""Settings that the config of a run always contains, because they are fixed when the run starts."""
_FIRST_FILES = ("skipped.txt", "images.npy", "run.json", "config.yaml")
STARTUP_FILES = CLAIM_FILES | {*_FIRST_FILES[:-1], *(f"{name}.part" for name in _FIRST_FILES)}
"""Files that a run may leave when it is killed before its config is written."""
MAX_SKIPPED, MAX_IDS = 2**20, 2**32
"""Maximum size in bytes of the list of skipped images and the array of image digests."""


def has_pretext_task(config: Mapping[str, Any]) -> bool:
    """Whether a run was pretrained on a task of this library: it is neither a baseline nor of other code."""
    return not config.get("baseline") and not config.get("external")


class RunFolder:
    """The files of a run.

    Args:
        path: the folder; it may be reached through symbolic links, but none inside it is followed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.status, self.log = path / "config.yaml", path / "run.json", path / "log.jsonl"
        self.checkpoints, self.shown, self.probes = path / "checkpoint", path / "shown", path / "probes"
        self.finetunes, self.transfers = path / "finetune", path / "transfer"
        self.audits, self.invariances, self.report = path / "audit", path / "invariance", path / "report.html"
        self.weights, self.encoder, self.skipped = (
            path / "encoder.safetensors",
            path / "encoder.json",
            path / "skipped.txt",
        )
        self.image_ids, self.qualities, self.pictures = path / "images.npy", path / "quality", path / "pictures"

    def claim(self) -> None:
        """Create the folder, which must be new or empty.

        Raises:
            UserError: it is not empty, or cannot be created or written.
        """
        try:
            if self.path.exists() and not (self.path.is_dir() and self._is_unused()):
                content, place = "another run" if exists(self.config) else "other files", readable(str(self.path))
                fix = "give another --out, or --resume to continue it" if self.config.exists() else "give another --out"
                raise UserError(f"--out expects a new or empty folder, but {place} contains {content}: {fix}.")
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.path / ".writable", "", self.path)
            (self.path / ".writable").unlink()
        except OSError as error:
            raise write_error(self.path, error) from error

    def _is_unused(self) -> bool:
        """Whether the folder is empty but for files of a run that was killed before it started."""
        names = {path.name for path in self.path.iterdir()}
        return names <= (STARTUP_FILES if ".lock" in names else CLAIM_FILES)

    def must_be_run(self) -> None:
        """Raise `UserError` if the folder is not a run."""
        if not exists(self.config):
            raise UserError(
                f"{readable(str(self.path))} is not a run folder (no config.yaml): give a folder written by "
                "`selftaught pretrain`."
            )
        check_links(self.config, self.path)

    def locked(self) -> AbstractContextManager[None]:
        """Lock the folder, so that no two processes train the same run; see `locking.locked`."""
        busy = f"another process is training {readable(str(self.path))}: wait for it or stop it."
        return locked(self.path, busy)

    def read_config(self, complete: bool = True) -> dict[str, Any]:
        """The settings of the run by key (see `sections`), and its `data`.

        Args:
            complete: whether all of `REQUIRED_SETTINGS` are required, as they are to resume a run.

        Raises:
            UserError: the folder is not a run, or its config is damaged or incomplete.
        """
        self.must_be_run()
        config = flatten(read_yaml(self.config, self.path))
        if complete and not has_pretext_task(config):
            kind = "a baseline" if config.get("baseline") else "an encoder that other code trained"
            raise UserError(
                f"{readable(str(self.path))} is {kind}, which has no pretext task: audit and resume need a "
                "pretraining run."
            )
        absent = [name for name in REQUIRED_SETTINGS if complete and config.get(name) is None]
        if reason := f"{absent[0]} is missing" if absent else mismatch(Config, config):
            raise UserError(f"{readable(str(self.config))} is not a valid run config ({reason}): restore the file.")
        return config

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the settings of the run."""
        write_text(self.config, yaml.safe_dump(nest(config), sort_keys=False, allow_unicode=True), self.path)

    def read_status(self) -> dict[str, Any]:
        """Read `run.json`; empty if training has not started."""
        return read_json(self.status, self.path, Status) if exists(self.status) else {}

    def update_status(self, **facts: Any) -> None:
        """Update fields of `run.json`."""
        write_text(self.status, json.dumps({**self.read_status(), **facts}, indent=1), self.path)

    def identity(self, config: Mapping[str, Any] | None = None) -> str:
        """A digest of settings and images, independent of paths and device, that identifies the run.

        Args:
            config: the settings; None for the stored config.
        """
        config, status = self.read_config() if config is None else config, self.read_status()
        settings = {name: config[name] for name in config if name not in ("data", "labels", "device")}
        serialized = json.dumps([settings, status.get("fingerprint")], sort_keys=True, default=str)
        return blake2b(serialized.encode(), digest_size=16).hexdigest()

    def write_encoder(self, weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
        """Write weights and description of the encoder, which can be loaded without the rest of the run.

        The description is written first: it does not change during a run, so weights are never without one.
        """
        write_text(self.encoder, json.dumps(description, indent=1), self.path)
        write_bytes(self.weights, weights_bytes(weights), self.path)

    def read_encoder(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and description of the encoder."""
        self.must_be_run()
        if not exists(self.weights):
            raise UserError(
                f"no trained encoder in {readable(str(self.path))} yet: continue training with "
                f"`selftaught pretrain --resume --out {readable(str(self.path))}`."
            )
        return read_weights(self.weights), read_json(self.encoder, self.path, Description)

    def read_description(self) -> dict[str, Any]:
        """Read `encoder.json`; empty if it does not exist yet."""
        return read_json(self.encoder, self.path, Description) if exists(self.encoder) else {}

    def read_log(self) -> list[dict[str, float]]:
        """The numbers of each line of the log."""
        return read_log(self.log)

    def read_probes(self) -> list[dict[str, Any]]:
        """`probes/*.json`, by file name."""
        return self._read_results(self.probes, Probe)

    def read_correctness(self, probe: Mapping[str, Any]) -> dict[str, NDArray[Any]] | None:
        """The `probes/*.npz` of a probe: which test images were classified correctly, or mAP on samples of them.

        Args:
            probe: the content of its JSON file.

        Returns:
            `layers`, `trained` (probe seeds, layers, m), `random` (initializations, layers, m), `trained_values` (probe
            seeds, layers), `random_values`, `labels` (n,) or (n, k) and `test_ids`, see `Observations`; None if the
            probe has no such file.

        Raises:
            UserError: the file is damaged.
        """
        path = self.probes / Path(str(probe.get("correctness") or "missing")).name
        if path.suffix != ".npz" or not exists(path):
            return None
        try:
            stored = parse_arrays(read_limited(path, self.path, MAX_IDS))
            arrays = {name: stored[name] for name in ("layers", "trained", "random", "labels", "test_ids")}
            resampled = probe.get("metric") == "map"
            count, names = arrays["trained"].shape[-1], [str(row["layer"]) for row in probe["layers"]]
            shapes = [arrays[name].shape[1:] for name in ("trained", "random")]
            if arrays["layers"].tolist() != names or shapes != [(len(names), count)] * 2 or not count:
                raise ValueError("its layers and images do not match the probe")
            if not resampled and len(arrays["labels"]) != count:
                raise ValueError("its images do not match the labels")
            kind = np.dtype(np.float64 if resampled else np.bool_)
            if any(arrays[name].dtype != kind or not len(arrays[name]) for name in ("trained", "random")):
                raise ValueError(f"{'mAP' if resampled else 'correctness'} must be {kind.name}")
            for name in ("trained", "random"):  # files of earlier versions have no values of their own
                values = stored[f"{name}_values"] if f"{name}_values" in stored else arrays[name].mean(2)
                if values.dtype != np.float64 or values.shape != arrays[name].shape[:2]:
                    raise ValueError(f"{name}_values do not match the layers")
                arrays[f"{name}_values"] = values
        except UserError:
            raise
        except Exception as error:  # numpy and zipfile raise various exceptions
            raise UserError(
                f"{readable(str(path))} is damaged ({one_line(error)}): remove it, or run the probe again."
            ) from error
        return arrays

    def read_audits(self) -> list[dict[str, Any]]:
        """`audit/*.json`, by file name."""
        return self._read_results(self.audits, Audit)

    def read_invariances(self) -> list[dict[str, Any]]:
        """`invariance/*.json`, by file name."""
        return self._read_results(self.invariances, Invariance)

    def read_finetunes(self) -> list[dict[str, Any]]:
        """`finetune/*.json`, by file name."""
        return self._read_results(self.finetunes, FineTune)

    def read_transfers(self) -> list[tuple[dict[str, Any], Path]]:
        """`transfer/*.json`, by file name, each with the path of its PNG, which may be missing."""
        return self._read_pictured(self.transfers, Transfer)

    def read_qualities(self) -> list[dict[str, Any]]:
        """`quality/*.json`, by file name."""
        return self._read_results(self.qualities, Quality)

    def read_pictures(self) -> list[tuple[dict[str, Any], Path]]:
        """`pictures/*.json`, by file name, each with the path of its PNG, which may be missing."""
        return self._read_pictured(self.pictures, PictureFacts)

    def prepare_results(self, folder: Path) -> Path:
        """Check that a subfolder for results is writable, before a long computation; without results, none is left.

        Raises:
            UserError: it is not writable.
        """
        place = folder / ".writable"
        write_text(place, "", self.path)
        place.unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            folder.rmdir()
        return folder

    def write_result(self, path: Path, result: Mapping[str, Any]) -> None:
        """Write a result of a probe or an analysis."""
        write_text(path, json.dumps(result, indent=1), self.path)

    def write_image_ids(self, ids: Tensor) -> None:
        """Write the sorted `Source.content_ids` of the training images; nothing if there are none."""
        if len(ids):
            file = io.BytesIO()
            np.save(file, ids.sort().values.numpy())
            write_bytes(self.image_ids, file.getvalue(), self.path)

    def read_image_ids(self) -> Tensor | None:
        """(M,) int64: `Source.content_ids` of the training images; None if missing, as in runs of earlier versions."""
        if not exists(self.image_ids):
            return None
        try:
            content = io.BytesIO(read_limited(self.image_ids, self.path, MAX_IDS))
            ids = np.load(content, allow_pickle=False)
            if ids.ndim != 1 or ids.dtype != np.int64:
                raise ValueError(f"{ids.dtype} of {ids.ndim} dimensions")
        except UserError:
            raise
        except (OSError, ValueError, EOFError, MemoryError) as error:
            raise UserError(
                f"{readable(str(self.image_ids))} is damaged ({one_line(error)}): restore the file, or remove it "
                "(overlap with test images is then unknown)."
            ) from error
        return torch.from_numpy(ids)

    def read_skipped(self) -> list[str]:
        """Skipped images with reasons, one line each; a very long list is truncated."""
        if not exists(self.skipped):
            return []
        text = read_start(self.skipped, self.path, MAX_SKIPPED).decode("utf-8", "replace")
        return [readable(line) for line in text.split("\n") if line.strip()]

    def _read_pictured(self, folder: Path, model: type[Model]) -> list[tuple[dict[str, Any], Path]]:
        """All results in a subfolder, each with the path of its PNG."""
        paths = [path for path in list_folder(folder, self.path) if path.suffix == ".json"]
        return [(read_json(path, self.path, model), path.with_suffix(".png")) for path in paths]

    def _read_results(self, folder: Path, model: type[Model]) -> list[dict[str, Any]]:
        """Read and validate all results in a subfolder."""
        paths = [path for path in list_folder(folder, self.path) if path.suffix == ".json"]
        return [read_json(path, self.path, model) for path in paths]
