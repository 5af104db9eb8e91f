"""Images in tar shards of WebDataset's layout, read in random order through an index."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from selftaught.data.cache import cache_folder
from selftaught.data.reader import Indices, Raw, Reader, files_digest, readable, split_of
from selftaught.data.tar_index import TarIndex, tar_index
from selftaught.errors import UserError

LARGEST = 2**30
"""Maximum size of an image in bytes."""


@dataclass(frozen=True, eq=False)
class Tar(Reader):
    """Images in tar files."""

    files: tuple[Path, ...]
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
        for shard in np.unique(self.shard[indices]).tolist():
            path = self.files[shard]
            try:
                with path.open("rb", buffering=0) as file:
                    for index in indices[self.shard[indices] == shard].tolist():
                        size = int(self.size[index])
                        if size > LARGEST:
                            yield f"is larger than {LARGEST // 2**30} GiB"
                            continue
                        file.seek(int(self.offset[index]))
                        yield file.read(size)
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise UserError(f"cannot read {readable(str(path))} ({reason}): restore the file.") from error

    def fingerprint(self) -> str:
        """See `Reader`. Where the digests of all images are known, the digest of these."""
        return self.fingerprint_of(np.arange(len(self)))

    def fingerprint_of(self, indices: Indices) -> str:
        """See `Reader`."""
        digest = hashlib.blake2b(digest_size=16)
        if self.ids is None:
            digest.update(files_digest(self.files, [file.name for file in self.files]).encode())
            for part in (self.shard, self.offset, self.size):
                digest.update(part[indices].tobytes())
        else:
            digest.update(self.ids[indices].tobytes())
        return digest.hexdigest()

    def content_ids(self) -> Indices | None:
        """See `Reader`."""
        return self.ids


def tar_splits(path: Path, files: Sequence[Path], cache: Path | None = None) -> dict[str, Reader]:
    """Open tar files by split.

    The split of a file is what its name (`train-000000.tar`) or the name of its folder begins with, as for parquet.

    Args:
        path: the folder of the files, or the single file.
        files: one or more files, in order.
        cache: the cache folder; None for `cache_folder()`.

    Returns:
        "all" with every file, and each split if there are two or more.

    Raises:
        UserError: a file is not a tar file, is damaged, or no file has an image.
    """
    index = tar_index(path, files, cache or cache_folder())
    if not len(index.shard):
        notes = f" ({'; '.join(index.notes)})" if index.notes else ""
        raise UserError(
            f"no images in {readable(str(path))}{notes}: expected tar files in WebDataset's layout, such as 0001.jpg "
            "and 0001.cls."
        )
    splits = [split_of(file.stem) or (split_of(file.parent.name) if file.parent != path else None) for file in files]
    names = {split for split in splits if split} if path.is_dir() else set()
    parts = {split: [own == split for own in splits] for split in sorted(names)} if len(names) > 1 else {}

    def reader(chosen: Sequence[bool]) -> Tar:
        return _reader(path, files, index, np.flatnonzero(np.array(chosen)[index.shard]))

    return {"all": reader([True] * len(files)), **{split: reader(chosen) for split, chosen in parts.items()}}


def _reader(path: Path, files: Sequence[Path], index: TarIndex, chosen: Indices) -> Tar:
    everything = len(chosen) == len(index.shard)
    labels = None if index.labels is None else index.labels[chosen]
    return Tar(
        readable(str(path)), labels, index.classes, tuple(files), index.shard[chosen], index.offset[chosen],
        index.size[chosen], index.titles if everything else index.titles.take(pa.array(chosen)),
        None if index.content_ids is None else index.content_ids[chosen], notes=index.notes,
    )  # fmt: skip
