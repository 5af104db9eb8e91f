"""Layouts of image folders: derive labels and splits from folder names and annotation files.

A layout is a function that maps a `Listing` to an `Arrangement`, or to None if the folder has another layout. The first
matching one in `LAYOUTS` is used; the last one matches every folder. To add a layout, write a function, add it to
`LAYOUTS` and add a row to docs/data.md.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

from selftaught.data.arrangement import Arrangement, Mask, numbered
from selftaught.data.class_folders import class_folders
from selftaught.data.labels import with_labels
from selftaught.data.listing import Listing
from selftaught.data.reader import UNLABELED, Files, has_label, readable, split_folder
from selftaught.errors import UserError


def arrange(listing: Listing) -> Arrangement:
    """Apply the first matching layout, with notes on empty split folders and on images left out or without a label."""
    result = next(result for layout in LAYOUTS if (result := layout(listing)))
    notes = list(result.notes)
    notes += [
        f"no images in the folder {readable(name)}" for name in listing.empty if split_folder(name.split("/")[-1])
    ]
    if result.left_out is not None and result.left_out.any():
        notes.append(f"{_count_with_examples(listing, result.left_out)} left out")
    if result.classes:
        used = np.ones(len(result.labels), dtype=np.bool_) if result.left_out is None else ~result.left_out
        for split, members in (result.splits or {"": used}).items():
            own = members & used
            missing = own & ~has_label(result.labels)
            where = f" of the {split} part" if split else ""
            if missing.any():
                notes.append(f"{_count_with_examples(listing, missing)}{where} without a label")
    return replace(result, notes=tuple(notes))


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
    labels, classes = numbered(names)
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
    labels, classes = numbered(names)
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
