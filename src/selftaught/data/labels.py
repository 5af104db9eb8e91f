"""Apply the labels of a CSV file to the images of a source."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from selftaught.data.label_file import conflicting_labels, read_labels
from selftaught.data.reader import UNLABELED, Indices, Labels, Reader, natural_key, readable
from selftaught.errors import UserError

AMBIGUOUS = -1
"""Value in a path index for a path suffix that several images share."""


@dataclass
class PathIndex:
    """Matches paths to images, in time that does not depend on the number of images.

    A path matches the image whose path is a suffix of it, or of whose path it is a suffix (so it may be absolute, or
    relative to any folder), if there is exactly one. An exact match always takes precedence.

    Args:
        titles: paths of the images.
    """

    titles: Sequence[str]
    _whole: dict[str, int] = field(default_factory=dict)
    """Full path -> position of its image, or `AMBIGUOUS`."""
    _suffixes: dict[str, int] = field(default_factory=dict)
    """Every suffix of a path, the full path included -> position, or `AMBIGUOUS`."""
    _deepest: int = 0

    def __post_init__(self) -> None:
        for position, title in enumerate(self.titles):
            parts = _parts(title)
            self._deepest = max(self._deepest, len(parts))
            _add(self._whole, "/".join(parts), position)
            for start in range(len(parts)):
                _add(self._suffixes, "/".join(parts[start:]), position)

    def find(self, path: str) -> list[int]:
        """Positions of the matching images: none, one, or `AMBIGUOUS` for several with the same suffix."""
        parts = _parts(path)[-self._deepest - 1 :]
        name = "/".join(parts)
        if (exact := self._whole.get(name, AMBIGUOUS)) != AMBIGUOUS:
            return [exact]
        positions = {self._suffixes[name]} if name in self._suffixes else set()
        for start in range(1, len(parts)):
            if (suffix := "/".join(parts[start:])) in self._whole:
                positions.add(self._whole[suffix])
        return sorted(positions)


def _parts(path: str) -> list[str]:
    """The components of a path."""
    return [part for part in path.split("/") if part not in ("", ".")]


def _add(table: dict[str, int], path: str, position: int) -> None:
    if table.setdefault(path, position) != position:
        table[path] = AMBIGUOUS


@dataclass(frozen=True)
class MatchedPaths:
    """The images matched by the paths in a file."""

    labels: dict[int, frozenset[str]]
    """Position of an image -> its classes."""
    unmatched: list[str]
    """Paths that match no image."""
    ambiguous: list[str]
    """Paths that match several images."""


def match_paths(reader: Reader, labels: dict[str, frozenset[str]], file: Path) -> MatchedPaths:
    """Match every path in a file of labels to an image.

    Raises:
        UserError: two paths match the same image and have different labels.
    """
    index = PathIndex([reader.title(position) for position in range(len(reader))])
    matched = MatchedPaths({}, [], [])
    for path, label in labels.items():
        positions = index.find(path)
        if not positions and "\\" in path:  # a Windows path
            positions = index.find(path.replace("\\", "/"))
        if len(positions) != 1 or positions[0] == AMBIGUOUS:
            (matched.ambiguous if positions else matched.unmatched).append(path)
        elif matched.labels.setdefault(positions[0], label) != label:  # two paths of different length for one image
            raise conflicting_labels(path, matched.labels[positions[0]], label, file)
    return matched


def with_labels(splits: dict[str, Reader], path: Path) -> dict[str, Reader]:
    """Replace the labels of all splits of a source by those of a CSV file; images not listed in it have none.

    Raises:
        UserError: see `read_labels`; or the file has fewer than two labels, or most of its paths match no image.
    """
    given = read_labels(path)
    labels = given.labels
    _require_classes(_names(labels.values()), f"in {readable(str(path))}")
    matched = match_paths(splits["all"], labels, path)
    unused = {*matched.unmatched, *matched.ambiguous}
    if len(unused) * 2 > len(labels):
        raise UserError(
            f"{len(unused)} of {len(labels)} paths in {readable(str(path))} match no single image in "
            f"{splits['all'].name}{_examples(matched)}: write the paths relative to that folder."
        )
    found = _names(matched.labels.values())
    _require_classes(found, f"for the images matched by {readable(str(path))}")
    classes = given.classes or tuple(sorted(found, key=natural_key))
    missing = f"{len(unused):,} of {len(labels):,} paths in {readable(str(path))} are not used{_examples(matched)}"
    notes = (*given.notes, *([missing] if unused else []))
    used = {image: names for image, names in labels.items() if image not in unused}
    parts = {split: match_paths(reader, used, path).labels for split, reader in splits.items() if split != "all"}
    numbers = _several if given.several else _single
    return {
        split: replace(splits[split], labels=numbers(len(splits[split]), own, classes), classes=classes, notes=notes)
        for split, own in {"all": matched.labels, **parts}.items()
    }


def _single(count: int, own: Mapping[int, frozenset[str]], classes: Sequence[str]) -> Labels:
    """(count,): the number of the one class of each image, see `Reader.labels`."""
    place = {name: position for position, name in enumerate(classes)}
    labels: Indices = np.full(count, UNLABELED)
    labels[list(own)] = [place[name] for names in own.values() for name in names]
    return labels


def _several(count: int, own: Mapping[int, frozenset[str]], classes: Sequence[str]) -> Labels:
    """(count, K): whether each image has each class, see `Reader.labels`."""
    labels = np.full((count, len(classes)), UNLABELED, np.int8)
    for image, names in own.items():
        labels[image] = [name in names for name in classes]
    return labels


def _names(labels: Iterable[frozenset[str]]) -> set[str]:
    return {name for names in labels for name in names}


def _require_classes(names: set[str], where: str) -> None:
    if len(names) < 2:
        raise UserError(f"expected at least two different labels, got {len(names)} {where}.")


def _examples(matched: MatchedPaths) -> str:
    """Examples of the paths that are not used, with the reason."""
    kinds = {"matches no image": matched.unmatched, "matches several images": matched.ambiguous}
    examples = [f"{readable(paths[0])[:80]!r}, which {why}" for why, paths in kinds.items() if paths]
    return f", such as {', and '.join(examples)}" if examples else ""
