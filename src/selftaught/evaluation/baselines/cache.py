"""Cache of the probe results of raw pixels and random weights, which all runs with the same encoder share.

The key of a result covers everything that it depends on: weights and settings of the encoder, images, probe and
hyperparameters, preprocessing, versions. A missing or damaged file is computed again, and a cache that cannot be
written is ignored.
"""

import io
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selftaught.evaluation.metrics import LayerMetrics
from selftaught.modules.processes import processes
from selftaught.training.distributed import from_first

FORMAT = 3
"""Part of every key. Increase it when a change of a probe, pooling or calibration affects the results."""


@dataclass(frozen=True)
class BaselineCache:
    """Probe results, one file per setting.

    Args:
        folder: where results are stored; None disables the cache.
        setting: the part of the key that all results share: images, probe, preprocessing.
    """

    folder: Path | None
    setting: Mapping[str, object]

    def get(
        self, setting: Mapping[str, object], compute: Callable[[], dict[str, LayerMetrics]]
    ) -> dict[str, LayerMetrics]:
        """Load the cached result, or compute and store it.

        Args:
            setting: the rest of the key: the encoder and its weights.
            compute: called if nothing is cached.
        """
        if (cached := from_first(lambda: self._load(setting))) is not None:
            return cached
        results, path = compute(), self._path(setting)
        if path is not None and processes().rank == 0:
            with suppress(OSError):  # a full disk must not lose the result of the probe
                _write(path, results)
        return results

    def _load(self, setting: Mapping[str, object]) -> dict[str, LayerMetrics] | None:
        path = self._path(setting)
        return None if path is None else _read(path)

    def has(self, setting: Mapping[str, object]) -> bool:
        """Whether there is a cached result."""
        path = self._path(setting)
        return path is not None and path.is_file()

    def _path(self, setting: Mapping[str, object]) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / f"{digest({'format': FORMAT, **self.setting, **setting})}.npz"


def digest(setting: Mapping[str, object]) -> str:
    """Hash of a setting of plain values, 32 hexadecimal digits."""
    text = json.dumps(setting, sort_keys=True, default=str)
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def state_digest(module: nn.Module) -> str:
    """Hash of the names, dtypes, shapes and values of all parameters and buffers of a module."""
    hasher = blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        hasher.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        hasher.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def _write(path: Path, results: Mapping[str, LayerMetrics]) -> None:
    arrays: dict[str, Any] = {"layers": np.array(list(results))}
    for number, result in enumerate(results.values()):
        optional = [np.nan if x is None else x for x in (result.penalty, result.top5, result.roc_auc)]
        arrays[f"correct{number}"] = result.correct.numpy()
        arrays[f"confusion{number}"] = result.confusion.numpy()
        arrays[f"numbers{number}"] = np.array([result.dimensions, *optional])
        arrays[f"held{number}"] = result.held_correct.numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, LayerMetrics] | None:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            results = {}
            for number, layer in enumerate(arrays["layers"].tolist()):
                dimensions, *optional = arrays[f"numbers{number}"].tolist()
                correct: Tensor = torch.from_numpy(arrays[f"correct{number}"])
                held: Tensor = torch.from_numpy(arrays[f"held{number}"])
                confusion: Tensor = torch.from_numpy(arrays[f"confusion{number}"])
                penalty, top5, roc_auc = (None if np.isnan(x) else x for x in optional)
                results[layer] = LayerMetrics(
                    correct, held, int(dimensions), penalty, confusion, top5=top5, roc_auc=roc_auc
                )
            return results
    except Exception:  # missing, truncated or in another format: numpy and zipfile raise various exceptions
        return None
