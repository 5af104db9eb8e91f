"""Images on square canvases: the longer side is resized to that of the canvas, the aspect ratio is kept.

The image is at the top left. What remains is filled with ImageNet's mean color, which is zero after the usual
normalization, as torchvision's detectors pad their batches.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from selftaught.data.decode import decode_whole
from selftaught.errors import UserError, readable

FILL = (124, 116, 104)
"""0.485, 0.456 and 0.406 of 255."""


def content_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height in pixels of an image on a canvas of `side` pixels, at least 1."""
    scale = side / max(width, height)
    return max(1, round(scale * width)), max(1, round(scale * height))


def canvas(path: Path, side: int) -> NDArray[np.uint8]:
    """The image of a file on a canvas, (3, side, side), antialiased.

    Raises:
        UserError: the file cannot be decoded.
    """
    pixels = decode_whole(path)
    if isinstance(pixels, str):
        raise UserError(f"{readable(str(path))} {pixels}: restore the image, or remove it from the list.")
    image = Image.fromarray(pixels.transpose(1, 2, 0))
    size = content_size(image.width, image.height, side)
    out = Image.new("RGB", (side, side), FILL)
    out.paste(image.resize(size, Image.Resampling.BICUBIC), (0, 0))
    return np.ascontiguousarray(np.asarray(out).transpose(2, 0, 1))


def mask_canvas(mask: NDArray[np.uint8], side: int, fill: int) -> NDArray[np.uint8]:
    """A mask of class numbers (H, W) on a canvas, (side, side), by the nearest pixel; `fill` beyond it."""
    size = content_size(mask.shape[1], mask.shape[0], side)
    out = np.full((side, side), fill, np.uint8)
    out[: size[1], : size[0]] = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    return out


def flip_matrices(content: Tensor, flipped: Tensor, side: int) -> Tensor:
    """Geometries that mirror the contents of canvases, not the canvases: (B, 3, 3), see `contracts`.

    Args:
        content: (B, 2), width and height of the contents in pixels.
        flipped: (B,) of 0 and 1.
        side: of the canvas in pixels.
    """
    matrix = torch.eye(3).repeat(len(content), 1, 1)
    matrix[:, 0, 0] = 1 - 2 * flipped
    # Column p of the content comes from width - p, where p = side * (x + 1) / 2.
    matrix[:, 0, 2] = flipped * (2 * content[:, 0] / side - 2)
    return matrix


def flip_boxes(boxes: Tensor, content: Tensor, flipped: Tensor) -> Tensor:
    """Boxes (B, M, 4) in pixels of canvases whose contents are mirrored where `flipped` (B,) is 1."""
    width = content[:, :1]
    mirrored = torch.stack([width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], 2)
    return torch.where(flipped[:, None, None] > 0, mirrored, boxes)
