"""Overlap of the test images with the pretraining set, detected by image content."""

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
