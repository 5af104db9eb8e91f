"""Readers: images that have not been decoded yet, whatever they are kept in.

A reader knows how many images there are, what people call each of them and what labels they carry; it hands out the
encoded bytes, a path or an array, and decodes nothing. `Listed` holds a list (a folder, arrays in memory), `Parquet`
(its own file) reads row groups as they are needed.
"""

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

import numpy as np
from numpy.typing import NDArray

Raw = Path | bytes | NDArray[np.uint8] | str
"""One image before decoding: a file, the bytes of a file, pixels (H, W), (H, W, 3) or (H, W, 4), or, as a text, the
reason why there is none."""
Indices = NDArray[np.int64]

UNLABELLED = -1
"""Stands where an image of a labelled reader has no label, or one that is no class; Hugging Face's convention too."""

CONTENT_LIMIT = 2**30
"""Bytes up to which a fingerprint reads the content of files (a second or two); past it, names, sizes and times."""

SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("validation", "valid", "val", "dev"),
}


@dataclass(frozen=True, eq=False)
class Reader(ABC):
    """Images in a fixed order, not decoded."""

    name: str
    """What the user called it."""
    labels: Indices | None
    """(N,) positions in `classes`, or `UNLABELLED`; None where there are no labels at all."""
    classes: tuple[str, ...] | None
    """Names of the labels; None exactly where `labels` is."""
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    """Sentences about the labels that the user should know."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def title(self, index: int) -> str:
        """What people call an image: its path, or its file and row."""

    @abstractmethod
    def stream(self, indices: Indices) -> Iterator[Raw]:
        """The images at ascending `indices`, in that order, never holding more than a few at a time."""

    def sample(self, count: int) -> Indices:
        """At most `count` ascending indices, spread over the images as evenly as can be read quickly."""
        return np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(np.int64))

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when an image or the order of the images changes; says nothing of the labels."""


@dataclass(frozen=True, eq=False)
class Listed(Reader):
    """Images that are a list: files of a folder, or arrays."""

    items: Sequence[Raw]
    titles: Sequence[str]

    def __len__(self) -> int:
        return len(self.items)

    def title(self, index: int) -> str:
        """See `Reader`."""
        return self.titles[index]

    def stream(self, indices: Indices) -> Iterator[Raw]:
        """See `Reader`."""
        return (self.items[index] for index in indices.tolist())

    def fingerprint(self) -> str:
        """See `Reader`."""
        files = [item for item in self.items if isinstance(item, Path)]
        if len(files) == len(self.items):
            return files_digest(files, self.titles)
        digest = hashlib.blake2b(digest_size=16)
        for item in self.items:
            assert isinstance(item, np.ndarray), "lists hold files or arrays, not both"
            digest.update(f"{item.shape}".encode())
            digest.update(np.ascontiguousarray(item).data)
        return digest.hexdigest()


def files_digest(files: Sequence[Path], titles: Iterable[str]) -> str:
    """A digest of files and what they are called: of their content while that is quick, else of size and time.

    What cannot be read (a dangling link, a pipe, another user's file) counts by its name alone.
    """
    sizes_times = [_size_time(file) for file in files]
    by_content = sum(size for size, _ in sizes_times) <= CONTENT_LIMIT
    digest = hashlib.blake2b(digest_size=16)
    for file, title, (size, time) in zip(files, titles, sizes_times, strict=True):
        digest.update(os.fsencode(f"{title}\0{size}\0"))
        if not by_content:
            digest.update(f"{time}\0".encode())
        elif size:
            with suppress(OSError), file.open("rb") as stream:
                while piece := stream.read(2**20):
                    digest.update(piece)
    return digest.hexdigest()


def _size_time(file: Path) -> tuple[int, int]:
    """Bytes and time of change in nanoseconds; zeros for what is no regular file."""
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return (found.st_size, found.st_mtime_ns) if S_ISREG(found.st_mode) else (0, 0)


def natural(text: str) -> tuple[list[tuple[int, str]], str]:
    """A sort key under which `image2` comes before `image10`."""
    pieces = re.split(r"([0-9]+)", text)
    return [(int(piece), "") if piece.isdecimal() and piece.isascii() else (0, piece) for piece in pieces], text


def split_of(word: str) -> str | None:
    """Which split a folder or the stem of a file names: `val`, `train-00000-of-00003`; None when it names none."""
    first = re.split(r"[-_.]", word.lower(), maxsplit=1)[0]
    return next((split for split, words in SPLITS.items() if first in words), None)


def readable(text: str) -> str:
    """A name on one line that every terminal and file can hold."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
