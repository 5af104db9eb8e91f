"""List a folder tree: image files, other files, and skipped folders.

One pass with `os.scandir`, without opening files: a million images are listed in seconds. `layouts.py` determines which
folders are classes and which are splits.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from selftaught.data.decode import SUFFIXES
from selftaught.data.reader import Indices, natural_key, readable
from selftaught.display.progress import Meter
from selftaught.errors import UserError


@dataclass(frozen=True)
class Listing:
    """The files in a folder and all folders below it; titles are paths relative to it, with "/"."""

    root: Path
    titles: list[str]
    """Titles of the images, in natural order."""
    folders: list[str]
    """Titles of the folders that directly contain images; "" is the root."""
    folder_indices: Indices
    """(N,) index into `folders` of each image's folder."""
    others: list[str]
    """Titles of the other files, in natural order."""
    skipped: tuple[tuple[str, str], ...]
    """Title and reason of each folder that was not followed."""
    empty: tuple[str, ...] = ()
    """Folders without an image in them or below, except for folders in such a folder."""

    def with_suffix(self, suffix: str) -> list[str]:
        """The files other than images whose names end in `suffix` (lower case, with the dot), in any case."""
        return [title for title in self.others if title.lower().endswith(suffix)]

    def kinds(self) -> list[tuple[str, int]]:
        """Suffixes of the other files with their counts, the most frequent first."""
        names = (PurePosixPath(title) for title in self.others)
        return Counter(name.suffix.lower() or "without a suffix" for name in names).most_common()


def list_folder(root: Path) -> Listing:
    """List a folder tree, following each link to a folder once.

    Hidden files and folders (`.git`, `.DS_Store`) and the `__MACOSX` folders of zip files are left out. A link to a
    folder that is also listed without the link, or to a parent folder, is not followed, regardless of name order.

    Raises:
        UserError: a folder cannot be read.
    """
    titles: list[str] = []
    folders: list[str] = []
    folder_indices: list[int] = []
    listed: list[str] = []
    others: list[str] = []
    skipped: list[tuple[str, str]] = []
    with Meter(f"listing {readable(str(root))}") as meter:
        for folder in _walk(root, skipped):
            listed.append(folder.prefix[:-1])
            images = [name for name in folder.files if os.path.splitext(name)[1].lower() in SUFFIXES]  # noqa: PTH122
            if len(images) < len(folder.files):
                others.extend(folder.prefix + name for name in set(folder.files).difference(images))
            if images:
                titles.extend(folder.prefix + name for name in images)
                folder_indices.extend([len(folders)] * len(images))
                folders.append(folder.prefix[:-1])
            meter.advance(len(folder.files))
    keys = [natural_key(title) for title in titles]
    order = sorted(range(len(titles)), key=keys.__getitem__)
    return Listing(
        root,
        [titles[index] for index in order],
        folders,
        np.array(folder_indices, dtype=np.int64)[order] if order else np.zeros(0, np.int64),
        sorted(others, key=natural_key),
        tuple(skipped),
        _empty(listed, folders),
    )


def _empty(listed: Sequence[str], folders: Sequence[str]) -> tuple[str, ...]:
    """The outermost of the listed folders that neither are nor contain one of `folders`."""
    used = {""}
    for folder in folders:
        while folder not in used:
            used.add(folder)
            folder = folder.rpartition("/")[0]
    return tuple(sorted(folder for folder in listed if folder not in used and folder.rpartition("/")[0] in used))


class _Folder(NamedTuple):
    """One folder of a tree."""

    prefix: str
    """Prefix of the titles of its files: "" or "a/b/"."""
    files: list[str]
    """Names of all entries that are neither folders nor hidden."""


def _walk(root: Path, skipped: list[tuple[str, str]]) -> Iterator[_Folder]:
    """Every folder once. Links are followed after all real folders, so a link never takes the place of its target."""
    real_root = os.path.realpath(root)
    visited: dict[str, str] = {}
    links: list[tuple[str, str]] = [("", real_root)]
    for prefix, target in links:  # the loop appends to this list: linked folders can contain links
        if reason := _circular(target, real_root, visited) if prefix else "":
            skipped.append((prefix[:-1], reason))
            continue
        pending = [(prefix, target)]
        while pending:
            prefix, real = pending.pop()
            if real in visited:
                continue
            visited[real] = prefix[:-1]
            files, below, linked = _scan(os.path.join(root, prefix))  # noqa: PTH118 (once per folder, on strings)
            yield _Folder(prefix, files)
            pending += [(f"{prefix}{name}/", os.path.join(real, name)) for name in below]  # noqa: PTH118
            links += [(f"{prefix}{name}/", os.path.realpath(os.path.join(root, prefix, name))) for name in linked]  # noqa: PTH118


def _circular(target: str, real_root: str, visited: dict[str, str]) -> str:
    """The reason why a link to a folder is not followed; empty if it is."""
    if target in visited:
        where = visited[target]
        return f"is a link to {where!r}, which is listed" if where else "is a link to the folder itself"
    above = real_root.startswith(target.rstrip(os.sep) + os.sep)
    return "is a link to a folder above" if above else ""


def _scan(folder: str) -> tuple[list[str], list[str], list[str]]:
    """Names of the files, folders and links to folders in a folder, without hidden ones."""
    files: list[str] = []
    below: list[str] = []
    linked: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                if not _is_folder(entry):
                    files.append(name)
                elif not name.startswith("__MACOSX"):
                    (linked if entry.is_symlink() else below).append(name)
    except OSError as error:
        where = readable(folder)
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"cannot read the folder {where} ({reason}): change its permissions, or remove it.") from error
    return files, sorted(below, key=natural_key, reverse=True), sorted(linked, key=natural_key)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link
        return False
