"""Images as tensors, for analyses that draw them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.augment.warp import identity
from selftaught.contracts import Source


def whole_images(source: Source, indices: Tensor, size: int, device: torch.device) -> Tensor:
    """Images of a source as a probe views them: (n,) indices -> (n, 3, size, size) in [0, 1] on `device`."""
    batch = source.batch(indices, device)
    return batch.warp(identity(len(batch)), size)


def square(photo: Tensor, size: int) -> Tensor:
    """The center square of a photo, antialiased: (3, H, W) uint8 -> (3, size, size) in [0, 1]."""
    height, width = photo.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return _resized(photo[:, top : top + side, left : left + side], (size, size))


def fitted(photo: Tensor, longest: int) -> Tensor:
    """A photo whose longer side is `longest` pixels, with the same aspect ratio: (3, H, W) uint8 -> in [0, 1]."""
    height, width = photo.shape[1:]
    scale = longest / max(height, width)
    return _resized(photo, (max(1, round(height * scale)), max(1, round(width * scale))))


def _resized(photo: Tensor, shape: tuple[int, int]) -> Tensor:
    values = photo[None].float() / 255
    return F.interpolate(values, shape, mode="bilinear", antialias=True)[0].clamp(0, 1)
