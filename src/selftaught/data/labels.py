"""Give the images of a source the labels of a CSV file."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from selftaught.data.label_file import read_labels, conflicting_labels
from selftaught.data.reader import UNLABELED, Indices, Reader, natural_key, readable
from selftaught.errors import UserError

AMBIGUOUS = -1
"""Stands in an index of paths where several images have the same end."""


@dataclass
class PathIndex:
    """Finds the image that a path means, in time that does not depend on the number of images.

    A path means the image whose own path ends with it, or that it ends with (so relative to any folder, or absolute),
    if that is one image only. An image whose whole path is the given one is always meant.

    Args:
        titles: paths of the images.
    """

    titles: Sequence[str]
    _whole: dict[str, int] = field(default_factory=dict)
    """Whole path -> position of its image, or `AMBIGUOUS`."""
    _ends: dict[str, int] = field(default_factory=dict)
    """Every end of a path, whole ones too."""
    _deepest: int = 0

    def __post_init__(self) -> None:
        for position, title in enumerate(self.titles):
            parts = _parts(title)
            self._deepest = max(self._deepest, len(parts))
            _enter(self._whole, "/".join(parts), position)
            for start in range(len(parts)):
                _enter(self._ends, "/".join(parts[start:]), position)

    def find(self, path: str) -> list[int]:
        """Positions of the images that a path may mean: none, one, or `AMBIGUOUS` for several."""
        parts = _parts(path)[-self._deepest - 1 :]
        name = "/".join(parts)
        if (exact := self._whole.get(name, AMBIGUOUS)) != AMBIGUOUS:
            return [exact]
        found = {self._ends[name]} if name in self._ends else set()
        for start in range(1, len(parts)):
            if (end := "/".join(parts[start:])) in self._whole:
                found.add(self._whole[end])
        return sorted(found)


def _parts(path: str) -> list[str]:
    """The names in a path."""
    return [part for part in path.split("/") if part not in ("", ".")]


def _enter(table: dict[str, int], path: str, position: int) -> None:
    if table.setdefault(path, position) != position:
        table[path] = AMBIGUOUS


@dataclass(frozen=True)
class Matched:
    """Which images the lines of a file mean."""

    labels: dict[int, str]
    """Position of an image -> name of its label."""
    unknown: list[str]
    """Paths that mean no image."""
    ambiguous: list[str]
    """Paths that mean several."""


def match(reader: Reader, labels: dict[str, str], where: Path) -> Matched:
    """Find the image of every path in a file.

    Raises:
        UserError: two paths mean one image and name two labels.
    """
    index = PathIndex([reader.title(position) for position in range(len(reader))])
    matched = Matched({}, [], [])
    for path, label in labels.items():
        found = index.find(path)
        if not found and "\\" in path:  # written on Windows
            found = index.find(path.replace("\\", "/"))
        if len(found) != 1 or found[0] == AMBIGUOUS:
            (matched.ambiguous if found else matched.unknown).append(path)
        elif matched.labels.setdefault(found[0], label) != label:  # named twice, by a longer and a shorter path
            raise conflicting_labels(path, matched.labels[found[0]], label, where)
    return matched


def with_labels(splits: dict[str, Reader], path: Path) -> dict[str, Reader]:
    """Give all splits of a source the labels of a CSV file; images that it does not name have none.

    Raises:
        UserError: see `read_labels`; or the file names fewer than two labels, or mostly images that are not there.
    """
    labels = read_labels(path)
    _require_classes(set(labels.values()), path, "in")
    matched = match(splits["all"], labels, path)
    lost = {*matched.unknown, *matched.ambiguous}
    if len(lost) * 2 > len(labels):
        raise UserError(
            f"the paths in {readable(str(path))} must be those of images in {splits['all'].name}, found {len(lost)} of "
            f"{len(labels)} that are not{_such(matched)}: write them relative to that folder."
        )
    _require_classes(set(matched.labels.values()), path, "for the images that it names in")
    classes = tuple(sorted(set(matched.labels.values()), key=natural_key))
    notes = (f"{len(lost):,} of {len(labels):,} paths in {readable(str(path))} are not used{_such(matched)}",)
    place = {name: position for position, name in enumerate(classes)}

    def given(reader: Reader, own: dict[int, str]) -> Reader:
        found: Indices = np.full(len(reader), UNLABELED)
        found[list(own)] = [place[label] for label in own.values()]
        return replace(reader, labels=found, classes=classes, notes=notes if lost else ())

    used = {image: label for image, label in labels.items() if image not in lost}
    parts = {split: match(reader, used, path).labels for split, reader in splits.items() if split != "all"}
    return {split: given(splits[split], own) for split, own in {"all": matched.labels, **parts}.items()}


def _require_classes(names: set[str], path: Path, where: str) -> None:
    if len(names) < 2:
        raise UserError(
            f"a file of labels must name two or more different ones, found {len(names)} {where} "
            f"{readable(str(path))}: add one."
        )


def _such(matched: Matched) -> str:
    """Examples of the lines that are not used, with the reason."""
    kinds = {"matches no image": matched.unknown, "matches several images": matched.ambiguous}
    examples = [f"{readable(paths[0])[:80]!r}, which {why}" for why, paths in kinds.items() if paths]
    return f", such as {', and '.join(examples)}" if examples else ""
