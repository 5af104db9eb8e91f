"""Image grids without resampling, with transparent gutters and optional captions."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from selftaught.errors import UserError
from selftaught.figures.style import FONT, MUTED

GUTTER = 2
"""Transparent pixels between images."""
DOTS = 100
"""Resolution of the figure in dots per inch, at which one pixel of the grid is one pixel of the saved file."""


def grid(images: Tensor, columns: int = 8, captions: Sequence[str] | None = None, *, side: int = 96) -> Figure:
    """Draw images in a grid, from left to right and top to bottom.

    Args:
        images: (n, 3, H, W) in [0, 1]; values outside are clipped, NaN is black.
        columns: images per row.
        captions: a short text for each image, shown below it, or None.
        side: approximate height of an image in pixels; smaller images are magnified by an integer factor.

    Returns:
        A figure with one axes that fills it.

    Raises:
        UserError: the images have another shape, or the number of captions differs from the number of images.
    """
    if captions is not None and len(captions) != len(images):
        raise UserError(f"a grid needs one caption per image, but got {len(captions)} for {len(images)}.")
    magnified = enlarge(images, max(1, round(side / images.shape[-2]))) if images.ndim == 4 else images
    caption_height = 0 if captions is None else round(2.2 * FONT / 72 * DOTS)
    tiles = mosaic(magnified, columns, below=caption_height)
    height, width = tiles.shape[:2]
    figure = Figure(figsize=(width / DOTS, height / DOTS), dpi=DOTS, facecolor="none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(tiles, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    height, width = magnified.shape[-2:]
    for number, caption in enumerate(captions or ()):
        row, column = divmod(number, columns)
        x, y = column * (width + GUTTER) + width / 2, row * (height + caption_height) + height + 3
        axes.text(x, y, caption, color=MUTED, fontsize=FONT, ha="center", va="top", parse_math=False)
    return figure


def save_png(images: Tensor, path: Path, columns: int | None = None) -> None:
    """Save images as one PNG without resampling, with two transparent pixels between them.

    Args:
        images: (n, 3, H, W) in [0, 1]; values outside are clipped, NaN is black.
        path: the file; its folder is created.
        columns: images per row; by default 8 square images, fewer if they are wider.
    """
    content = png_bytes(images, columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def png_bytes(images: Tensor, columns: int | None = None) -> bytes:
    """The images as one PNG; arguments as for `save_png`."""
    if columns is None:
        columns = max(1, round(8 * images.shape[-2] / images.shape[-1])) if images.ndim == 4 else 8
    buffer = io.BytesIO()
    Image.fromarray(mosaic(images, columns)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def mosaic(images: Tensor, columns: int, below: int = 0) -> np.ndarray:
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


def enlarge(images: Tensor, times: int) -> Tensor:
    """Repeat every pixel `times` x `times`: (n, C, H, W) -> (n, C, H * times, W * times)."""
    return images.repeat_interleave(times, -2).repeat_interleave(times, -1)
