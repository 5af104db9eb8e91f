"""Cache of the probe results of raw pixels and random weights, which all runs with the same encoder share.

The key of a result covers everything that it depends on: weights and settings of the encoder, images, probe and
hyperparameters, preprocessing, versions. A missing or damaged file is computed again, and a cache that cannot be
written is ignored.
"""

import io
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selftaught.data.atomic import replacing
from selftaught.evaluation.metrics import LayerMetrics, Metrics
from selftaught.evaluation.multilabel import MultilabelMetrics
from selftaught.modules.processes import processes
from selftaught.training.distributed import from_first

FORMAT = 5
"""Part of every key. Increase it when a change of a probe, pooling or calibration affects the results."""
KINDS = {kind.name: kind for kind in (LayerMetrics, MultilabelMetrics)}


@dataclass(frozen=True)
class BaselineCache:
    """Probe results, one file per setting.

    Args:
        folder: where results are stored; None disables the cache.
        setting: the part of the key that all results share: images, probe, preprocessing.
    """

    folder: Path | None
    setting: Mapping[str, object]

    def get(self, setting: Mapping[str, object], compute: Callable[[], dict[str, Metrics]]) -> dict[str, Metrics]:
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

    def _load(self, setting: Mapping[str, object]) -> dict[str, Metrics] | None:
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


def _write(path: Path, results: Mapping[str, Metrics]) -> None:
    kind = next(iter(results.values())).name
    arrays: dict[str, Any] = {"layers": np.array(list(results)), "metric": np.array(kind)}
    for number, result in enumerate(results.values()):
        for name, value in vars(result).items():
            if value is not None:
                arrays[f"{number}/{name}"] = value.numpy() if isinstance(value, Tensor) else np.array(value)
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _read(path: Path) -> dict[str, Metrics] | None:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            kind = KINDS[str(arrays["metric"])]
            names = [field.name for field in fields(kind)]
            return {
                layer: kind(**{name: _value(arrays, f"{number}/{name}") for name in names})
                for number, layer in enumerate(arrays["layers"].tolist())
            }
    except Exception:  # missing, truncated or in another format: numpy and zipfile raise various exceptions
        return None


def _value(arrays: Mapping[str, NDArray[np.generic]], name: str) -> Any:
    """A field of metrics: a tensor, a number, or None where it was left out."""
    if name not in arrays:
        return None
    array = arrays[name]
    return torch.from_numpy(array) if array.ndim else array.item()
