"""Images in tar shards of WebDataset's layout, read in random order through an index."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selftaught.data.cache import cache_folder
from selftaught.data.reader import Indices, Raw, Reader, readable
from selftaught.data.shards import File, Shards, digest_of, located, read_parts, size_of
from selftaught.data.tar_index import TarIndex, tar_index
from selftaught.errors import UserError

LARGEST = 2**30
"""Maximum size of an image in bytes."""
TOGETHER = 64
"""Number of images that are read at a time, of remote files by as many requests."""
WHOLE = 0.25
"""Share of a remote file above which it is better to download it than to request its images one by one."""


@dataclass(frozen=True, eq=False)
class Tar(Reader):
    """Images in tar files."""

    files: tuple[File, ...]
    shard: Indices
    """(N,) positions of the files of the images, ascending."""
    offset: Indices
    """(N,) positions of their first byte."""
    size: Indices
    """(N,) sizes in bytes."""
    titles: pa.LargeStringArray
    ids: Indices | None
    """(N,) digests of the images, all of which are valid; None if that is not known."""

    def __len__(self) -> int:
        return len(self.shard)

    def title(self, index: int) -> str:
        """The original path, or file and member."""
        return str(self.titles[index].as_py())

    def stream(self, indices: Indices) -> Iterator[Raw]:
        """See `Reader`."""
        wanted = np.bincount(self.shard[indices], self.size[indices], len(self.files)).astype(np.float64)
        for start in range(0, len(indices), TOGETHER):
            yield from self._read(indices[start : start + TOGETHER], wanted)

    def _read(self, indices: Indices, wanted: NDArray[np.float64]) -> Iterator[Raw]:
        """A few images; `wanted` has the number of bytes that are needed of each file, in all."""
        large = self.size[indices] > LARGEST
        images: dict[int, Raw] = dict.fromkeys(indices[large].tolist(), f"is larger than {LARGEST // 2**30} GiB")
        remote: list[int] = []
        for shard in np.unique(self.shard[indices[~large]]).tolist():
            file, own = self.files[shard], indices[~large & (self.shard[indices] == shard)].tolist()
            place = located(file, whole=wanted[shard] > WHOLE * size_of(file))
            if isinstance(place, Path):
                images.update(self._read_local(place, own))
            else:
                remote += own
        images.update(zip(remote, self._read_remote(remote), strict=True))
        return (images[index] for index in indices.tolist())

    def _read_local(self, path: Path, indices: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Images of one file of this machine."""
        try:
            with path.open("rb", buffering=0) as file:
                for index in indices:
                    file.seek(int(self.offset[index]))
                    yield index, file.read(int(self.size[index]))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UserError(f"cannot read {readable(str(path))} ({reason}): restore the file.") from error

    def _read_remote(self, indices: Sequence[int]) -> list[bytes]:
        """Images of files of which there is no copy on this machine yet."""
        files = [self.files[self.shard[index]] for index in indices]
        return read_parts(files, self.offset[list(indices)].tolist(), self.size[list(indices)].tolist())

    def fingerprint(self) -> str:
        """See `Reader`. Where the digests of all images are known, the digest of these."""
        return self.fingerprint_of(np.arange(len(self)))

    def fingerprint_of(self, indices: Indices) -> str:
        """See `Reader`."""
        digest = hashlib.blake2b(digest_size=16)
        if self.ids is None:
            digest.update(digest_of(self.files, [file.name for file in self.files]).encode())
            for part in (self.shard, self.offset, self.size):
                digest.update(part[indices].tobytes())
        else:
            digest.update(self.ids[indices].tobytes())
        return digest.hexdigest()

    def content_ids(self) -> Indices | None:
        """See `Reader`."""
        return self.ids


def tar_splits(shards: Shards, cache: Path | None = None) -> dict[str, Reader]:
    """Open tar files by split, see `Shards.by_split`.

    Args:
        shards: one or more files.
        cache: the cache folder; None for `cache_folder()`.

    Returns:
        "all" with every file, and each split if there are two or more.

    Raises:
        UserError: a file is not a tar file, is damaged, or no file has an image.
    """
    index = tar_index(shards, cache or cache_folder())
    if not len(index.shard):
        notes = f" ({'; '.join(index.notes)})" if index.notes else ""
        raise UserError(
            f"no images in {shards.name}{notes}: expected tar files in WebDataset's layout, such as 0001.jpg and "
            "0001.cls."
        )
    parts = {"all": list(range(len(shards.files))), **shards.by_split()}
    return {split: _reader(shards, index, np.flatnonzero(np.isin(index.shard, own))) for split, own in parts.items()}


def _reader(shards: Shards, index: TarIndex, chosen: Indices) -> Tar:
    everything = len(chosen) == len(index.shard)
    labels = None if index.labels is None else index.labels[chosen]
    return Tar(
        shards.name, labels, index.classes, shards.files, index.shard[chosen], index.offset[chosen],
        index.size[chosen], index.titles if everything else index.titles.take(pa.array(chosen)),
        None if index.content_ids is None else index.content_ids[chosen], notes=index.notes,
    )  # fmt: skip
