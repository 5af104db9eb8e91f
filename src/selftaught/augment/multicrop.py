"""Multi-crop: two global views and several small local ones of each image.

Caron et al. 2020 (SwAV), section 3.2.

Letters: B images, S pixels along a global view, s along a local one, n local views of an image.
"""

from dataclasses import dataclass, replace

import torch

from selftaught.augment.views import ViewAugmentation, two_views
from selftaught.augment.warp import require_shares
from selftaught.contracts import Batch, Views
from selftaught.errors import require_ranges
from selftaught.limits import VIEWS, Range

LOCAL_VIEWS = Range(0, VIEWS.high)


@dataclass(frozen=True)
class MultiCrop:
    """Parameters of the views; local ones have half the side of global ones."""

    augmentation: ViewAugmentation
    """That of the global views, and but for the crops that of the local ones."""
    size: int
    """S."""
    local_area: tuple[float, float] = (0.1, 0.3)
    """Range of the fraction of the image's area that a local view shows."""
    local_views: int = 4
    """n; with 0 there are global views only."""

    def __post_init__(self) -> None:
        """Reject invalid ranges."""
        require_shares("--local-area", self.local_area)
        require_ranges(self, local_views=LOCAL_VIEWS)

    def sizes(self) -> dict[str, int]:
        """Sides of the views in pixels, see `Task.view_sizes`."""
        return {"view": self.size, **({"local view": self.size // 2} if self.local_views else {})}

    def views(
        self,
        batch: Batch,
        generator: torch.Generator,
        pair: tuple[ViewAugmentation, ViewAugmentation] | None = None,
    ) -> Views:
        """`global` (B * 2, 3, S, S) and `local` (B * n, 3, s, s), if there are any, the views of an image in a row.

        Args:
            batch: the images.
            generator: source of all randomness.
            pair: augmentations of the two global views, where they differ (DINO).
        """
        views = {"global": two_views(batch, self.size, generator, *(pair or (self.augmentation, self.augmentation)))}
        if self.local_views:
            local = replace(self.augmentation, crop_area=self.local_area)
            views["local"] = local.views(batch, self.size // 2, generator, self.local_views)
        return views
