"""Decodes images in threads, in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from selftaught.data.brightness import NOMINAL, Ranges
from selftaught.data.conventions import Conventions
from selftaught.data.decode import RGB, decode_with_id
from selftaught.data.dense import decode_dense
from selftaught.data.reader import Indices, Raw, Reader
from selftaught.display.progress import Meter

Item = TypeVar("Item")

Result = TypeVar("Result")

BLOCK = 16
"""Images per work item of a thread: enough to make the overhead negligible even for 32-pixel images."""


@dataclass(frozen=True)
class DecodedImage:
    """One decoded image."""

    image: RGB | str
    """The image, or the reason why it or one of its targets could not be decoded."""
    content_id: int
    dense: Mapping[str, NDArray[np.generic]]
    """Its dense targets by name."""


@dataclass(frozen=True)
class Usable:
    """Which images of a reader can be decoded."""

    indices: Indices
    """(N,) ascending indices of these images in the reader."""
    skipped: tuple[tuple[int, str], ...]
    """Index in the reader and reason of each image that cannot be decoded."""
    content_ids: Indices
    """(N,) digests of the encoded images, see `content_id`."""


def decode_usable(
    reader: Reader,
    side: int,
    indices: Indices,
    ranges: Ranges,
    doing: str,
    use: Callable[[DecodedImage], object] = lambda image: None,
) -> Usable:
    """Decode the images at ascending `indices` once, in order.

    Args:
        reader: the images.
        side: side of the squares in pixels.
        indices: ascending indices in the reader.
        ranges: value ranges of the whole source, for images other than 8-bit ones.
        doing: what is done, for the progress bar: "decoding".
        use: called with each image that can be decoded.
    """
    kept: list[int] = []
    skipped: list[tuple[int, str]] = []
    content_ids: list[int] = []
    with Meter(f"{doing} {reader.name}", len(indices)) as meter:
        for index, result in zip(indices.tolist(), decode_all(reader, side, indices, ranges), strict=True):
            if isinstance(result.image, str):
                skipped.append((index, result.image))
            else:
                use(result)
                kept.append(index)
                content_ids.append(result.content_id)
            meter.advance()
    return Usable(np.array(kept, np.int64), tuple(skipped), np.array(content_ids, np.int64))


def decode_all(reader: Reader, side: int, indices: Indices, ranges: Ranges = NOMINAL) -> Iterator[DecodedImage]:
    """Decode the images at ascending `indices` with their dense targets, in threads, in order."""
    raws = zip(reader.stream(indices), reader.stream_dense(indices), strict=True)
    return in_threads(raws, lambda raw: decode_one(*raw, side, ranges, reader.conventions))


def in_threads(items: Iterable[Item], work: Callable[[Item], Result]) -> Iterator[Result]:
    """Apply a function to items in threads (Pillow releases the interpreter lock), in order, a few blocks ahead."""

    def work_on(block: list[Item]) -> list[Result]:
        return [work(item) for item in block]

    workers, items = threads(), iter(items)
    pending: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        while block := list(islice(items, BLOCK)):
            pending.append(pool.submit(work_on, block))
            if len(pending) > 2 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def decode_one(
    raw: Raw, targets: Mapping[str, Raw], side: int, ranges: Ranges, conventions: Conventions
) -> DecodedImage:
    """Decode one image and its dense targets."""
    image, identity = decode_with_id(raw, side, ranges)
    if isinstance(image, str) or not targets:
        return DecodedImage(image, identity, {})
    dense = decode_dense(raw, targets, conventions, side)
    return DecodedImage(dense, identity, {}) if isinstance(dense, str) else DecodedImage(image, identity, dense)


def threads() -> int:
    """Number of CPUs available to this process, divided by the processes of torchrun on this machine; at most 16."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    neighbors = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return min(max(1, allowed // max(1, int(neighbors) if neighbors.isdecimal() else 1)), 16)
