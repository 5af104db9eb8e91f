"""Attention maps drawn over their images: one row per image and power, one column per map."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from selftaught.figures.image_table import image_table, stretched

OPACITY = 0.6
"""Opacity of a map over its image, which is shown in gray."""


def attention(
    images: Tensor, maps: Mapping[str, Mapping[str, Tensor]], powers: Sequence[float], side: int = 96
) -> Figure:
    """Draw maps over images.

    Every map is scaled separately from its minimum (black) to its maximum (bright yellow), so places within a map can
    be compared, and magnitudes of different maps cannot.

    Args:
        images: (B, 3, H, W) in [0, 1].
        maps: name of a network -> name of a map -> (B, P, h, w); all networks have the same maps.
        powers: P powers; a single one has no heading.
        side: approximate height of an image in pixels; see `stretched`.
    """
    large = stretched(images.float().cpu(), side)
    count = len(powers)
    columns = [large[:, None].expand(-1, count, -1, -1, -1)]
    for named in maps.values():
        columns += [overlay(large, values) for values in named.values()]
    table = torch.stack(columns, 2).flatten(0, 1)  # (B * P, C, 3, H, W)
    names = ["image", *(name for named in maps.values() for name in named)]
    rows = [f"p = {power:g}" for power in powers] * len(images) if count > 1 else []
    return image_table(table, names, rows, [("", 1), *((network, len(named)) for network, named in maps.items())])


def overlay(images: Tensor, maps: Tensor) -> Tensor:
    """Color maps and blend them with their images: (B, 3, H, W) and (B, P, h, w) -> (B, P, 3, H, W)."""
    maps = maps.float().cpu()
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    scaled = (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)
    smooth = F.interpolate(scaled, images.shape[-2:], mode="bilinear", align_corners=False).clamp(0, 1)
    colors = torch.from_numpy(colormaps["inferno"](smooth.numpy())[..., :3]).float().movedim(-1, 2)
    gray = images.mean(1, keepdim=True)[:, None]
    return OPACITY * colors + (1 - OPACITY) * gray
