"""Images in a folder and all folders below it; class subfolders are labels, `train` and `test` folders are splits."""

import os
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import numpy as np

from selftaught.data.decode import SUFFIXES
from selftaught.data.reader import Indices, Listed, Reader, natural, readable, split_of
from selftaught.errors import UserError


def folder_splits(root: Path) -> dict[str, Reader]:
    """Read a folder by split.

    Every file with the suffix of an image belongs to it, in natural order of the paths; hidden files and other
    suffixes do not. The first level of folders at which the paths differ is the class, or the split where its names
    say so (`train` and one of `test`, `val`); then the class comes after it.

    Returns:
        "all" with every image, and each split that was found.

    Raises:
        UserError: a folder cannot be read, or there are no images.
    """
    titles = sorted((path.relative_to(root).as_posix() for path in _images(root)), key=natural)
    if not titles:
        raise UserError(
            f"a folder must hold images (.jpg, .png, ...) or .parquet files, found none in {readable(str(root))}: "
            f"look for a misspelt path."
        )
    parts = [title.split("/") for title in titles]
    depth = _shared(parts)
    splits = [split_of(part[depth]) if len(part) > depth + 1 else None for part in parts]
    if None not in splits and "train" in splits and len(set(splits)) > 1:
        depth += 1
        members = {split: np.flatnonzero([found == split for found in splits]) for split in splits if split}
    else:
        members = {}
    labels, classes = _labels(parts, depth)

    def reader(chosen: Indices) -> Reader:
        some = [titles[index] for index in chosen]
        part = None if labels is None else labels[chosen]
        return Listed(readable(str(root)), part, classes, [root / title for title in some], some)

    return {"all": reader(np.arange(len(titles))), **{split: reader(chosen) for split, chosen in members.items()}}


def _images(root: Path) -> Iterator[Path]:
    """Files with the suffix of an image, following links, every real folder once."""

    def refuse(error: OSError) -> None:
        where = readable(str(error.filename))
        raise UserError(f"all folders of a source must be readable, found {where} that is not: change its permissions.")

    visited = {os.path.realpath(root)}
    for folder, below, files in os.walk(root, followlinks=True, onerror=refuse):
        descend = []
        for name in sorted(below, key=natural):
            real = os.path.realpath(Path(folder, name))
            if not name.startswith((".", "__MACOSX")) and real not in visited:
                visited.add(real)
                descend.append(name)
        below[:] = descend
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(folder, name)


def _shared(parts: list[list[str]]) -> int:
    """How many leading folders all paths share."""
    folders = zip(*(part[:-1] for part in parts), strict=False)
    return sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, folders))


def _labels(parts: list[list[str]], depth: int) -> tuple[Indices | None, tuple[str, ...] | None]:
    """Positions and names of the folders at a depth, where every image is in one and there are two or more."""
    if any(len(part) <= depth + 1 for part in parts):
        return None, None
    names = [part[depth] for part in parts]
    classes = tuple(sorted(set(names), key=natural))
    if len(classes) < 2:
        return None, None
    place = {name: position for position, name in enumerate(classes)}
    return np.array([place[name] for name in names], dtype=np.int64), tuple(map(readable, classes))
