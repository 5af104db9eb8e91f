"""Labels and splits of the images of a folder, the result of a layout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from selftaught.data.reader import UNLABELED, Indices, Labels, natural_key, readable

Mask = NDArray[np.bool_]
"""(N,) bool, one per image of a listing."""


@dataclass(frozen=True)
class Arrangement:
    """Labels and splits of the images of a listing."""

    layout: str
    """Short description of the layout."""
    labels: Labels
    """See `Reader.labels`; all `UNLABELED` without labels."""
    classes: tuple[str, ...]
    """Class names; empty if there are no labels."""
    splits: Mapping[str, Mask] = field(default_factory=dict)
    """Images of "train", "test" and "validation"; empty if there are no splits."""
    left_out: Mask | None = None
    """Images that are not part of the data set, such as segmentation masks."""
    notes: tuple[str, ...] = ()
    """Notes for the user, one phrase each."""


def numbered(names: Sequence[str | None], folder_of: Indices | None = None) -> tuple[Indices, tuple[str, ...]]:
    """Class names as indices into the sorted classes; no labels if there are fewer than two classes.

    Args:
        names: class name of each image, or of each folder.
        folder_of: (N,) index into `names` of each image's folder; None if `names` has one entry per image.
    """
    classes = tuple(sorted({name for name in names if name is not None}, key=natural_key))
    if len(classes) < 2:
        return np.full(len(names if folder_of is None else folder_of), UNLABELED), ()
    place = {name: position for position, name in enumerate(classes)}
    labels = np.array([UNLABELED if name is None else place[name] for name in names], dtype=np.int64)
    return labels if folder_of is None else labels[folder_of], tuple(map(readable, classes))
