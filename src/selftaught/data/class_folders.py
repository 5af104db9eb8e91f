"""Labels and splits of a folder with one subfolder per class, or per split and class."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from selftaught.data.arrangement import Arrangement, numbered
from selftaught.data.listing import Listing
from selftaught.data.reader import Indices, split_folder

Parts = tuple[str, ...]
"""Path components of a folder."""


def class_folders(listing: Listing) -> Arrangement:
    """ImageFolder: one folder per class, optionally below `train`, `val` and `test`.

    Folders below a class folder belong to the class. Leading folders that contain all images are skipped. Images next
    to the class folders have no label if they are the minority; if they are the majority, folders are not classes.
    """
    parts: list[Parts] = [tuple(folder.split("/")) if folder else () for folder in listing.folders]
    counts = np.bincount(listing.folder_indices, minlength=len(parts))
    top = _top(parts, counts)
    inside = {part for part in parts if part[: len(top)] == top and len(part) > len(top)}
    splits = _split_folders(top, inside)
    if not splits:
        names = _class_names(parts, counts, top)
        labels, classes = numbered(names, listing.folder_indices)
        return Arrangement("one folder per class" if classes else "images without class folders", labels, classes)
    assigned = [splits.get(part[len(top)]) if part in inside else None for part in parts]
    names = _names_by_split(parts, counts, len(top), assigned)
    labels, classes = numbered(names, listing.folder_indices)
    members = {
        split: np.array([own == split for own in assigned])[listing.folder_indices] for split in set(splits.values())
    }
    left_out = np.array([split is None for split in assigned])[listing.folder_indices]
    layout = "one folder per split and class" if classes else "one folder per split"
    return Arrangement(layout, labels, classes, members, left_out)


def _top(parts: Sequence[Parts], counts: Indices) -> Parts:
    """The leading folders: each is the only one at its level and has more images than lie next to it."""
    top: Parts = ()
    while True:
        below, direct = _below(parts, counts, top)
        if len(below) != 1 or sum(below.values()) <= direct:
            return top
        top = (*top, *below)


def _below(parts: Sequence[Parts], counts: Indices, top: Parts) -> tuple[dict[str, int], int]:
    """Number of images in each folder directly below `top`, subfolders included; and directly in `top`."""
    below: dict[str, int] = {}
    direct = 0
    for part, count in zip(parts, counts.tolist(), strict=True):
        if part[: len(top)] == top and len(part) > len(top):
            below[part[len(top)]] = below.get(part[len(top)], 0) + count
        elif part == top:
            direct += count
    return below, direct


def _split_folders(top: Parts, inside: set[Parts]) -> dict[str, str]:
    """Split folders directly below `top`: folder name -> split; empty if the folders are classes.

    They are splits if all are named like splits. Other folders are allowed if there are fewer of them than splits, or
    if `train` and another split have class folders in common, because a class may be called `train`.
    """
    depth = len(top)
    names = {part[depth] for part in inside}
    splits = {name: split for name in names if (split := split_folder(name))}
    kinds = set(splits.values())
    if len(kinds) < 2:
        return {}
    if len(splits) < len(names):
        classes = {
            kind: {part[depth + 1] for part in inside if splits.get(part[depth]) == kind and len(part) > depth + 1}
            for kind in kinds
        }
        alike = any(classes.get("train", set()) & classes[kind] for kind in kinds - {"train"})
        if "train" not in kinds or (2 * len(splits) <= len(names) and not alike):
            return {}
    return splits


def _class_names(parts: Sequence[Parts], counts: Indices, top: Parts) -> list[str | None]:
    """Class of the images in each folder: the path component directly below `top`."""
    below, direct = _below(parts, counts, top)
    if sum(below.values()) < direct:
        return [None] * len(parts)
    depth = len(top)
    return [part[depth] if part[:depth] == top and len(part) > depth else None for part in parts]


def _names_by_split(
    parts: Sequence[Parts], counts: Indices, depth: int, splits: Sequence[str | None]
) -> list[str | None]:
    """Class of the images in each folder below the split folders at `depth`.

    The classes are the class folders of the training split or, without one, of the split with the most folders. Another
    split may have extra folders above its class folders (`val/images/cat`). It has no labels if it has a single folder
    that is not a training class (`test/images`).
    """
    names: list[str | None] = [None] * len(parts)
    classes: set[str] = set()
    folders = Counter(split for split in splits if split)
    for split in sorted(folders, key=lambda split: (split != "train", -folders[split], split)):
        own = [index for index, assigned in enumerate(splits) if assigned == split]
        rests, own_counts = [parts[index][depth + 1 :] for index in own], counts[own]
        shared = _above(rests, classes)
        own_names = _class_names(rests, own_counts, _top(rests, own_counts) if shared is None else shared)
        if shared is None and classes and len(set(own_names)) == 1:
            continue
        for index, name in zip(own, own_names, strict=True):
            names[index] = name
        classes = classes or {name for name in own_names if name}
    return names


def _above(rests: Sequence[Parts], classes: set[str]) -> Parts | None:
    """The folders above the first level with a name in `classes`; None if no level has one."""
    hits = [(level, rest[:level]) for rest in rests for level, name in enumerate(rest) if name in classes]
    return min(hits)[1] if hits else None
