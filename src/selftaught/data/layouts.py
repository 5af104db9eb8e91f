"""Layouts of image folders: which images carry which label and belong to which split.

A layout is a function from a `Listing` to an `Arrangement`, or to None where the folder has another layout. `LAYOUTS`
lists them; the first that fits counts, so the last one fits every folder. A new layout is a function and a line there,
and a row in docs/data.md.
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
"""(N,) bool, for each image of a listing."""
Parts = tuple[str, ...]
"""The names of the folders on the way to an image."""


@dataclass(frozen=True)
class Arrangement:
    """What a layout says of the images of a listing."""

    layout: str
    """The layout in a few words."""
    labels: Indices
    """(N,) positions in `classes`, or `UNLABELED`."""
    classes: tuple[str, ...]
    """Names of the labels; empty where there are none."""
    splits: Mapping[str, Mask] = field(default_factory=dict)
    """The images of "train", "test" and "validation", where there are splits."""
    left_out: Mask | None = None
    """Images that are not part of the data set, such as segmentation masks."""
    notes: tuple[str, ...] = ()
    """What the user should know of it, one phrase each."""


def arrange(listing: Listing) -> Arrangement:
    """The arrangement by the first layout that fits, with notes on what it leaves out or without a label."""
    found = next(found for layout in LAYOUTS if (found := layout(listing)))
    notes = list(found.notes)
    if found.left_out is not None and found.left_out.any():
        notes.append(f"{_counted(listing, found.left_out)} left out")
    if found.classes:
        kept = np.ones(len(found.labels), dtype=np.bool_) if found.left_out is None else ~found.left_out
        for split, members in (found.splits or {"": kept}).items():
            own = members & kept
            missing = own & (found.labels == UNLABELED)
            where = f" of the {split} part" if split else ""
            if missing.any():
                notes.append(f"{_counted(listing, missing)}{where} without a label")
    return replace(found, notes=tuple(notes))


def class_folders(listing: Listing) -> Arrangement:
    """ImageFolder: one folder per class, perhaps below `train`, `val` and `test`; folders below a class are part of it.

    Leading folders that hold all images are passed over. Images beside the class folders have no label as long as they
    are the minority; where they are the majority, folders are not classes.
    """
    parts: list[Parts] = [tuple(folder.split("/")) if folder else () for folder in listing.folders]
    counts = np.bincount(listing.places, minlength=len(parts))
    top = _top(parts, counts)
    inside = {part for part in parts if part[: len(top)] == top and len(part) > len(top)}
    splits = _split_folders(top, inside)
    if not splits:
        names = _class_names(parts, counts, top)
        labels, classes = _numbered(names, listing.places)
        return Arrangement("one folder per class" if classes else "images without class folders", labels, classes)
    found = [splits.get(part[len(top)]) if part in inside else None for part in parts]
    names = _names_by_split(parts, counts, len(top), found)
    labels, classes = _numbered(names, listing.places)
    members = {split: np.array([own == split for own in found])[listing.places] for split in set(splits.values())}
    left_out = np.array([split is None for split in found])[listing.places]
    layout = "one folder per split and class" if classes else "one folder per split"
    return Arrangement(layout, labels, classes, members, left_out)


def annotated_splits(listing: Listing) -> Arrangement | None:
    """Tiny-ImageNet: class folders for training, an annotation file beside the images of other splits.

    The files are called `*annotations*.txt`; each line has the name of an image in the same folder or one directly
    below it, a tab, and its class.
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

    VOC is for detection. The label of an image is the class of its objects where all are of one class; if that holds
    for less than half of the images, none has a label.
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
    left_out = ~np.isin(listing.places, [listing.folders.index(f"{base}JPEGImages") for base in bases])
    names = [
        None if out else _only_class(listing.root, stem.replace("JPEGImages/", "Annotations/", 1) + ".xml", others)
        for stem, out in zip(stems, left_out.tolist(), strict=True)
    ]
    several = sum(name is None for name in names) - int(left_out.sum())
    notes: tuple[str, ...] = ()
    if several * 2 > len(names) - left_out.sum():
        names = [None] * len(names)
        notes = ("no labels, as most images show objects of several classes",)
    labels, classes = _numbered(names)
    return Arrangement("Pascal VOC", labels, classes, splits, left_out, notes)


VOC_LISTS = {"train": "train", "val": "validation", "test": "test", "trainval": "train"}
"""Lists of images -> split; `trainval` counts where there is no `train`."""


def pets(listing: Listing) -> Arrangement | None:
    """Oxford-IIIT Pet: `images/Abyssinian_100.jpg`, with splits and classes in `annotations/trainval.txt`, `test.txt`.

    Each line has the name of an image without suffix and the number of its class; the class is called as its images
    are, without their number.
    """
    found = [title for title in listing.others if f"/{title}".endswith("/annotations/trainval.txt")]
    if not found or (base := found[0].removesuffix("annotations/trainval.txt")) + "images" not in listing.folders:
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
    called = {number: min(names) if len(names) == 1 else f"class {number}" for number, names in names_of.items()}
    names = [called[rows[title][1]] if title in rows else None for title in titles]
    labels, classes = _numbered(names)
    splits = {
        split: np.array([title in rows and rows[title][0] == split for title in titles]) for split in ("train", "test")
    }
    left_out = listing.places != listing.folders.index(f"{base}images")
    return Arrangement("Oxford-IIIT Pet", labels, classes, splits, left_out)


def csv_labels(listing: Listing) -> Arrangement | None:
    """Images without class folders and one CSV file with the columns that `--labels` takes."""
    tables = listing.with_suffix(".csv")
    if len(tables) != 1 or (base := class_folders(listing)).classes:
        return None
    where, shown = listing.root / tables[0], readable(tables[0])
    try:
        images = Files("", None, None, listing.root, listing.titles)
        reader = with_labels({"all": images}, where)["all"]
    except UserError:
        note = f"{shown} not used: it has no columns path and label that give these images two or more classes"
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
"""From the most specific to the one that fits every folder."""


def _top(parts: Sequence[Parts], counts: Indices) -> Parts:
    """The leading folders that hold most images and have nothing else beside them."""
    top: Parts = ()
    while True:
        below, beside = _below(parts, counts, top)
        if len(below) != 1 or sum(below.values()) <= beside:
            return top
        top = (*top, *below)


def _below(parts: Sequence[Parts], counts: Indices, top: Parts) -> tuple[dict[str, int], int]:
    """Images in each folder directly below `top`, those in its subfolders included; and images directly in `top`."""
    below: dict[str, int] = {}
    beside = 0
    for part, count in zip(parts, counts.tolist(), strict=True):
        if part[: len(top)] == top and len(part) > len(top):
            below[part[len(top)]] = below.get(part[len(top)], 0) + count
        elif part == top:
            beside += count
    return below, beside


def _split_folders(top: Parts, inside: set[Parts]) -> dict[str, str]:
    """The folders directly below `top` that are splits, by name; empty where they are classes.

    They are splits where all are named like one. Others beside them are allowed if they are fewer than the splits, or
    if `train` and another split have class folders in common: a single class may well be called `train`.
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
    """The class of the images in each folder: the name of its part below `top`."""
    below, beside = _below(parts, counts, top)
    if sum(below.values()) < beside:
        return [None] * len(parts)
    depth = len(top)
    return [part[depth] if part[:depth] == top and len(part) > depth else None for part in parts]


def _names_by_split(
    parts: Sequence[Parts], counts: Indices, depth: int, splits: Sequence[str | None]
) -> list[str | None]:
    """The class of the images in each folder below split folders at `depth`.

    The class folders of training count, or those of the split with most folders. Another split may have its own folders
    around them (`val/images/cat`), and has no labels where it has a single folder that is no class of training
    (`test/images`).
    """
    names: list[str | None] = [None] * len(parts)
    known: set[str] = set()
    folders = Counter(split for split in splits if split)
    for split in sorted(folders, key=lambda split: (split != "train", -folders[split], split)):
        own = [index for index, found in enumerate(splits) if found == split]
        rests, held = [parts[index][depth + 1 :] for index in own], counts[own]
        shared = _above(rests, known)
        found = _class_names(rests, held, _top(rests, held) if shared is None else shared)
        if shared is None and known and len(set(found)) == 1:
            continue
        for index, name in zip(own, found, strict=True):
            names[index] = name
        known = known or {name for name in found if name}
    return names


def _above(rests: Sequence[Parts], known: set[str]) -> Parts | None:
    """The folders above the first level that has a known class; None where no level has."""
    hits = [(place, rest[:place]) for rest in rests for place, name in enumerate(rest) if name in known]
    return min(hits)[1] if hits else None


def _numbered(names: Sequence[str | None], places: Indices | None = None) -> tuple[Indices, tuple[str, ...]]:
    """Names as positions in the sorted classes; without labels where there are fewer than two classes.

    Args:
        names: of images, or of folders.
        places: (N,) positions in `names` of each image's folder.
    """
    classes = tuple(sorted({name for name in names if name is not None}, key=natural_key))
    if len(classes) < 2:
        return np.full(len(names if places is None else places), UNLABELED), ()
    place = {name: position for position, name in enumerate(classes)}
    labels = np.array([UNLABELED if name is None else place[name] for name in names], dtype=np.int64)
    return labels if places is None else labels[places], tuple(map(readable, classes))


def _counted(listing: Listing, mask: Mask) -> str:
    """How many images, and the first of them."""
    count = int(mask.sum())
    first = ", ".join(readable(listing.titles[index]) for index in np.flatnonzero(mask)[:2].tolist())
    return f"{count:,} image{'' if count == 1 else 's'} ({first}{', ...' if count > 2 else ''})"


def _lines(file: Path) -> list[str]:
    """The lines of a text file that are not empty; none where it cannot be read."""
    if not file.is_file():  # a pipe would be waited for
        return []
    try:
        return [
            line for line in file.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n") if line.strip()
        ]
    except OSError:
        return []


def _only_class(root: Path, title: str, others: set[str]) -> str | None:
    """The class of the objects in an annotation of VOC, where all are of one class."""
    if title not in others or not (root / title).is_file():
        return None
    try:
        objects = ElementTree.parse(root / title).getroot().iterfind("object/name")
    except (OSError, ElementTree.ParseError):
        return None
    found = {(entry.text or "").strip() for entry in objects} - {""}
    return found.pop() if len(found) == 1 else None
