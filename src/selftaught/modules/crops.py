"""Base class of tasks whose views are random crops: its fields and the crop.

Letters: B images, S pixels along a view.
"""

from abc import ABC
from dataclasses import dataclass

import torch
from torch import Tensor

from selftaught.augment.warp import random_crop, require_shares
from selftaught.contracts import Batch, Task
from selftaught.errors import UserError


@dataclass(frozen=True)
class CropTask(Task, ABC):
    """A task whose views are crops of images."""

    crop: float = 0.75
    """Side of the views as a fraction of --size: 0.75 halves the cost, and features of whole images are better where
    objects appear larger than in training (Touvron et al. 2019, "Fixing the train-test resolution discrepancy"); 1 for
    an encoder with a fixed input size."""
    scale: tuple[float, float] = (0.6, 1.0)
    """Smallest and largest area of a crop, as a fraction of the image; objects appear as large as in the whole image
    where it is the square of `crop`."""
    flip: bool = True
    """Mirror half of the images."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        require_shares("--scale", self.scale)
        if not 0 < self.crop <= 1:
            raise UserError(f"--crop must be a fraction of --size, above 0 and at most 1, got {self.crop:g}; try 0.75.")

    @property
    def side(self) -> int:
        """S, side of a view in pixels."""
        return round(self.crop * self.size)

    def windows(self, count: int, generator: torch.Generator) -> Tensor:
        """Random crops as geometries: (B, 3, 3)."""
        return random_crop(count, generator, scale=self.scale, flip=0.5 * self.flip)

    def cropped(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The views: (B, 3, S, S)."""
        return batch.warp(self.windows(len(batch), generator), self.side)
