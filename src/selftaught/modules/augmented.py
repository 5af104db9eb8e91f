"""Base classes of joint-embedding tasks: the settings of their augmentation, and two or more views of an image.

Letters: B images, S pixels along a view (s along a local one), n local and V views in all of an image, K logits.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.multicrop import MultiCrop
from selftaught.augment.views import ViewAugmentation, byol_augmentations, two_views
from selftaught.augment.warp import require_shares
from selftaught.contracts import Batch, Encoder, Source, Task, Views


@dataclass(frozen=True)
class AugmentedTask(Task, ABC):
    """A task on randomly cropped, flipped, recolored and blurred views of an image."""

    view_area: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest area of a view, as a fraction of the image (SimCLR, BYOL, VICReg, Barlow Twins: from 0.08,
    at 224 pixels)."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    """Strength of brightness, contrast, saturation and hue jitter, applied to 80 % of the views."""
    grayscale: float = 0.2
    """Probability of conversion to gray, so that color alone does not identify an image."""
    blur: float = 0.5
    """Probability of a Gaussian blur of at most 2 of 224 pixels."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        require_shares("--view-area", self.view_area)
        self.augmentation()

    def augmentation(self) -> ViewAugmentation:
        """The augmentation with these settings."""
        return ViewAugmentation(crop_area=self.view_area, jitter=self.jitter, grayscale=self.grayscale, blur=self.blur)

    def pair(self) -> tuple[ViewAugmentation, ViewAugmentation]:
        """The augmentations of the two views, of multi-crop tasks the global ones."""
        return (base := self.augmentation()), base

    @abstractmethod
    def projection(self, encoder: Encoder) -> nn.Module:
        """A new projection to the embeddings that the loss compares: (B, C) -> (B, D)."""

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """The projection, all that some of these tasks need beside the encoder."""
        return nn.ModuleDict({self.projection_name: self.projection(encoder)})


@dataclass(frozen=True)
class AsymmetricTask(AugmentedTask, ABC):
    """A task with BYOL's augmentations: the first view is always blurred, the second seldom, but may be solarized."""

    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Strength of brightness, contrast, saturation and hue jitter, applied to 80 % of the views (paper: the same)."""

    def pair(self) -> tuple[ViewAugmentation, ViewAugmentation]:
        """The augmentations of the two views, of multi-crop tasks the global ones."""
        return byol_augmentations(self.augmentation())


@dataclass(frozen=True)
class TwoViewTask(AugmentedTask, ABC):
    """A task on two views of each image."""

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B * 2, 3, S, S), the two views of an image in a row."""
        return {"images": two_views(batch, self.size, generator, *self.pair())}


@dataclass(frozen=True)
class MultiCropTask(AugmentedTask, ABC):
    """A task on two global views and several small local views of each image."""

    local_area: tuple[float, float] = (0.1, 0.3)
    """Smallest and largest area of a local view, as a fraction of the image."""
    local_views: int = 4
    """Number of local views per image, of half the side of global ones (SwAV: 6, DINO: 8, of 96 instead of 224
    pixels)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        self.multi_crop()

    def multi_crop(self) -> MultiCrop:
        """The global and local views with these settings."""
        return MultiCrop(self.augmentation(), self.size, self.local_area, self.local_views)

    def view_sizes(self) -> dict[str, int]:
        """Global and local views."""
        return self.multi_crop().sizes()

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`global` (B * 2, 3, S, S) and `local` (B * n, 3, s, s), the views of an image in a row."""
        return self.multi_crop().views(batch, generator, self.pair())

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """Global views, two of each image, and local views."""
        return dict(views)


def split_views(images: Tensor) -> tuple[Tensor, ...]:
    """(B * 2, ...), the two views of an image in a row -> the first views (B, ...) and the second ones."""
    return images.reshape(-1, 2, *images.shape[1:]).unbind(1)


def embed_views(network: nn.Module, views: Views) -> list[Tensor]:
    """Embeddings of the views of `augment.multicrop`, in one pass for the views of each size.

    Returns:
        One tensor (B, D) for each view of an image, those of the two global views first.
    """
    images = len(views["global"]) // 2
    return [
        embedding
        for group in (views[name] for name in ("global", "local") if name in views)
        for embedding in network(group).unflatten(0, (images, -1)).unbind(1)
    ]


def cross_view_entropy(targets: Sequence[Tensor], logits: Sequence[Tensor]) -> Tensor:
    """Mean cross-entropy between the target of each global view and the logits of each other view of the same image.

    Args:
        targets: distributions (B, K) of the two global views.
        logits: (B, K) of all V views, those of the global views first.
    """
    pairs = [pair for pair in permutations(range(len(logits)), 2) if pair[0] < len(targets)]
    return torch.stack([F.cross_entropy(logits[other], targets[view]) for view, other in pairs]).mean()
