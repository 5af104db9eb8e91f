"""Readers: sources of encoded images, independent of how they are stored.

A reader has the number of images, their titles and their labels. It yields encoded bytes, a path or an array and does
not decode. `Files` reads files of a folder, `Listed` a list of arrays or files, `Parquet` (in its own module) rows of
parquet files, loaded by row group.
"""

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

import numpy as np
from numpy.typing import NDArray

from selftaught.data.conventions import NO_CONVENTIONS, Conventions
from selftaught.errors import readable as readable  # names are made printable as soon as they are read

Raw = Path | bytes | NDArray[np.uint8] | str
"""One image before decoding: a file, the bytes of a file, pixels (H, W), (H, W, 3) or (H, W, 4), or, as a string, the
reason why there is none."""
Indices = NDArray[np.int64]
Labels = NDArray[np.int64] | NDArray[np.int8]

UNLABELED = -1
"""Label of an image without a valid label in a labeled reader; the convention of Hugging Face."""

CONTENT_LIMIT = 2**30
"""Total size in bytes up to which a fingerprint hashes the content of all files, which takes a second or two."""
COUNT_LIMIT = 100_000
"""Number of files up to which a fingerprint hashes the content of all files: opening one takes about as long as
decoding a tiny image, and much longer on a slow disk."""
CONTENT_SAMPLE = 256
"""Number of files, spread evenly, whose beginning is hashed beyond these limits."""
SAMPLE_BYTES = 2**16
"""Number of bytes of each file of that sample."""

SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("validation", "valid", "val", "dev"),
}


@dataclass(frozen=True, eq=False)
class Reader(ABC):
    """Encoded images in a fixed order."""

    name: str
    """Name or path as given by the user."""
    labels: Labels | None
    """(N,) indices into `classes`, or `UNLABELED`; or, where an image may have several classes, (N, K) of 0 and 1, all
    of them `UNLABELED` for an image without labels. None if there are no labels."""
    classes: tuple[str, ...] | None
    """Class names; None if and only if `labels` is None."""
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    """Notes on the labels for the user, one sentence each."""
    dense: tuple[str, ...] = field(default=(), kw_only=True)
    """Names of the dense targets that every image has; see `augment/dense.py`."""
    conventions: Conventions = field(default=NO_CONVENTIONS, kw_only=True)
    """Units and axes of the dense targets."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def title(self, index: int) -> str:
        """Human-readable identifier of an image: its path, or its file and row."""

    @abstractmethod
    def stream(self, indices: Indices) -> Iterator[Raw]:
        """The images at ascending `indices`, in that order, with only a few in memory at a time."""

    def stream_dense(self, indices: Indices) -> Iterator[Mapping[str, Raw]]:
        """The encoded dense targets of the images at ascending `indices` by name, as `stream`."""
        return ({} for _ in range(len(indices)))

    def sample(self, count: int) -> Indices:
        """At most `count` ascending indices, spread over the images as evenly as fast reading permits."""
        return np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(np.int64))

    @abstractmethod
    def fingerprint(self) -> str:
        """Digest of the images and their order; labels do not affect it."""

    def titles_of(self, indices: Indices) -> Iterator[str]:
        """The titles of the images at ascending `indices`, in that order."""
        return (self.title(index) for index in indices.tolist())

    def content_ids(self) -> Indices | None:
        """(N,) digests of the images (see `content.content_id`) if all of them are known to be valid, else None."""
        return None

    def access_note(self) -> str:
        """A note for the user where reading images in random order is slow; empty where it is not."""
        return ""

    def fingerprint_of(self, indices: Indices) -> str:
        """Digest of the images at ascending `indices`.

        The default covers all images, for readers that cannot digest a subset.
        """
        return self.fingerprint()


@dataclass(frozen=True, eq=False)
class Files(Reader):
    """Image files in a folder. Path objects are created on demand, because a million of them take a gigabyte."""

    root: Path
    titles: Sequence[str]
    """Paths relative to `root`."""
    layout: str = ""
    """Short description of the folder layout; empty if it was not determined."""

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
    """A list of image files or of arrays."""

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
            assert isinstance(item, np.ndarray), "a list has files or arrays, not both"
            digest.update(f"{item.shape}".encode())
            digest.update(np.ascontiguousarray(item).data)
        return digest.hexdigest()


def files_digest(files: Sequence[str | Path], titles: Iterable[str]) -> str:
    """Digest of files and their titles and sizes.

    Up to `CONTENT_LIMIT` bytes and `COUNT_LIMIT` files, the content of each file is hashed, so a copy of a folder has
    the same digest. Beyond, modification times are hashed instead, and the beginnings of a sample of files. For a file
    that cannot be read (a dangling link, a pipe, another user's file) only the title is hashed.
    """
    sizes_times = [_size_time(file) for file in files]
    everything = len(files) <= COUNT_LIMIT and sum(size for size, _ in sizes_times) <= CONTENT_LIMIT
    sample = range(0, len(files), max(1, len(files) // CONTENT_SAMPLE))
    digest = hashlib.blake2b(digest_size=16)
    for index, (title, (size, time)) in enumerate(zip(titles, sizes_times, strict=True)):
        digest.update(os.fsencode(f"{title}\0{size}\0" if everything else f"{title}\0{size}\0{time}\0"))
        if size and (everything or index in sample):
            _hash_content(digest, files[index], size if everything else min(size, SAMPLE_BYTES))
    return digest.hexdigest()


def _hash_content(digest: hashlib.blake2b, file: str | Path, size: int) -> None:
    """Hash the first `size` bytes of a file, as far as they can be read."""
    with suppress(OSError), open(file, "rb", buffering=0) as stream:  # noqa: PTH123 (files may be strings)
        while size > 0 and (chunk := stream.read(min(size, 2**20))):
            digest.update(chunk)
            size -= len(chunk)


def _size_time(file: str | Path) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds; zeros for anything but a regular file."""
    try:
        status = os.stat(file)  # noqa: PTH116 (files may be strings)
    except OSError:
        return 0, 0
    return (status.st_size, status.st_mtime_ns) if S_ISREG(status.st_mode) else (0, 0)


def has_label(labels: Labels) -> NDArray[np.bool_]:
    """(N,): whether each image has a label, see `Reader.labels`."""
    known: NDArray[np.bool_] = (labels if labels.ndim == 1 else labels[:, 0]) != UNLABELED
    return known


def natural_key(text: str) -> tuple[str, str]:
    """Sort key of natural order, in which `image2` comes before `image10`."""
    return _DIGITS.sub(_padded, text), text


_DIGITS = re.compile(r"[0-9]+")


def _padded(number: re.Match[str]) -> str:
    """A number as a string that sorts by value: a null (which sorts before letters), its length, its digits."""
    digits = number.group().lstrip("0")
    return f"\0{chr(len(digits))}{digits}"


def split_of(name: str) -> str | None:
    """Split named by a folder or the stem of a file (`val`, `train-00000-of-00003`), or None."""
    first = re.split(r"[-_.]", name.lower(), maxsplit=1)[0]
    return next((split for split, spellings in SPLITS.items() if first in spellings), None)


def split_folder(name: str) -> str | None:
    """Split named by a folder's full name (`Val`, `training_set`, `test2017`), or None."""
    match = re.fullmatch(r"([a-z]+?)(?:[-_ ]?(?:set|data|images|split|[0-9]{4}))?", name.lower())
    return next((split for split, spellings in SPLITS.items() if match and match.group(1) in spellings), None)
