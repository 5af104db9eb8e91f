"""Image grids without resampling, with transparent gutters and optional captions."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from selftaught.display.mosaic import GUTTER, mosaic, png_bytes
from selftaught.errors import UserError
from selftaught.figures.style import FONT, MUTED

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


def enlarge(images: Tensor, times: int) -> Tensor:
    """Repeat every pixel `times` x `times`: (n, C, H, W) -> (n, C, H * times, W * times)."""
    return images.repeat_interleave(times, -2).repeat_interleave(times, -1)
