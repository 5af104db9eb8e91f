"""Overlap of the test images with the pretraining set and with the training images, detected by image content."""

import torch
from torch import Tensor

from selftaught.contracts import Source
from selftaught.evaluation.features import labeled_indices


def count_overlap(source: Source, indices: Tensor, others: Tensor | None) -> int | None:
    """Count the images of a source that are among others, such as those of pretraining; None if unknown.

    Args:
        source: the test images.
        indices: (n,) int64, the images to check.
        others: (M,) int64, `Source.content_ids` of the other images; None if unknown.
    """
    ids = content_ids_of(source, indices)
    if others is None or not len(others) or ids is None:
        return None
    return int(torch.isin(ids, others).sum())


def duplicate_warning(train: Source, test: Source) -> str:
    """A warning about test images that are training images as well, labeled ones of both; empty if there are none.

    Also empty if the content of either source is unknown.
    """
    return copies_warning(train, labeled_indices(train), test, labeled_indices(test), "labeled training images")


def copies_warning(train: Source, known: Tensor, test: Source, tested: Tensor, what: str = "training images") -> str:
    """A warning about images of `test` that are images of `train` as well; empty if there are none.

    Also empty if the content of either source is unknown.

    Args:
        train: the images that a classifier, detector or decoder is trained with.
        known: (n,) int64, those of them that are used.
        test: the images that it is tested on.
        tested: (m,) int64, those of them that are used.
        what: noun for the training images in the sentence.
    """
    count = count_overlap(test, tested, content_ids_of(train, known))
    if not count:
        return ""
    return (
        f"Warning: {count:,} of {len(tested):,} test images are copies of {what}, so the results are too high: remove "
        "the copies."
    )


def content_ids_of(source: Source, indices: Tensor) -> Tensor | None:
    """(n,) int64, the content digest of each image (of its photo, for crops); None if unknown."""
    ids = source.content_ids
    return ids[indices % len(ids)] if len(ids) else None


def overlap_warning(overlap: int | None, count: int, what: str = "test images") -> str:
    """A warning about the overlap with pretraining; empty if there is none.

    Args:
        overlap: number of images that were part of pretraining; None if unknown.
        count: number of images.
        what: noun for the images in the sentence.
    """
    if overlap is None:
        return f"It is unknown whether the {what} were part of the (unlabeled) pretraining set."
    return f"Warning: {overlap:,} of {count:,} {what} were part of the (unlabeled) pretraining set." if overlap else ""
