"""A source of images of one size: `Stored`, over `Pixels`, which come from an array or are decoded on the fly.

An array (`Resident`) that fits is loaded once per device, and a batch is one indexing operation. A larger array is read
from the memory map batch by batch, in file order, and copied from pinned memory. `encoded.py` decodes on the fly.
"""

import hashlib
import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selftaught.augment.dense import warp_dense
from selftaught.augment.warp import resample, to_device
from selftaught.contracts import Batch, Source
from selftaught.data.dense import from_stored
from selftaught.errors import UserError, unknown

MAX_MEMORY_SHARE = 0.25
"""An array is kept on a device if it takes less than this share of the free memory."""

COPY_BATCH = 1024
"""Number of images per copy to a device."""


class LazyTargets(Mapping[str, Tensor]):
    """Targets of a batch; dense ones are loaded on first use, because few tasks use them.

    Args:
        targets: targets by name.
        load: functions that load further targets, by name.
    """

    def __init__(self, targets: Mapping[str, Tensor], load: Mapping[str, Callable[[], Tensor]]) -> None:
        self._loaded, self._load = {**targets}, load
        self._names = (*targets, *load)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._loaded:
            self._loaded[name] = self._load[name]()
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class StoredBatch(Batch):
    """A batch of stored images on a device.

    Args:
        images: (B, 3, S, S) uint8.
        index: (B,) int64, on the same device.
        targets: see `Batch`.
        population: see `Batch`.
    """

    def __init__(self, images: Tensor, index: Tensor, targets: Mapping[str, Tensor], population: int) -> None:
        self.images, self.index, self.targets, self.population = images, index, targets, population

    def warp(self, matrix: Tensor, size: int, of: str = "image") -> Tensor:
        """See `Batch`."""
        if of == "image":
            return resample(self.images.float().div_(255), matrix, size)
        pictures = [name for name in self.targets if name not in ("label", "multilabel")]
        if of not in pictures:
            raise unknown("picture in this source", of, ["image", *pictures])
        return warp_dense(of, self.targets[of], matrix, size)


class Pixels(ABC):
    """The images of a source, or one of their dense targets, by row."""

    side: int
    """Side of the squares in pixels."""
    ahead: bool = False
    """Whether `batches` prepares a batch while the one before is used, because preparing it takes long."""

    @abstractmethod
    def take(self, rows: Tensor, device: torch.device) -> Tensor:
        """The images at `rows` ((B,) int64, CPU) on `device`: (B, C, S, S), uint8; for targets see `dense.STORED`."""


class Resident(Pixels):
    """An array of images or dense targets in a file, with a copy on each device where it fits.

    Args:
        stored: (N, C, S, S), usually a memory map; images are uint8, for targets see `dense.STORED`.
    """

    def __init__(self, stored: NDArray[Any]) -> None:
        self.stored, self.side = stored, stored.shape[-1]
        self._dtype = torch.from_numpy(np.empty(0, stored.dtype)).dtype
        self._resident: dict[torch.device, Tensor | None] = {}
        self._lock = threading.Lock()  # a prefetching thread may call this concurrently

    def take(self, rows: Tensor, device: torch.device) -> Tensor:
        """See `Pixels`."""
        images = self.resident(device)
        if images is not None:
            return images[to_device(rows, images.device)]
        order = rows.argsort().numpy()
        out = torch.empty((len(rows), *self.stored.shape[1:]), dtype=self._dtype, pin_memory=device.type == "cuda")
        out.numpy()[order] = self.stored[rows.numpy()[order]]
        return to_device(out, device)

    def resident(self, device: torch.device) -> Tensor | None:
        """All images on `device`, loaded on first use; None if they do not fit."""
        with self._lock:
            if device not in self._resident:
                fits = self.stored.nbytes < MAX_MEMORY_SHARE * free_memory(device)
                self._resident[device] = self._loaded(device) if fits else None
            return self._resident[device]

    def _loaded(self, device: torch.device) -> Tensor | None:
        """All images on `device`, copied in batches because the host may have less memory than the device."""
        try:
            images = torch.empty(self.stored.shape, dtype=self._dtype, device=device)
        except RuntimeError:  # memory limit of the process (ulimit); torch has no more specific class for the CPU
            return None
        for start in range(0, len(self.stored), COPY_BATCH):
            part = slice(start, start + COPY_BATCH)
            images[part] = torch.from_numpy(np.array(self.stored[part]))
        return images


class Stored(Source):
    """A source over stored images.

    Args:
        name: name or path as given by the user.
        pixels: the images, shared by all sources that are parts of them.
        rows: (N,) int64 rows in `pixels` of the images of this source, in order.
        labels: (N,) int64 in [0, len(classes)), -1 without a label; or (N, K) int8 of 0 and 1 where images may have
            several classes, -1 in all without labels; or None.
        classes: class names; None if and only if `labels` is None.
        key: identifies the content of `pixels`.
        skipped: (name, reason) of every image that could not be used.
        content_ids: (N,) int64, digests of the encoded images in the order of `rows`, or None.
        notes: notes on the source for the user, one sentence each.
        dense: dense targets by name, with the rows of `pixels`.
    """

    def __init__(
        self,
        name: str,
        pixels: Pixels,
        rows: Tensor,
        labels: Tensor | None,
        classes: tuple[str, ...] | None,
        key: str,
        skipped: tuple[tuple[str, str], ...] = (),
        content_ids: Tensor | None = None,
        notes: tuple[str, ...] = (),
        dense: Mapping[str, Pixels] = MappingProxyType({}),
    ) -> None:
        assert (labels is None) == (classes is None), "labels and classes are given together"
        self.name, self.classes, self.skipped, self.notes = name, classes, skipped, notes
        self._content_ids = content_ids
        self.side = pixels.side
        self.labels, self._target = labels, "label" if labels is None or labels.ndim == 1 else "multilabel"
        self.targets = frozenset([*dense, *(() if labels is None else (self._target,))])
        self._pixels, self._dense, self._rows, self._key = pixels, dense, rows, key
        digest = hashlib.blake2b(f"{key} {classes}".encode(), digest_size=16)
        for part in (rows, labels):
            digest.update(b"none" if part is None else part.numpy().tobytes())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def content_ids(self) -> Tensor:
        """See `Source`."""
        return super().content_ids if self._content_ids is None else self._content_ids

    def all_labels(self) -> Tensor:
        """See `Source`."""
        return super().all_labels() if self.labels is None else self.labels

    def batch(self, indices: Tensor, device: torch.device) -> StoredBatch:
        """See `Source`."""
        images = self._pixels.take(self._rows[indices], device)
        targets = {} if self.labels is None else {self._target: to_device(self.labels[indices], device)}
        load = {name: partial(self._load_dense, name, indices, device) for name in self._dense}
        return StoredBatch(images, to_device(indices, device), LazyTargets(targets, load), len(self))

    def batches(self, size: int, device: torch.device) -> Iterator[Batch]:
        """See `Source`."""
        if not self._pixels.ahead:
            yield from super().batches(size, device)
            return
        with ThreadPoolExecutor(1) as worker:
            pending: deque[Future[StoredBatch]] = deque()
            for indices in torch.split(torch.arange(len(self)), size):
                pending.append(worker.submit(self.batch, indices, device))
                if len(pending) == 2:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def _load_dense(self, name: str, indices: Tensor, device: torch.device) -> Tensor:
        """Dense targets of the images at `indices`: (B, C, S, S) float32."""
        return from_stored(name, self._dense[name].take(self._rows[indices], device))

    def subset(self, indices: Tensor, name: str | None = None) -> "Stored":
        """A source of the images at `indices` ((n,) int64), in that order, over the same pixels.

        Raises:
            UserError: `indices` is empty.
        """
        if not len(indices):
            raise UserError(f"a part of {self.name!r} must have at least one image, got none: choose a larger part.")
        labels = None if self.labels is None else self.labels[indices]
        return Stored(
            name=name or self.name,
            pixels=self._pixels,
            rows=self._rows[indices],
            labels=labels,
            classes=self.classes,
            key=self._key,
            skipped=self.skipped,
            content_ids=None if self._content_ids is None else self._content_ids[indices],
            notes=self.notes,
            dense=self._dense,
        )


def free_memory(device: torch.device) -> int:
    """Free memory of a device in bytes; for the CPU also bounded by the memory limit of the container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    bounds = []
    meminfo, cgroup_limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        bounds.append(int(fields["MemAvailable"].split()[0]) * 1024)
    if cgroup_limit.exists() and (limit := cgroup_limit.read_text().strip()).isdecimal():
        bounds.append(int(limit))
    if (
        not bounds and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    ):  # macOS: half of the physical memory
        bounds.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return min(bounds, default=4 * 2**30)
