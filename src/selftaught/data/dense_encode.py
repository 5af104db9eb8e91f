"""Encode dense targets as PNG: the compact form of `selftaught render`, which `dense.py` decodes.

PNG compresses these pictures well because each pixel is predicted from its neighbors: depth as 16-bit integers that are
the bits of half floats, which keep the order of depths (`Conventions.depth_encoding = "half"`), normals as 8-bit colors
in which 128 is zero, instance ids as 8- or 16-bit integers, contours as single bits.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selftaught.data.conventions import Conventions

RENDERED = Conventions(depth_encoding="half")
"""The conventions of these encodings."""


def encode_depth(meters: NDArray[np.float32]) -> bytes:
    """(H, W) meters, 0 where unknown -> PNG."""
    return _png(Image.fromarray(meters.astype(np.float16).view(np.uint16)))


def encode_normals(vectors: NDArray[np.float32]) -> bytes:
    """(H, W, 3) unit vectors, zero where undefined -> PNG."""
    return _png(Image.fromarray((np.rint(vectors * 127) + 128).astype(np.uint8)))


def encode_instances(ids: NDArray[np.integer]) -> bytes:
    """(H, W) ids from 0 to 65,535 -> PNG."""
    return _png(Image.fromarray(ids.astype(np.uint8 if ids.max() < 256 else np.uint16)))


def encode_contours(contours: NDArray[np.bool_]) -> bytes:
    """(H, W) -> PNG."""
    return _png(Image.fromarray(contours))


def encode_image(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) -> PNG."""
    return _png(Image.fromarray(pixels))


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()
