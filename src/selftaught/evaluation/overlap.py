"""Overlap of the test images with the pretraining set and with the training images, detected by image content."""

import torch
from torch import Tensor

from selftaught.contracts import Source


def count_overlap(source: Source, indices: Tensor, pretraining: Tensor | None) -> int | None:
    """Count the images of a source that were part of pretraining; None if unknown.

    Args:
        source: the test images.
        indices: (n,) int64, the images to check.
        pretraining: (M,) int64, `Source.content_ids` of the pretraining images; None if unknown.
    """
    ids = content_ids_of(source, indices)
    if pretraining is None or not len(pretraining) or ids is None:
        return None
    return int(torch.isin(ids, pretraining).sum())


def duplicate_warning(train: Tensor | None, test: Tensor | None) -> str:
    """A warning about test images that are training images as well; empty if there are none or it is unknown.

    Args:
        train: (N,) int64, content digests of the labeled training images; None if unknown.
        test: (n,) int64, those of the labeled test images.
    """
    count = 0 if train is None or test is None else int(torch.isin(test, train).sum())
    if not count:
        return ""
    return (
        f"Warning: {count:,} of {len(test):,} test images are copies of labeled training images, so accuracies are too "  # type: ignore[arg-type]
        "high: remove the copies."
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
