"""Images side by side in one array or PNG; apart from the figures, so that training does not import matplotlib."""

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from selftaught.errors import UserError

GUTTER = 2
"""Transparent pixels between images."""


def png_bytes(images: Tensor, columns: int | None = None) -> bytes:
    """The images as one PNG without resampling, with two transparent pixels between them.

    Args:
        images: (n, 3, H, W) in [0, 1]; values outside are clipped, NaN is black.
        columns: images per row; by default 8 square images, fewer if they are wider.
    """
    if columns is None:
        columns = max(1, round(8 * images.shape[-2] / images.shape[-1])) if images.ndim == 4 else 8
    buffer = io.BytesIO()
    Image.fromarray(mosaic(images, columns)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def mosaic(images: Tensor, columns: int, below: int = 0) -> NDArray[np.uint8]:
    """Arrange images in a grid: (n, 3, H, W) -> (height, width, 4) uint8 with transparent gutters.

    Args:
        images: (n, 3, H, W) in [0, 1].
        columns: images per row.
        below: height of the transparent space below every row; 0 for gutters between rows only.
    """
    if images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
        raise UserError(f"a grid needs images of shape (n, 3, H, W), n at least 1, but got {tuple(images.shape)}.")
    count, _, height, width = images.shape
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    row_height = height + (below or GUTTER)
    tiles = np.zeros(
        (rows * row_height - (0 if below else GUTTER), columns * (width + GUTTER) - GUTTER, 4), dtype=np.uint8
    )
    values = images.detach().float().cpu().nan_to_num(0.0, 1.0, 0.0).clamp(0, 1).mul(255).round()
    pixels = values.to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for number, image in enumerate(pixels):
        row, column = divmod(number, columns)
        top, left = row * row_height, column * (width + GUTTER)
        tiles[top : top + height, left : left + width, :3] = image
        tiles[top : top + height, left : left + width, 3] = 255
    return tiles
