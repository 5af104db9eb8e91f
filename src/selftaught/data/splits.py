"""Splits: which images of a source are for training and which for testing, and whether their classes agree."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from selftaught.data.reader import UNLABELED, Files, Indices, Reader, readable
from selftaught.display.progress import announce
from selftaught.errors import NoTestPart, UserError, unknown

Split = Literal["all", "train", "test"]

TEST_SHARE = 0.2
"""Share of the images held out for testing where they come without a split."""


def with_test_part(splits: Mapping[str, Reader]) -> dict[str, Reader]:
    """Reduce the parts of a source to "all", "train" and "test" where it comes with the latter two, else to "all".

    The test part is the validation part where there is no other, or where only that one has labels. A test part without
    labels cannot evaluate a labelled training part, which is then split like a source without a test part.
    """
    validation, test = splits.get("validation"), splits.get("test")
    if test is None or (validation and _has_labels(validation) and not _has_labels(test)):
        test = validation
    train = splits.get("train")
    if train is None or test is None:
        return {"all": splits["all"]}
    if _has_labels(train) and len(test) and not _has_labels(test):
        # named as what it is, so that a run on all of it is known to have trained on what is held out here
        return {"all": replace(train, name=f"{train.name} (train)")}
    return {"all": splits["all"], "train": train, "test": test}


def _has_labels(reader: Reader) -> bool:
    return reader.labels is not None and bool((reader.labels != UNLABELED).any())


def interpretation(parts: Mapping[str, Reader], splits: Mapping[str, Reader], labels: Path | None) -> str | None:
    """One line on how a folder was interpreted; None where there was nothing to interpret."""
    reader = parts["all"]
    if not isinstance(reader, Files):
        return "; ".join([f"{reader.name}: {reader.notes[0]}", *reader.notes[1:]]) if reader.notes else None
    if not (_has_labels(reader) or len(splits) > 1 or reader.notes):
        return None
    classes = f"{len(reader.classes)} classes" if reader.classes else "no labels"
    if "test" in parts:
        tested = "validation" if parts["test"] is splits.get("validation") else "test"
        counts = f"{len(parts['train']):,} training and {len(parts['test']):,} test images"
        counts += " (the validation part)" if tested == "validation" else ""
    else:
        counts = f"{len(reader):,} images"
    layout = reader.layout
    if labels:  # the layout is about other labels
        layout = f"labels from {readable(str(labels))}"
    return "; ".join([f"{reader.name}: {layout}, {classes}, {counts}", *reader.notes])


def split_part(splits: Mapping[str, Reader], split: Split) -> tuple[Reader, Indices, str]:
    """Which images a split has.

    Args:
        splits: see `with_test_part`.
        split: "all", "train" or "test".

    Returns:
        A reader, the ascending indices of the images in it that belong to the split, and how the split was made.

    Raises:
        NoTestPart: there is no test part, nor are there labels.
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
        f"{reader.name} has neither a test part nor labels{why}: put the images into train and test folders, or give "
        f"--labels."
    )


def held_out(reader: Reader) -> NDArray[np.bool_]:
    """(N,) which images are for testing: those whose title has a hash in the lowest fifth.

    Nothing else counts, neither labels nor other images nor a seed, so an image that one run trained on is never tested
    on by another one with other labels. Only where all images fall on one side is the nearest one moved, as each part
    needs one.
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
    """Announce classes that only one of the two parts has.

    Raises:
        UserError: the training and the test part have no class in common.
    """
    present = []
    for split in ("train", "test"):
        reader, chosen, _ = split_part(splits, split)
        if reader.labels is None or reader.classes is None or not len(chosen):
            return
        labels = np.unique(reader.labels[chosen])
        present.append({reader.classes[label] for label in labels[labels != UNLABELED].tolist()})
    train, test = present
    name = splits["all"].name
    if len(train) == 1:
        raise UserError(
            f"a probe needs two or more classes, but all training images of {name} are of the class {_few(train)}: add "
            "images of others."
        )
    if train and test and not train & test and "test" in splits:
        raise UserError(
            f"the training and the test part of {name} have no class in common (training: {_few(train)}; test: "
            f"{_few(test)}): use the same class folders in both, or give --labels."
        )
    if train and not train & test:
        raise UserError(
            f"no class of {name} has both a training and a test image ({len(splits['all'])} images, "
            f"{len(train | test)} classes): a probe needs several images of each class, or train and test folders."
        )
    if train - test:
        announce(
            f"{name}: no test images for {len(train - test)} of {len(train | test)} classes ({_few(train - test)})"
        )
    if test - train:
        announce(
            f"{name}: no training images for {len(test - train)} of {len(train | test)} classes ({_few(test - train)})"
        )


def _few(classes: set[str]) -> str:
    chosen = sorted(classes)[:3]
    return ", ".join(chosen) + (", ..." if len(classes) > 3 else "")
