"""Splits: which images of a source are for training, which for testing, and whether their classes agree."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from selftaught.data.reader import UNLABELED, Files, Indices, Labels, Reader, has_label, readable
from selftaught.display.progress import announce
from selftaught.errors import NoTestPart, UserError, unknown

Split = Literal["all", "train", "test"]

TEST_SHARE = 0.2
"""Fraction of the images held out for testing if the source has no splits."""


def with_test_part(splits: Mapping[str, Reader]) -> dict[str, Reader]:
    """Reduce the parts of a source to "all", "train" and "test" if it has a training and a test part, else to "all".

    The validation part is the test part if there is no other, or if only the validation part has labels. A test part
    without labels cannot be used to evaluate; a labeled training part is then split like a source without a test part.
    """
    validation, test = splits.get("validation"), splits.get("test")
    if test is None or (validation and _has_labels(validation) and not _has_labels(test)):
        test = validation
    train = splits.get("train")
    if train is None or test is None:
        return {"all": splits["all"]}
    if _has_labels(train) and len(test) and not _has_labels(test):
        # the name records that a run on all of it also trained on the images held out here
        return {"all": replace(train, name=f"{train.name} (train)")}
    return {"all": splits["all"], "train": train, "test": test}


def _has_labels(reader: Reader) -> bool:
    return reader.labels is not None and bool(has_label(reader.labels).any())


def describe_source(parts: Mapping[str, Reader], splits: Mapping[str, Reader], labels: Path | None) -> str | None:
    """One line on the layout, classes and splits recognized in a source; None if there is nothing to report."""
    reader = parts["all"]
    if not isinstance(reader, Files):
        return "; ".join([f"{reader.name}: {reader.notes[0]}", *reader.notes[1:]]) if reader.notes else None
    if not (_has_labels(reader) or len(splits) > 1 or reader.notes):
        return None
    classes = f"{len(reader.classes)} classes" if reader.classes else "no labels"
    if reader.labels is not None and reader.labels.ndim == 2:
        classes += ", several per image"
    if "test" in parts:
        tested = "validation" if parts["test"] is splits.get("validation") else "test"
        counts = f"{len(parts['train']):,} training and {len(parts['test']):,} test images"
        counts += " (the validation part)" if tested == "validation" else ""
    else:
        counts = f"{len(reader):,} images"
        labeled = 0 if reader.labels is None else int(has_label(reader.labels).sum())
        counts += f", {labeled:,} of them labeled" if labels and labeled < len(reader) else ""
    layout = reader.layout
    if labels:  # labels from the file replace those of the layout
        layout = f"labels from {readable(str(labels))}"
    return "; ".join([f"{reader.name}: {layout}, {classes}, {counts}", *reader.notes])


def split_part(splits: Mapping[str, Reader], split: Split) -> tuple[Reader, Indices, str]:
    """The images of a split.

    Args:
        splits: see `with_test_part`.
        split: "all", "train" or "test".

    Returns:
        A reader, the ascending indices of its images that belong to the split, and a note on how the split was made.

    Raises:
        NoTestPart: there is neither a test part nor labels.
    """
    if split not in ("all", "train", "test"):
        raise unknown("split", split, ["all", "train", "test"])
    reader = splits.get(split, splits["all"])
    everything = np.arange(len(reader))
    if split in splits:
        return reader, everything, "" if split == "all" else split
    if reader.labels is not None:
        share = round(100 * (TEST_SHARE if split == "test" else 1 - TEST_SHARE))
        return reader, everything[held_out(reader) == (split == "test")], f"{split}, about {share} % of the images"
    if split == "train":
        return reader, everything, ""
    why = f" ({'; '.join(reader.notes)})" if reader.notes else ""
    raise NoTestPart(
        f"{reader.name} has neither a test part nor labels{why}: put the images into train and test folders, or pass "
        f"--labels."
    )


def held_out(reader: Reader) -> NDArray[np.bool_]:
    """(N,) mask of the test images: those whose title has a hash in the lowest fifth of the range.

    The choice depends on neither labels, other images nor a seed, so an image in the training part of one run is never
    in the test part of another run with other labels. If all images fall on one side, the one nearest to the threshold
    is moved, because each part needs at least one.
    """
    titles = reader.titles_of(np.arange(len(reader)))
    digests = b"".join(hashlib.blake2b(os.fsencode(title), digest_size=8).digest() for title in titles)
    place = np.frombuffer(digests, dtype=">u8") / 2.0**64
    test = place < TEST_SHARE
    if len(test) > 1 and (test.all() or not test.any()):
        nearest = place.argmax() if test.all() else place.argmin()
        test[nearest] = not test[nearest]
    return test


def compare_classes(splits: Mapping[str, Reader]) -> None:
    """Report classes that occur in only one of the two parts.

    Raises:
        UserError: the training and the test part have no class in common.
    """
    present = []
    for split in ("train", "test"):
        reader, chosen, _ = split_part(splits, split)
        if reader.labels is None or reader.classes is None or not len(chosen):
            return
        present.append(_present(reader.labels[chosen], reader.classes))
    train, test = present
    name = splits["all"].name
    if len(train) == 1:
        raise UserError(
            f"a probe or evaluation needs two or more classes, but all training images of {name} are of the class "
            f"{_few(train)}: add images of other classes."
        )
    if train and test and not train & test and "test" in splits:
        raise UserError(
            f"the training and the test part of {name} have no class in common (training: {_few(train)}; test: "
            f"{_few(test)}): use the same class folders in both, or pass --labels."
        )
    if train and not train & test:
        raise UserError(
            f"no class of {name} has both a training and a test image ({len(splits['all'])} images, "
            f"{len(train | test)} classes): a probe or evaluation needs several images of each class, or train and "
            "test folders."
        )
    if train - test:
        announce(
            f"{name}: no test images for {len(train - test)} of {len(train | test)} classes ({_few(train - test)})"
        )
    if test - train:
        announce(
            f"{name}: no training images for {len(test - train)} of {len(train | test)} classes ({_few(test - train)})"
        )


def _present(labels: Labels, classes: Sequence[str]) -> set[str]:
    """The classes that some image has."""
    numbers = np.flatnonzero((labels == 1).any(0)) if labels.ndim == 2 else np.unique(labels[labels != UNLABELED])
    return {classes[number] for number in numbers.tolist()}


def _few(classes: set[str]) -> str:
    chosen = sorted(classes)[:3]
    return ", ".join(chosen) + (", ..." if len(classes) > 3 else "")
