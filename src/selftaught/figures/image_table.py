"""Images in rows and columns with headings: the figure of attention maps, neighbors, filters and styles."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from selftaught.display.mosaic import GUTTER, mosaic
from selftaught.errors import UserError
from selftaught.figures.grid import DOTS
from selftaught.figures.style import CHARACTER, FONT, MUTED, shown_name

LINE = round(1.6 * FONT / 72 * DOTS)
"""Height of a line of text in pixels."""
MAX_SIDE, MAX_PIXELS = 8000, 2**22
"""Maximum side of a figure in pixels, and their number: the report refuses files that are larger."""


def image_table(
    images: Tensor,
    columns: Sequence[str],
    rows: Sequence[str],
    groups: Sequence[tuple[str, int]] = (),
) -> Figure:
    """Draw images as a table with headings.

    Args:
        images: (R, C, 3, H, W) in [0, 1]; values outside are clipped, NaN is black.
        columns: C headings.
        rows: R headings, on the left; empty for none.
        groups: headings above those of the columns, with the number of columns that each spans; an empty text for
            columns without one.

    Returns:
        A figure with one axes, in which a pixel of an image is a pixel of the saved file.

    Raises:
        UserError: the figure would be too large.
    """
    count, across, _, height, width = images.shape
    assert len(columns) == across
    assert len(rows) in (0, count)
    left = round(DOTS * CHARACTER * max((len(shown_name(row)) for row in rows), default=0)) + (8 if rows else 0)
    top = LINE * (2 if groups else 1)
    tiles = mosaic(images.flatten(0, 1), across)
    total = (left + tiles.shape[1], top + tiles.shape[0])
    if max(total) > MAX_SIDE or total[0] * total[1] > MAX_PIXELS:
        raise UserError(
            f"the picture would have {total[0]:,} x {total[1]:,} pixels, too large: draw fewer images or layers."
        )
    figure = Figure(figsize=(total[0] / DOTS, total[1] / DOTS), dpi=DOTS, facecolor="none")
    box = (left / total[0], 0.0, tiles.shape[1] / total[0], tiles.shape[0] / total[1])
    axes = figure.add_axes(box)
    axes.imshow(tiles, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    text: dict[str, Any] = {"color": MUTED, "fontsize": FONT, "parse_math": False}
    fits = max(4, int(width / DOTS / CHARACTER))
    for number, name in enumerate(columns):
        axes.text(number * (width + GUTTER) + width / 2, -5, shown_name(name, fits), ha="center", va="bottom", **text)
    for number, name in enumerate(rows):
        axes.text(-8, number * (height + GUTTER) + height / 2, shown_name(name), ha="right", va="center", **text)
    start = 0
    for name, span in groups:
        middle = start * (width + GUTTER) + (span * (width + GUTTER) - GUTTER) / 2
        axes.text(middle, -5 - LINE, shown_name(name, fits * span), ha="center", va="bottom", **text)
        start += span
    return figure


def stretched(images: Tensor, side: int) -> Tensor:
    """Bring the height near `side` pixels, (..., C, H, W): magnified by an integer factor, or shrunk, antialiased."""
    height, width = images.shape[-2:]
    if height > 1.5 * side:
        shape = (side, max(1, round(width * side / height)))
        flat = F.interpolate(images.flatten(0, -4), shape, mode="bilinear", antialias=True)
        return flat.reshape(*images.shape[:-2], *shape)
    factor = max(1, round(side / height))
    return images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def padded(images: Sequence[Tensor]) -> Tensor:
    """Center images of different sizes, (3, H, W) each, on white canvases of one size: (n, 3, H, W)."""
    height, width = (max(image.shape[axis] for image in images) for axis in (-2, -1))
    canvas = torch.ones(len(images), 3, height, width)
    for place, image in zip(canvas, images, strict=True):
        top, left = (height - image.shape[-2]) // 2, (width - image.shape[-1]) // 2
        place[:, top : top + image.shape[-2], left : left + image.shape[-1]] = image
    return canvas
