"""Test images that were in pretraining, found by their content."""

import torch
from torch import Tensor

from selftaught.contracts import Source


def count_overlap(source: Source, indices: Tensor, pretraining: Tensor | None) -> int | None:
    """How many images of a source were part of pretraining; None if unknown.

    Args:
        source: the test images.
        indices: (n,) int64, which of them to count.
        pretraining: (M,) int64, `Source.content_ids` of the pretraining images; None if unknown.
    """
    ids = content_ids_of(source, indices)
    if pretraining is None or not len(pretraining) or ids is None:
        return None
    return int(torch.isin(ids, pretraining).sum())


def content_ids_of(source: Source, indices: Tensor) -> Tensor | None:
    """(n,) int64: the digest of the content that each of the images is made from; None if unknown."""
    ids = source.content_ids
    return ids[indices % len(ids)] if len(ids) else None


def overlap_warning(seen: int | None, count: int, what: str = "test images") -> str:
    """What a reader must know about the overlap with pretraining, or nothing.

    Args:
        seen: how many images were part of pretraining; None if unknown.
        count: how many images there are.
        what: what they are called.
    """
    if seen is None:
        return f"It is unknown whether the {what} were part of the (unlabeled) pretraining set."
    return f"Warning: {seen:,} of {count:,} {what} were part of the (unlabeled) pretraining set." if seen else ""
