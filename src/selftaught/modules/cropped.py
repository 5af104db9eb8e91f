"""Base class of tasks on one random crop of each image."""

from abc import ABC
from dataclasses import dataclass

from selftaught.augment.views import ViewAugmentation, crop_and_flip
from selftaught.augment.warp import require_shares
from selftaught.contracts import Task
from selftaught.errors import require_between
from selftaught.limits import POSITIVE_FRACTION


@dataclass(frozen=True)
class CroppedTask(Task, ABC):
    """A task on one random crop of each image, half of them mirrored."""

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
        require_between("--crop, a fraction of --size,", self.crop, *POSITIVE_FRACTION, hint="; try 0.75")

    @property
    def side(self) -> int:
        """S, side of a view in pixels."""
        return round(self.crop * self.size)

    def view_sizes(self) -> dict[str, int]:
        """Crops."""
        return {"crop": self.side}

    def augmentation(self) -> ViewAugmentation:
        """The random crop, without a change of colors."""
        return crop_and_flip(self.scale, self.flip)
