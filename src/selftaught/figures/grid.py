"""Many small images as one: pixel for pixel, with clear gutters, and captions where wanted."""

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
"""Dots per inch of a figure made here: saved at this resolution, a pixel of the grid is a pixel of the file."""


def grid(images: Tensor, columns: int = 8, captions: Sequence[str] | None = None, *, side: int = 96) -> Figure:
    """A figure of the images, left to right and top to bottom.

    Args:
        images: (n, 3, H, W) in [0, 1]; values outside are clipped, NaN is black.
        columns: images in a row.
        captions: a short text under each image, or None.
        side: pixels that the height of an image should come near to: smaller ones are magnified by a whole number.

    Returns:
        A figure with one axes that fills it.

    Raises:
        UserError: if the images are no such tensor, or captions and images differ in number.
    """
    if captions is not None and len(captions) != len(images):
        raise UserError(
            f"a grid needs a caption for each image, but got {len(captions)} for {len(images)}: give as many, or none."
        )
    magnified = enlarge(images, max(1, round(side / images.shape[-2]))) if images.ndim == 4 else images
    room = 0 if captions is None else round(2.2 * FONT / 72 * DOTS)
    tiles = mosaic(magnified, columns, below=room)
    tall, wide = tiles.shape[:2]
    figure = Figure(figsize=(wide / DOTS, tall / DOTS), dpi=DOTS, facecolor="none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(tiles, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    height, width = magnified.shape[-2:]
    for number, caption in enumerate(captions or ()):
        row, place = divmod(number, columns)
        across, down = place * (width + GUTTER) + width / 2, row * (height + room) + height + 3
        axes.text(across, down, caption, color=MUTED, fontsize=FONT, ha="center", va="top", parse_math=False)
    return figure


def save_png(images: Tensor, path: Path, columns: int | None = None) -> None:
    """Write the images as one PNG, pixel for pixel, with two transparent pixels between them.

    Args:
        images: (n, 3, H, W) in [0, 1]; values outside are clipped, NaN is black.
        path: where to; its folder is made.
        columns: images in a row; None means eight squares, and about as wide a row of wider images.
    """
    content = png_bytes(images, columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def png_bytes(images: Tensor, columns: int | None = None) -> bytes:
    """The images as one PNG; arguments as for `save_png`."""
    if columns is None:
        columns = max(1, round(8 * images.shape[-2] / images.shape[-1])) if images.ndim == 4 else 8
    written = io.BytesIO()
    Image.fromarray(mosaic(images, columns)).save(written, format="PNG", optimize=True)
    return written.getvalue()


def mosaic(images: Tensor, columns: int, below: int = 0) -> np.ndarray:
    """Lay (n, 3, H, W) images out as one (height, width, 4) uint8 array; gutters are transparent.

    Args:
        images: (n, 3, H, W) in [0, 1].
        columns: images in a row.
        below: transparent pixels under every row; 0 means gutters between rows only.
    """
    if images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
        raise UserError(f"a grid needs images of shape (n, 3, H, W), n at least 1, but got {tuple(images.shape)}.")
    count, _, height, width = images.shape
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    down = height + (below or GUTTER)
    tiles = np.zeros((rows * down - (0 if below else GUTTER), columns * (width + GUTTER) - GUTTER, 4), dtype=np.uint8)
    values = images.detach().float().cpu().nan_to_num(0.0, 1.0, 0.0).clamp(0, 1).mul(255).round()
    pixels = values.to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for number, image in enumerate(pixels):
        row, place = divmod(number, columns)
        top, left = row * down, place * (width + GUTTER)
        tiles[top : top + height, left : left + width, :3] = image
        tiles[top : top + height, left : left + width, 3] = 255
    return tiles


def enlarge(images: Tensor, times: int) -> Tensor:
    """Every pixel becomes `times` x `times` pixels: (n, C, H, W) -> (n, C, H * times, W * times)."""
    return images.repeat_interleave(times, -2).repeat_interleave(times, -1)
