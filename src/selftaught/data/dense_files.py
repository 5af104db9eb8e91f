"""Read files of dense targets: PNG and TIFF of 8 or 16 bits, NPY and EXR, without any change of their values."""

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selftaught.data.opening import PIXEL_LIMIT, Unreadable, open_image, require_content
from selftaught.data.reader import Raw

NPY = b"\x93NUMPY"
EXR = b"\x76\x2f\x31\x01"
COLORS = ("R", "G", "B")
AXES = ("X", "Y", "Z")
"""Channel names of EXR files: colors, vectors."""


def read_values(raw: Raw) -> NDArray[np.generic]:
    """The values of one file: (H, W) or (H, W, C), in the type in which they are stored.

    Raises:
        Unreadable: it is empty, damaged, too large or in another format.
    """
    if isinstance(raw, str):
        raise Unreadable(raw)
    if isinstance(raw, np.ndarray):
        return raw
    if isinstance(raw, Path):
        require_content(raw)
        with raw.open("rb") as file:
            start = file.read(len(NPY))
    else:
        start = raw[: len(NPY)]
    if start == NPY:
        return _read_npy(raw)
    if start.startswith(EXR):
        return _read_exr(raw)
    with open_image(raw) as image:
        return _pixels(image)


def _pixels(image: Image.Image) -> NDArray[np.generic]:
    """The values of an image as stored; without alpha, and palette images as indices."""
    image.load()
    values = np.asarray(image)
    return values[..., :3] if image.mode == "RGBA" else values[..., 0] if image.mode == "LA" else values


def _read_npy(raw: Path | bytes) -> NDArray[np.generic]:
    try:
        if isinstance(raw, Path):
            values = np.load(raw, mmap_mode="r", allow_pickle=False)
        else:
            values = np.load(io.BytesIO(raw), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise Unreadable("is a damaged .npy file") from error
    if values.ndim not in (2, 3) or values.dtype.kind not in "buif":
        raise Unreadable(
            f"is an array of shape {values.shape} and type {values.dtype}, not (H, W) or (H, W, C) numbers"
        )
    _limit(values.shape[0] * values.shape[1])
    return np.array(values)


def _read_exr(raw: Path | bytes) -> NDArray[np.generic]:
    """The channels R, G, B or X, Y, Z of an EXR file, or its only channel."""
    if find_spec("OpenEXR") is None:
        raise Unreadable("is an EXR file, which needs the package OpenEXR: install selftaught[synthetic]")
    if isinstance(raw, bytes):
        raise Unreadable("is EXR inside of a table, which is not supported: store PNG or NPY")
    import OpenEXR

    try:
        with OpenEXR.File(str(raw), separate_channels=True) as file:
            window = file.header()["dataWindow"]
            _limit(int(np.prod(np.subtract(window[1], window[0]) + 1)))
            channels = {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise Unreadable("is a damaged EXR file") from error
    channels.pop("A", None)
    for names in (COLORS, AXES):  # names may have the prefix of a layer: "ViewLayer.Normal.X"
        keys = [next((key for key in channels if key.split(".")[-1].upper() == name), None) for name in names]
        if None not in keys:
            return np.stack([channels[key] for key in keys if key is not None], -1)
    if len(channels) != 1:
        raise Unreadable(f"has the channels {', '.join(sorted(channels)[:5])}, not R, G, B or X, Y, Z or a single one")
    return next(iter(channels.values()))


def _limit(pixels: int) -> None:
    if pixels > PIXEL_LIMIT:
        raise Unreadable(f"has more than {PIXEL_LIMIT / 1e6:.0f} million pixels")
