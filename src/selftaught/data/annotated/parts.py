"""The parts of annotated images: training, validation (which chooses the learning rate and the step) and test."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from selftaught.data.reader import SPLITS
from selftaught.errors import UserError, readable

VALIDATION_FRACTION = 0.2
"""Fraction of the images of a part that become its validation or test part where there is none."""

Item = TypeVar("Item")
Part = TypeVar("Part")


@dataclass(frozen=True)
class Parts(Generic[Part]):
    """The three parts of a data set."""

    train: Part
    validation: Part
    test: Part
    note: str
    """How the parts were made, for the user."""


def make_parts(splits: Mapping[str, Sequence[Item]], name: Callable[[Item], str], place: str) -> Parts[Sequence[Item]]:
    """Divide the images of a data set.

    Without test images its validation images are the test images, and without those a fifth of all images; a fifth of
    the training images is then held out for validation. Which images these are depends on their names alone.

    Args:
        splits: images by split: "train", "validation", "test" or "all".
        name: the name of an image, unique in its split.
        place: the data set, for error messages.

    Raises:
        UserError: a part would be empty.
    """
    present = {split: items for split, items in splits.items() if items}
    train, test = present.get("train", present.get("all", [])), present.get("test", present.get("validation"))
    notes = []
    if test is None:
        train, test = _divided(train, name)
        notes.append("no test part: a fifth of the images, chosen by name, is the test part")
    validation = present.get("validation") if "test" in present else None
    if validation is None:
        train, validation = _divided(train, name)
        notes.append("a fifth of the training images, chosen by name, chooses learning rate and step")
    if not (train and validation and test):
        raise UserError(
            f"{place} has too few annotated images ({len(train)} for training, {len(validation)} for validation, "
            f"{len(test)} for testing): add images or list more of them."
        )
    shared = {name(item) for item in test} & {name(item) for part in (train, validation) for item in part}
    if shared and "all" not in present:
        raise UserError(
            f"{len(shared):,} test images of {place} are training or validation images as well, such as "
            f"{readable(sorted(shared)[0])}: list every image once."
        )
    return Parts(train, validation, test, "; ".join(notes))


def split_of(word: str) -> str | None:
    """The split that a name of a file or folder stands for: "val2017" -> "validation"; None if it is none."""
    stem = word.lower().rstrip("0123456789_-")
    return next((split for split, names in SPLITS.items() if stem in names), None)


def require_classes(classes_by_part: Mapping[str, set[str]], place: str) -> tuple[str, ...]:
    """The classes of the training images, sorted.

    Args:
        classes_by_part: class names by part: "train", "validation" and "test".
        place: the data set, for error messages.

    Raises:
        UserError: there are none, or another part has others.
    """
    train = classes_by_part["train"]
    if not train:
        raise UserError(f"no training image of {place} has an object: annotate some, or check the lists of images.")
    for part, names in classes_by_part.items():
        if extra := sorted(names - train):
            raise UserError(
                f"the {part} images of {place} have the class {readable(extra[0])!r}, which no training image has "
                f"({', '.join(map(readable, sorted(train)[:5]))}{', ...' if len(train) > 5 else ''}): use the same "
                "class names in all parts."
            )
    return tuple(sorted(train))


def require_folder(data: str | Path) -> Path:
    """The path of a data set.

    Raises:
        UserError: it is no folder.
    """
    root = Path(data)
    if not root.is_dir():
        raise UserError(f"--data expects a folder with annotated images, got {readable(str(data))!r}, which is none.")
    return root


def _divided(items: Sequence[Item], name: Callable[[Item], str]) -> tuple[list[Item], list[Item]]:
    """All but a fifth of the images, and that fifth: those whose name has the lowest hash."""
    order = sorted(items, key=lambda item: hashlib.blake2b(name(item).encode("utf-8", "replace")).digest())
    held = {id(item) for item in order[: max(1, round(VALIDATION_FRACTION * len(items)))]}
    return [item for item in items if id(item) not in held], [item for item in items if id(item) in held]
