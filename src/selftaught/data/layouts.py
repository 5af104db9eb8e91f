"""Layouts of image folders: derive labels and splits from folder names and annotation files.

A layout is a function that maps a `Listing` to an `Arrangement`, or to None if the folder has another layout. The first
matching one in `LAYOUTS` is used; the last one matches every folder. To add a layout, write a function, add it to
`LAYOUTS` and add a row to docs/data.md.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from selftaught.data.labels import with_labels
from selftaught.data.listing import Listing
from selftaught.data.reader import UNLABELED, Files, Indices, natural_key, readable, split_folder
from selftaught.errors import UserError

Mask = NDArray[np.bool_]
"""(N,) bool, one per image of a listing."""
Parts = tuple[str, ...]
"""Path components of a folder."""


@dataclass(frozen=True)
class Arrangement:
    """Labels and splits of the images of a listing."""

    layout: str
    """Short description of the layout."""
    labels: Indices
    """(N,) indices into `classes`, or `UNLABELED`."""
    classes: tuple[str, ...]
    """Class names; empty if there are no labels."""
    splits: Mapping[str, Mask] = field(default_factory=dict)
    """Images of "train", "test" and "validation"; empty if there are no splits."""
    left_out: Mask | None = None
    """Images that are not part of the data set, such as segmentation masks."""
    notes: tuple[str, ...] = ()
    """Notes for the user, one phrase each."""


def arrange(listing: Listing) -> Arrangement:
    """Apply the first matching layout, with notes on images left out and images without a label."""
    result = next(result for layout in LAYOUTS if (result := layout(listing)))
    notes = list(result.notes)
    if result.left_out is not None and result.left_out.any():
        notes.append(f"{_count_with_examples(listing, result.left_out)} left out")
    if result.classes:
        used = np.ones(len(result.labels), dtype=np.bool_) if result.left_out is None else ~result.left_out
        for split, members in (result.splits or {"": used}).items():
            own = members & used
            missing = own & (result.labels == UNLABELED)
            where = f" of the {split} part" if split else ""
            if missing.any():
                notes.append(f"{_count_with_examples(listing, missing)}{where} without a label")
    return replace(result, notes=tuple(notes))


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
        labels, classes = _numbered(names, listing.folder_indices)
        return Arrangement("one folder per class" if classes else "images without class folders", labels, classes)
    assigned = [splits.get(part[len(top)]) if part in inside else None for part in parts]
    names = _names_by_split(parts, counts, len(top), assigned)
    labels, classes = _numbered(names, listing.folder_indices)
    members = {
        split: np.array([own == split for own in assigned])[listing.folder_indices] for split in set(splits.values())
    }
    left_out = np.array([split is None for split in assigned])[listing.folder_indices]
    layout = "one folder per split and class" if classes else "one folder per split"
    return Arrangement(layout, labels, classes, members, left_out)


def annotated_splits(listing: Listing) -> Arrangement | None:
    """Tiny-ImageNet: class folders for training, and an annotation file for the images of each other split.

    Annotation files are named `*annotations*.txt`. Each line has the name of an image in the same folder or one
    directly below it, a tab, and its class.
    """
    files = [title for title in listing.with_suffix(".txt") if "annotations" in PurePosixPath(title).name.lower()]
    if not files or not (base := class_folders(listing)).classes:
        return None
    place = {name: position for position, name in enumerate(base.classes)}
    named: dict[tuple[str, str], tuple[str, str]] = {}
    for file in files:
        rows = (line.split("\t") for line in _lines(listing.root / file))
        named |= {(file.rpartition("/")[0], row[0]): (row[1].strip(), file) for row in rows if len(row) > 1}
    labels, used = base.labels.copy(), set()
    for index in np.flatnonzero(labels == UNLABELED).tolist():
        folder, _, name = listing.titles[index].rpartition("/")
        label, file = named.get((folder, name)) or named.get((folder.rpartition("/")[0], name)) or ("", "")
        if label in place:
            labels[index] = place[label]
            used.add(f"labels from {readable(file)}")
    if not used:
        return None
    return replace(base, layout="Tiny-ImageNet", labels=labels, notes=(*sorted(used), *base.notes))


def voc(listing: Listing) -> Arrangement | None:
    """Pascal VOC: `JPEGImages`, splits in `ImageSets/Main/*.txt`, objects in `Annotations/*.xml`.

    VOC is a detection data set. An image whose objects are all of one class has that class as its label. If these are
    less than half of the images, no image has a label.
    """
    bases = [folder.removesuffix("JPEGImages") for folder in listing.folders if folder.split("/")[-1] == "JPEGImages"]
    others = set(listing.others)
    bases = [base for base in bases if any(f"{base}ImageSets/Main/{name}.txt" in others for name in VOC_LISTS)]
    if not bases:
        return None
    stems = [title.rpartition(".")[0] for title in listing.titles]
    splits: dict[str, Mask] = {}
    for name, split in VOC_LISTS.items():
        listed = set()
        for base in bases:
            lines = _lines(listing.root / f"{base}ImageSets/Main/{name}.txt")
            listed |= {f"{base}JPEGImages/{line.split()[0]}" for line in lines}
        if listed and split not in splits:
            splits[split] = np.array([stem in listed for stem in stems])
    left_out = ~np.isin(listing.folder_indices, [listing.folders.index(f"{base}JPEGImages") for base in bases])
    names = [
        None if out else _only_class(listing.root, stem.replace("JPEGImages/", "Annotations/", 1) + ".xml", others)
        for stem, out in zip(stems, left_out.tolist(), strict=True)
    ]
    several = sum(name is None for name in names) - int(left_out.sum())
    notes: tuple[str, ...] = ()
    if several * 2 > len(names) - left_out.sum():
        names = [None] * len(names)
        notes = ("no labels, because most images show objects of several classes",)
    labels, classes = _numbered(names)
    return Arrangement("Pascal VOC", labels, classes, splits, left_out, notes)


VOC_LISTS = {"train": "train", "val": "validation", "test": "test", "trainval": "train"}
"""Name of an image list -> split; `trainval` is used if there is no `train`."""


def pets(listing: Listing) -> Arrangement | None:
    """Oxford-IIIT Pet: `images/Abyssinian_100.jpg`, with splits and classes in `annotations/trainval.txt`, `test.txt`.

    Each line has the name of an image without suffix and the number of its class. The class is named after
    its images, without their numbers.
    """
    lists = [title for title in listing.others if f"/{title}".endswith("/annotations/trainval.txt")]
    if not lists or (base := lists[0].removesuffix("annotations/trainval.txt")) + "images" not in listing.folders:
        return None
    rows: dict[str, tuple[str, str]] = {}
    for file, split in (("trainval", "train"), ("test", "test")):
        lines = [line.split() for line in _lines(listing.root / f"{base}annotations/{file}.txt")]
        rows |= {row[0]: (split, row[1]) for row in lines if len(row) > 1 and not row[0].startswith("#")}
    titles = [title.removeprefix(f"{base}images/").rpartition(".")[0] for title in listing.titles]
    if sum(title in rows for title in titles) * 2 < len(rows) or not rows:
        return None
    names_of: dict[str, set[str]] = {}
    for title, (_, number) in rows.items():
        names_of.setdefault(number, set()).add(title.rpartition("_")[0])
    class_of = {number: min(names) if len(names) == 1 else f"class {number}" for number, names in names_of.items()}
    names = [class_of[rows[title][1]] if title in rows else None for title in titles]
    labels, classes = _numbered(names)
    splits = {
        split: np.array([title in rows and rows[title][0] == split for title in titles]) for split in ("train", "test")
    }
    left_out = listing.folder_indices != listing.folders.index(f"{base}images")
    return Arrangement("Oxford-IIIT Pet", labels, classes, splits, left_out)


def csv_labels(listing: Listing) -> Arrangement | None:
    """Images without class folders and one CSV file in the format of `--labels`."""
    tables = listing.with_suffix(".csv")
    if len(tables) != 1 or (base := class_folders(listing)).classes:
        return None
    file, shown = listing.root / tables[0], readable(tables[0])
    try:
        images = Files("", None, None, listing.root, listing.titles)
        reader = with_labels({"all": images}, file)["all"]
    except UserError:
        note = f"{shown} not used: it has no columns path and label with two or more classes for these images"
        return replace(base, notes=(*base.notes, note))
    assert reader.labels is not None
    assert reader.classes is not None
    return replace(
        base,
        layout=f"{base.layout}, labels from {shown}",
        labels=reader.labels,
        classes=reader.classes,
        notes=(*base.notes, *reader.notes),
    )


LAYOUTS: tuple[Callable[[Listing], Arrangement | None], ...] = (
    voc,
    pets,
    annotated_splits,
    csv_labels,
    class_folders,
)
"""In order of precedence, from the most specific to the one that matches every folder."""


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


def _numbered(names: Sequence[str | None], folder_of: Indices | None = None) -> tuple[Indices, tuple[str, ...]]:
    """Class names as indices into the sorted classes; no labels if there are fewer than two classes.

    Args:
        names: class name of each image, or of each folder.
        folder_of: (N,) index into `names` of each image's folder; None if `names` has one entry per image.
    """
    classes = tuple(sorted({name for name in names if name is not None}, key=natural_key))
    if len(classes) < 2:
        return np.full(len(names if folder_of is None else folder_of), UNLABELED), ()
    place = {name: position for position, name in enumerate(classes)}
    labels = np.array([UNLABELED if name is None else place[name] for name in names], dtype=np.int64)
    return labels if folder_of is None else labels[folder_of], tuple(map(readable, classes))


def _count_with_examples(listing: Listing, mask: Mask) -> str:
    """Number of images, with the titles of the first two."""
    count = int(mask.sum())
    first = ", ".join(readable(listing.titles[index]) for index in np.flatnonzero(mask)[:2].tolist())
    return f"{count:,} image{'' if count == 1 else 's'} ({first}{', ...' if count > 2 else ''})"


def _lines(file: Path) -> list[str]:
    """The non-empty lines of a text file; none if it cannot be read."""
    if not file.is_file():  # opening a pipe would block
        return []
    try:
        return [
            line for line in file.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n") if line.strip()
        ]
    except OSError:
        return []


def _only_class(root: Path, title: str, others: set[str]) -> str | None:
    """The class of the objects in a VOC annotation if all are of one class, else None."""
    if title not in others or not (root / title).is_file():
        return None
    try:
        objects = ElementTree.parse(root / title).getroot().iterfind("object/name")
    except (OSError, ElementTree.ParseError):
        return None
    classes = {(entry.text or "").strip() for entry in objects} - {""}
    return classes.pop() if len(classes) == 1 else None
