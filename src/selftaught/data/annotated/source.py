"""Sources of annotated images on square canvases, decoded when needed and kept while they take little memory."""

import hashlib
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selftaught.augment.warp import positions, resample, to_device
from selftaught.contracts import Batch, Source
from selftaught.data.annotated.canvas import FILL, canvas, content_size, mask_canvas
from selftaught.data.annotated.images import BoxedImage, start_digest, upright_size
from selftaught.data.content import content_id
from selftaught.data.stored import free_memory
from selftaught.errors import unknown

IGNORED = 255
"""Class number of pixels that are neither trained on nor counted, as in PASCAL VOC."""
MEMORY_SHARE = 0.1
"""Canvases are kept while they take less than this share of the memory that was free at the beginning."""


class AnnotatedBatch(Batch):
    """Images on canvases.

    `targets` has `content` (B, 2), the width and height of each image on its canvas in pixels, and those of the source.

    Args:
        images: (B, 3, S, S) uint8 on a device.
        index: (B,) int64, there.
        targets: there.
        population: number of images in the source.
    """

    def __init__(self, images: Tensor, index: Tensor, targets: Mapping[str, Tensor], population: int) -> None:
        self.images, self.index, self.targets, self.population = images, index, targets, population

    def warp(self, matrix: Tensor, size: int, of: str = "image") -> Tensor:
        """See `Batch`. Beyond an image is the fill color or `IGNORED`; masks are sampled by the nearest pixel."""
        if of == "mask" and of in self.targets:
            masks, grid = self.targets["mask"].float(), self._grid(matrix, size)
            sampled = F.grid_sample(masks, grid.flatten(0, 1), mode="nearest", align_corners=False)
            sampled = sampled.reshape(*grid.shape[:2], *sampled.shape[1:])
            fill = torch.full_like(sampled[:1, :1], IGNORED)
        elif of == "image":
            grid, stacked = self._grid(matrix, size), matrix if matrix.ndim == 4 else matrix[:, None]
            sampled = resample(self.images.float().div_(255), stacked, size)
            fill = sampled.new_tensor(FILL).div(255).view(1, 1, 3, 1, 1)
        else:
            raise unknown("picture in this source", of, ["image", *(["mask"] if "mask" in self.targets else [])])
        most = 2 * self.targets["content"] / self.images.shape[-1] - 1
        beyond = (grid > most[:, None, None, None]) | (grid < -1)
        out = torch.where(beyond.any(-1)[:, :, None], fill, sampled)
        return out if matrix.ndim == 4 else out[:, 0]

    def _grid(self, matrix: Tensor, size: int) -> Tensor:
        """Positions of the pixels of each view in its canvas: (B, K, size, size, 2)."""
        stacked = matrix if matrix.ndim == 4 else matrix[:, None]
        grid = positions(to_device(stacked.flatten(0, 1), self.images.device), size)
        return grid.reshape(*stacked.shape[:2], size, size, 2)


class AnnotatedSource(Source):
    """Images of a part of a data set.

    Args:
        name: the data set and the part.
        paths: the image files.
        side: S, side of the canvases in pixels.
        classes: class names.
        annotations: a digest of the annotations.
    """

    classes: tuple[str, ...]

    def __init__(
        self, name: str, paths: Sequence[Path], side: int, classes: tuple[str, ...], annotations: bytes
    ) -> None:
        self.name, self.paths, self.side, self.classes = name, tuple(paths), side, classes
        digest = hashlib.blake2b(annotations, digest_size=16)
        for path in self.paths:
            digest.update(path.name.encode("utf-8", "surrogateescape") + start_digest(path))
        self.fingerprint = digest.hexdigest()
        self.sizes = [upright_size(path) for path in self.paths]
        self._content = torch.tensor([content_size(*size, side) for size in self.sizes], dtype=torch.float32)
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._most = int(MEMORY_SHARE * free_memory(torch.device("cpu")) / (3 * side * side))
        self._lock = threading.Lock()  # the loop fetches in a thread, an evaluation in another

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def content_ids(self) -> Tensor:
        """See `Source`; reads every file once."""
        return torch.tensor([content_id(path) for path in self.paths], dtype=torch.int64)

    def batch(self, indices: Tensor, device: torch.device) -> AnnotatedBatch:
        """See `Source`."""
        chosen = indices.tolist()
        images = torch.from_numpy(np.stack([self._canvas(index) for index in chosen]))
        targets = {"content": self._content[indices], **self.annotations(chosen)}
        moved = {name: to_device(value, device) for name, value in targets.items()}
        return AnnotatedBatch(to_device(images, device), to_device(indices, device), moved, len(self))

    @abstractmethod
    def part(self, indices: Sequence[int]) -> "AnnotatedSource":
        """A source of some of the images."""

    @abstractmethod
    def annotations(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The targets of images, on the CPU."""

    def _canvas(self, index: int) -> NDArray[np.uint8]:
        with self._lock:
            kept = self._kept.get(index)
        if kept is None:
            kept = canvas(self.paths[index], self.side)
            with self._lock:
                if len(self._kept) < self._most:
                    self._kept[index] = kept
        return kept


class BoxSource(AnnotatedSource):
    """Images with boxes.

    Targets: `boxes` (B, M, 4), x1, y1, x2, y2 in pixels of the canvas, and `box_labels` (B, M), class numbers from 1;
    0 where an image has fewer boxes than M. Ignored boxes are left out; an image without boxes is background.
    """

    targets = frozenset({"boxes", "box_labels", "content"})

    def __init__(self, name: str, items: Sequence[BoxedImage], side: int, classes: tuple[str, ...]) -> None:
        self.items = tuple(items)
        self.numbers = [np.array([classes.index(name) for name in item.names], np.int64) for item in items]
        facts = [repr((classes, side)).encode()]
        for item in items:
            facts += [item.boxes.tobytes(), "\0".join(item.names).encode(), item.ignored.tobytes()]
        super().__init__(name, [item.path for item in items], side, classes, b"\n".join(facts))

    def part(self, indices: Sequence[int]) -> "BoxSource":
        """See `AnnotatedSource`."""
        return BoxSource(self.name, [self.items[index] for index in indices], self.side, self.classes)

    def annotations(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """See the class."""
        boxes, labels = [], []
        for index in indices:
            item, used = self.items[index], ~self.items[index].ignored
            scale = self._content[index].repeat(2) / torch.tensor(self.sizes[index] * 2)
            boxes.append(torch.from_numpy(item.boxes[used]).float() * scale)
            labels.append(torch.from_numpy(self.numbers[index][used] + 1))
        return {
            "boxes": torch.nn.utils.rnn.pad_sequence(boxes, batch_first=True),
            "box_labels": torch.nn.utils.rnn.pad_sequence(labels, batch_first=True),
        }


class MaskSource(AnnotatedSource):
    """Images with masks of class numbers. Target: `mask` (B, 1, S, S) uint8, `IGNORED` beyond the image."""

    targets = frozenset({"mask", "content"})

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        masks: Sequence[Path],
        side: int,
        classes: tuple[str, ...],
        load: Callable[[Path], NDArray[np.uint8]],
        annotations: bytes,
    ) -> None:
        super().__init__(name, paths, side, classes, annotations)
        self.masks, self.load, self.digest = tuple(masks), load, annotations

    def part(self, indices: Sequence[int]) -> "MaskSource":
        """See `AnnotatedSource`."""
        paths, masks = ([each[index] for index in indices] for each in (self.paths, self.masks))
        return MaskSource(self.name, paths, masks, self.side, self.classes, self.load, self.digest)

    def annotations(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """See the class."""
        masks = [mask_canvas(self.load(self.masks[index]), self.side, IGNORED) for index in indices]
        return {"mask": torch.from_numpy(np.stack(masks))[:, None]}
