"""Parts of labeled images: few labels per class, and validation images for model selection."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from selftaught.augment.warp import to_device
from selftaught.contracts import Batch, Source
from selftaught.errors import UserError
from selftaught.training.randomness import generator_for

VALIDATION = 0.2
"""Fraction of the labeled training images of each class that is used for validation, at least one image."""
MOST_VALIDATION = 2000
"""Maximum number of validation images: enough for a standard error of 0.01."""
ALL = "all"
"""Name of all labels as a number of labels."""
FEWEST = 2
"""Labeled images of each class that a fraction has at least: one to train on, one for validation."""


class Subset(Source):
    """Some images of a source.

    Args:
        base: the source.
        chosen: (n,) int64, the indices of the images, in the order of the new source.
    """

    def __init__(self, base: Source, chosen: Tensor) -> None:
        self.base, self.chosen = base, chosen
        self.name, self.classes, self.targets, self.side = base.name, base.classes, base.targets, base.side
        digest = blake2b(base.fingerprint.encode(), digest_size=16)
        digest.update(chosen.numpy().tobytes())
        self.fingerprint = digest.hexdigest()

    @property
    def content_ids(self) -> Tensor:
        """See `Source`."""
        ids = self.base.content_ids
        return ids[self.chosen % len(ids)] if len(ids) else ids

    def all_labels(self) -> Tensor:
        """See `Source`."""
        return self.base.all_labels()[self.chosen]

    def __len__(self) -> int:
        return len(self.chosen)

    def batch(self, indices: Tensor, device: torch.device) -> Batch:
        """See `Source`."""
        batch = self.base.batch(self.chosen[indices], device)
        batch.index, batch.population = to_device(indices, device), len(self)
        return batch


@dataclass(frozen=True)
class LabelCount:
    """A number of labeled training images."""

    name: str
    """For tables and folders: "20 per class", "1 %", "all"."""
    per_class: Tensor | None
    """(K,) int64, labeled images of each class; None for all of them."""


def count_names(per_class: Sequence[int], fractions: Sequence[float]) -> list[str]:
    """The names of the numbers of labels, as in `label_counts`."""
    return [*map(per_class_name, per_class), *map(fraction_name, fractions)] or [ALL]


def per_class_name(shots: int) -> str:
    """The name of a number of labels per class: "1,000 per class"."""
    return f"{shots:,} per class"


def fraction_name(fraction: float) -> str:
    """The name of a fraction of the labels: "1 %"."""
    return f"{100 * fraction:g} %"


def labels_of(source: Source) -> Tensor:
    """(N,) int64 on the CPU; negative for images without a label."""
    return source.all_labels()


def label_counts(
    labels: Tensor, classes: Sequence[str], per_class: Sequence[int], fractions: Sequence[float]
) -> list[LabelCount]:
    """The numbers of labels to evaluate with; all labels if none is given.

    Args:
        labels: (N,) int64, of the training images.
        classes: names of the classes.
        per_class: numbers of labeled images per class.
        fractions: fractions of the labeled images of each class.

    Raises:
        UserError: a number is below 1, a fraction is not in (0, 1], or a class has fewer images.
    """
    present = labels[labels >= 0].bincount(minlength=len(classes))
    counts = [_shots(shots, present, classes) for shots in per_class]
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise UserError(f"--label-fraction must be above 0 and at most 100 %, got {100 * fraction:g} %; try 10 %.")
        part = (fraction * present).round().long().clamp(min=FEWEST).minimum(present)
        counts.append(LabelCount(fraction_name(fraction), part))
    return counts or [LabelCount(ALL, None)]


def _shots(shots: int, present: Tensor, classes: Sequence[str]) -> LabelCount:
    if shots < 1:
        raise UserError(f"--labels-per-class must be at least 1, got {shots}.")
    fewest, short = int(present.argmin()), int((present < shots).sum())
    if short:
        others = f" ({short} of {len(classes)} classes have too few)" if short > 1 else ""
        raise UserError(
            f"--labels-per-class {shots} is too large: the smallest class, {classes[fewest]!r}, has "
            f"{present[fewest]:,} labeled training images{others}. Give a smaller number, or label more images."
        )
    return LabelCount(per_class_name(shots), torch.full_like(present, shots))


def draw_labels(labels: Tensor, count: LabelCount, draw: int) -> Tensor:
    """Choose labeled images at random, stratified by class; a smaller draw is part of a larger one of the same number.

    Args:
        labels: (N,) int64; negative ones are never chosen.
        count: how many.
        draw: number of the draw, its random seed.

    Returns:
        (n,) int64, ascending indices.
    """
    if count.per_class is None:
        return (labels >= 0).nonzero().flatten()
    return _first_of_each_class(labels, count.per_class, "labels", draw)


def split_validation(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Split labeled images into training and validation images, stratified by class.

    Args:
        labels: (n,) int64, not negative.
        seed: random seed.

    Returns:
        Ascending indices of the training and of the validation images; every class has both if it has two images. If
        none has, all images are both: nothing can be held out.
    """
    present = labels.bincount()
    most = max(1, MOST_VALIDATION // max(1, int((present > 0).sum())))
    counts = (VALIDATION * present).floor().long().clamp(1, most).minimum((present - 1).clamp(min=0))
    held = _first_of_each_class(labels, counts, "validation", seed)
    if not len(held):
        everything = torch.arange(len(labels))
        return everything, everything
    mask = torch.ones(len(labels), dtype=torch.bool).index_fill_(0, held, False)
    return mask.nonzero().flatten(), held


def _first_of_each_class(labels: Tensor, counts: Tensor, purpose: str, seed: int) -> Tensor:
    """The first `counts` ((K,) int64) images of each class in a random order."""
    chosen = []
    for label, number in enumerate(counts.tolist()):
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator_for(seed, purpose, label))
        chosen.append(members[order[:number]])
    return torch.cat(chosen).sort().values


def shared_labels_note(labels: Tensor, counts: Sequence[LabelCount]) -> str:
    """A note on draws that share most of their images, because they are most of the labeled ones; or empty.

    Args:
        labels: (N,) int64, of the training images.
        counts: the numbers of labels.
    """
    total = int((labels >= 0).sum())
    large = [count.name for count in counts if count.per_class is not None and 2 * int(count.per_class.sum()) > total]
    if not large:
        return ""
    return (
        f"Draws of {', '.join(large)} share most images, because there are {total:,} labeled ones: the interval "
        "includes less than the variation between independent sets of labeled images."
    )


def parse_fraction(text: str) -> float:
    """A fraction written as "1%" or "0.01".

    Raises:
        UserError: it is no number.
    """
    try:
        value = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"--label-fraction expects percentages such as 1% or 10%, got {text!r}.")
    return value
