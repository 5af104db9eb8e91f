"""Readers: images that have not been decoded yet, however they are stored.

A reader has the number of images, their titles and their labels; it yields encoded bytes, a path or an array, and
decodes nothing. `Files` are files on disk, `Listed` arrays or files from anywhere, `Parquet` (in its own module)
rows that are loaded by row group.
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

from selftaught.errors import readable as readable  # names are made printable where they are read

Raw = Path | bytes | NDArray[np.uint8] | str
"""One image before decoding: a file, the bytes of a file, pixels (H, W), (H, W, 3) or (H, W, 4), or, as a text, the
reason why there is none."""
Indices = NDArray[np.int64]

UNLABELED = -1
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
    """(N,) positions in `classes`, or `UNLABELED`; None where there are no labels at all."""
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
        """Changes when an image or the order of the images changes, but not with the labels."""

    def titles_of(self, indices: Indices) -> Iterator[str]:
        """The titles of the images at ascending `indices`, in that order."""
        return (self.title(index) for index in indices.tolist())

    def fingerprint_of(self, indices: Indices) -> str:
        """Changes when an image at ascending `indices` changes.

        A reader that cannot digest some images without the others digests all of them.
        """
        return self.fingerprint()


@dataclass(frozen=True, eq=False)
class Files(Reader):
    """Image files in a folder; paths are made when a file is loaded, as a million of them take a gigabyte."""

    root: Path
    titles: Sequence[str]
    """Paths relative to `root`."""
    layout: str = ""
    """How the folder is laid out, in a few words; empty for one that was not interpreted."""

    def __len__(self) -> int:
        return len(self.titles)

    def title(self, index: int) -> str:
        """See `Reader`."""
        return self.titles[index]

    def stream(self, indices: Indices) -> Iterator[Raw]:
        """See `Reader`."""
        return (self.root / self.titles[index] for index in indices.tolist())

    def fingerprint(self) -> str:
        """See `Reader`."""
        return self._digest(self.titles)

    def fingerprint_of(self, indices: Indices) -> str:
        """See `Reader`."""
        return self._digest([self.titles[index] for index in indices.tolist()])

    def _digest(self, titles: Sequence[str]) -> str:
        return files_digest([os.path.join(self.root, title) for title in titles], titles)  # noqa: PTH118 (a Path each is slow)


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


def files_digest(files: Sequence[str | Path], titles: Iterable[str]) -> str:
    """A digest of files and their titles: of their content while that is quick, else of size and time.

    Only the title counts of a file that cannot be read (a dangling link, a pipe, another user's file).
    """
    sizes_times = [_size_time(file) for file in files]
    by_content = sum(size for size, _ in sizes_times) <= CONTENT_LIMIT
    digest = hashlib.blake2b(digest_size=16)
    for file, title, (size, time) in zip(files, titles, sizes_times, strict=True):
        digest.update(os.fsencode(f"{title}\0{size}\0"))
        if not by_content:
            digest.update(f"{time}\0".encode())
        elif size:
            with suppress(OSError), open(file, "rb", buffering=0) as stream:  # noqa: PTH123 (files may be strings)
                while piece := stream.read(2**20):
                    digest.update(piece)
    return digest.hexdigest()


def _size_time(file: str | Path) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds; zeros for anything but a regular file."""
    try:
        found = os.stat(file)  # noqa: PTH116 (files may be strings)
    except OSError:
        return 0, 0
    return (found.st_size, found.st_mtime_ns) if S_ISREG(found.st_mode) else (0, 0)


def natural_key(text: str) -> tuple[str, str]:
    """A sort key under which `image2` comes before `image10`."""
    return _DIGITS.sub(_padded, text), text


_DIGITS = re.compile(r"[0-9]+")


def _padded(found: re.Match[str]) -> str:
    """A number as text that sorts by value: its length goes before its digits, and before all letters a null."""
    digits = found.group().lstrip("0")
    return f"\0{chr(len(digits))}{digits}"


def split_of(word: str) -> str | None:
    """Which split a folder or the stem of a file names: `val`, `train-00000-of-00003`; None when it names none."""
    first = re.split(r"[-_.]", word.lower(), maxsplit=1)[0]
    return next((split for split, words in SPLITS.items() if first in words), None)


def split_folder(name: str) -> str | None:
    """Which split a folder is, by its whole name (`Val`, `training_set`, `test2017`); None where it is none."""
    found = re.fullmatch(r"([a-z]+?)(?:[-_ ]?(?:set|data|images|split|[0-9]{4}))?", name.lower())
    return next((split for split, words in SPLITS.items() if found and found.group(1) in words), None)
