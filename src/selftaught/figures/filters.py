"""First-layer filters, drawn as small images."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from selftaught.errors import UserError
from selftaught.figures.grid import grid


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
    if weight.ndim != 4 or weight.shape[1] not in (1, 2, 3) or len(weight) == 0:
        raise UserError(f"filters must be a weight of shape (F, 1 to 3, h, w), but got {tuple(weight.shape)}.")
    return grid(pictures(weight), columns, side=44)


def pictures(weight: Tensor) -> Tensor:
    """(F, C, h, w) weights -> (F, 3, h, w) in [0, 1], or (F, 3, h, 2 w + 1) for C = 2."""
    weight = weight.detach().float().cpu().nan_to_num(0.0, 0.0, 0.0)
    largest = weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    scaled = 0.5 + 0.5 * weight / largest
    if weight.shape[1] == 2:
        line = torch.ones(*scaled.shape[:1], 1, scaled.shape[2], 1)
        scaled = torch.cat([scaled[:, :1], line, scaled[:, 1:]], dim=3)
    return scaled if scaled.shape[1] == 3 else scaled.expand(-1, 3, -1, -1)
