"""First-layer filters, drawn as small images."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad

from selftaught.display.mosaic import mosaic
from selftaught.errors import UserError
from selftaught.figures.grid import grid
from selftaught.figures.image_table import image_table, padded, stretched

SIDE = 44
"""Approximate side of a filter in pixels."""
MARGIN = 8
"""White pixels on either side of a block of filters."""


def filters(weight: Tensor, columns: int = 16) -> Figure:
    """Draw every filter of a first convolution.

    Each filter is scaled separately and symmetrically: 0 is mid-gray, and its largest magnitude is black or white.
    Filters can therefore be compared in sign and shape, but not in magnitude.

    Args:
        weight: (F, C, h, w) with C = 3 (shown in color), 1 (gray) or 2 (such as Sobel; both in gray, side by side).
        columns: filters per row.

    Raises:
        UserError: the weight has another shape.
    """
    _require_filters(weight)
    return grid(pictures(weight), columns, side=SIDE)


def _require_filters(weight: Tensor) -> None:
    if weight.ndim != 4 or weight.shape[1] not in (1, 2, 3) or len(weight) == 0:
        raise UserError(f"filters must be a weight of shape (F, 1 to 3, h, w), but got {tuple(weight.shape)}.")


def filter_comparison(weights: Mapping[str, Tensor], columns: int = 12) -> Figure:
    """Draw the first-layer filters of several networks, one block per network, each filter scaled as in `filters`.

    Args:
        weights: heading -> (F, C, h, w), see `filters`.
        columns: filters per row.

    Raises:
        UserError: a weight has another shape, or the figure would be too large.
    """
    blocks = []
    for weight in weights.values():
        _require_filters(weight)
        tiles = mosaic(stretched(pictures(weight), SIDE), columns)
        background = tiles[..., 3:] == 0
        blocks.append(torch.from_numpy(np.where(background, 255, tiles[..., :3])).permute(2, 0, 1).float() / 255)
    spaced = [pad(block, (MARGIN, MARGIN), value=1.0) for block in blocks]
    return image_table(padded(spaced)[None], list(weights), [])


def pictures(weight: Tensor) -> Tensor:
    """(F, C, h, w) weights -> (F, 3, h, w) in [0, 1], or (F, 3, h, 2 w + 1) for C = 2."""
    weight = weight.detach().float().cpu().nan_to_num(0.0, 0.0, 0.0)
    largest = weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    scaled = 0.5 + 0.5 * weight / largest
    if weight.shape[1] == 2:
        line = torch.ones(*scaled.shape[:1], 1, scaled.shape[2], 1)
        scaled = torch.cat([scaled[:, :1], line, scaled[:, 1:]], dim=3)
    return scaled if scaled.shape[1] == 3 else scaled.expand(-1, 3, -1, -1)
