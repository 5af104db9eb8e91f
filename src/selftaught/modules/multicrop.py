"""Base class of multi-crop tasks: two global views and several small local ones of each image.

Caron et al. 2020 (SwAV), section 3.2.

Letters: B images, S pixels along a global view, s along a local one, V views of an image, n of them local.
"""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from selftaught.augment.views import Crops, ViewAugmentation, multi_crop, two_views
from selftaught.augment.warp import require_shares
from selftaught.contracts import Batch, Encoder, Views
from selftaught.errors import require_ranges
from selftaught.limits import VIEWS, Range
from selftaught.modules.augmented import AugmentedTask

LOCAL_VIEWS = Range(0, VIEWS.high)


@dataclass(frozen=True)
class MultiCropTask(AugmentedTask, ABC):
    """A task on two global views of `view_area` and several local ones, of half the side."""

    view_area: tuple[float, float] = (0.3, 1.0)
    """Smallest and largest area of a global view, as a fraction of the image (SwAV: from 0.14, DINO: from 0.4)."""
    local_area: tuple[float, float] = (0.1, 0.3)
    """Smallest and largest area of a local view (SwAV: 0.05 to 0.14, DINO: 0.05 to 0.4)."""
    local_views: int = 4
    """Number of local views per image, of half the side of global ones (SwAV: 6, DINO: 8, of 96 instead of 224
    pixels)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_shares("--local-area", self.local_area)
        require_ranges(self, local_views=LOCAL_VIEWS)

    def view_sizes(self) -> dict[str, int]:
        """Global and local views."""
        return {"view": self.size, **({"local view": self.size // 2} if self.local_views else {})}

    def crops(self, batch: Batch, generator: torch.Generator, pair: tuple[ViewAugmentation, ViewAugmentation]) -> Views:
        """`global` (B * 2, 3, S, S), with the two augmentations, and `local` (B * n, 3, s, s), if there are any."""
        views = {"global": two_views(batch, self.size, generator, *pair)}
        if self.local_views:
            local = replace(self.augmentation(), crop_area=self.local_area)
            (views["local"],) = multi_crop(batch, generator, [Crops(local, self.size // 2, self.local_views)])
        return views

    def embedded(self, network: nn.Module, views: Views) -> Sequence[Tensor]:
        """V embeddings (B, D), of the two global views first; one pass for the views of each size."""
        embeddings = [*network(views["global"]).unflatten(0, (-1, 2)).unbind(1)]
        if "local" in views:
            embeddings += network(views["local"]).unflatten(0, (-1, self.local_views)).unbind(1)
        return embeddings

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """Global views, two of each image, and local views."""
        return dict(views)
