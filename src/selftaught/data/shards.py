"""The tar or parquet files of a source, on this machine or on a server."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from selftaught.data.reader import files_digest, readable, split_of
from selftaught.data.remote import RangedFile, RemoteFile

File = Path | RemoteFile


@dataclass(frozen=True)
class Shards:
    """The files of a source, in order."""

    name: str
    """The path or address as given by the user, printable."""
    files: tuple[File, ...]
    titles: tuple[str, ...]
    """Their paths relative to the source, with "/"."""
    index: Path | None = None
    """The index of tar files that is among them, see `tar_index.py`."""

    def by_split(self) -> dict[str, list[int]]:
        """Positions of the files of each split; empty unless there are two or more splits.

        The split of a file is what its name (`train.parquet`, `train-00000-of-00003.tar`) or else the name of its
        folder (`train/0000.parquet`) begins with.
        """
        groups: dict[str, list[int]] = {}
        for position, title in enumerate(map(PurePosixPath, self.titles)):
            if split := split_of(title.stem) or split_of(title.parent.name):
                groups.setdefault(split, []).append(position)
        return dict(sorted(groups.items())) if len(groups) > 1 else {}


def local_shards(path: Path, titles: Sequence[str] = (), index: str = "") -> Shards:
    """Files of this machine.

    Args:
        path: their folder, or the single file.
        titles: their paths relative to the folder; empty for a single file.
        index: name of the index in the folder, which need not exist.
    """
    found = path / index if index and (path / index).is_file() else None
    files = tuple(path / title for title in titles) or (path,)
    return Shards(readable(str(path)), files, tuple(titles) or (path.name,), found)


def located(file: File, whole: bool = False) -> Path | RangedFile:
    """A file, or its copy on this machine, or a file that is read over the network; see `RemoteFile.located`."""
    return file if isinstance(file, Path) else file.located(whole)


def size_of(file: File) -> int:
    """Size of a file in bytes."""
    return file.stat().st_size if isinstance(file, Path) else file.size


def digest_of(files: Sequence[File], titles: Sequence[str]) -> str:
    """Digest of files and their titles; of remote files their sizes and versions stand for their contents."""
    local = [file for file in files if isinstance(file, Path)]
    if len(local) == len(files):
        return files_digest(local, titles)
    digest = hashlib.blake2b(digest_size=16)
    for file, title in zip(files, titles, strict=True):
        assert isinstance(file, RemoteFile), "a source has local or remote files, not both"
        digest.update(f"{title}\0{file.size}\0{file.tag}\0".encode())
    return digest.hexdigest()


def read_parts(files: Sequence[File], starts: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
    """Parts of remote files of one server, requested at the same time.

    Args:
        files: the file of each part; `located` must have returned no copy of it.
        starts: position of the first byte of each part.
        sizes: size of each part in bytes.

    Raises:
        UserError: the connection is broken, or a file is shorter than it was.
    """
    remote = [file for file in files if isinstance(file, RemoteFile)]
    if not remote:
        return []
    parts = remote[0].server.read(remote, starts, sizes)
    assert parts is not None, "a server without byte ranges has copies only"
    return parts
