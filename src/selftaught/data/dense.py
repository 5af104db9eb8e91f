"""Decode dense targets of one image: depth, normals, contours and instance ids as squares that match its pixels.

Values are stored compactly, in the types of `STORED`: half floats keep 11 bits of a depth at any distance, 8 bits keep
a normal to within 0.4 degrees. See `augment/dense.py` for the meaning of values.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selftaught.augment.dense import DENSE_TARGETS, contours_of, warp_dense
from selftaught.augment.warp import affine
from selftaught.data.conventions import Conventions
from selftaught.data.decode import failure_reason, image_size
from selftaught.data.dense_files import read_values
from selftaught.data.opening import Unreadable
from selftaught.data.reader import Raw, Reader

Values = NDArray[np.float32]
"""Values of a dense target: (C, H, W), in the conventions of `augment/dense.py`."""
STORED: Mapping[str, tuple[int, type[np.generic]]] = {
    "depth": (1, np.float16),
    "normals": (3, np.int8),
    "contours": (1, np.uint8),
    "instances": (1, np.int16),
}
"""Channels and type of each stored target."""
TITLES = {
    "depth": "a depth map",
    "normals": "a normal map",
    "contours": "a contour map",
    "instances": "an instance map",
}
"""Names of the files of a target in messages."""
SCALE = {"normals": 127, "contours": 255}
"""Stored value of 1."""
MISSING = "is missing"
"""The reason for a target that an image does not have, although others do."""
MAX_INSTANCES = 32_767
FAR = 65_000.0
"""Meters beyond which a depth counts as infinite: the largest half float."""


def dense_names(reader: Reader) -> tuple[str, ...]:
    """The dense targets of a reader: those that are encoded, and contours wherever there are instances."""
    names = {*reader.dense, *(("contours",) if "instances" in reader.dense else ())}
    return tuple(name for name in DENSE_TARGETS if name in names)


def stored_bytes(names: tuple[str, ...], side: int) -> int:
    """Bytes per image of stored targets."""
    return sum(STORED[name][0] * np.dtype(STORED[name][1]).itemsize for name in names) * side**2


def decode_dense(
    image: Raw, raws: Mapping[str, Raw], conventions: Conventions, side: int
) -> dict[str, NDArray[np.generic]] | str:
    """Decode the targets of one image to the square of `decode`: center crop, resized to `side` pixels.

    Args:
        image: the image itself, for its size.
        raws: encoded targets by name.
        conventions: their units and axes.
        side: side of the square in pixels.

    Returns:
        (C, side, side) by name in the types of `STORED`, or the reason for failure. Where there are instances, contours
        are computed from them at the stored size.
    """
    name = ""
    try:
        size = image_size(image)
        squares = {}
        for name, raw in raws.items():
            if isinstance(raw, str) and raw == MISSING:
                return f"has no {TITLES[name].split(maxsplit=1)[1]}"
            values = to_values(name, read_values(raw), conventions)
            if values.shape[1:] != size:
                (rows, columns), (height, width) = values.shape[1:], size
                return f"has {TITLES[name]} of {columns} x {rows} pixels for an image of {width} x {height}"
            squares[name] = _square(name, values, side)
    except Exception as error:  # decoders raise almost any exception on damaged data
        return f"has {TITLES[name]} that {failure_reason(error)}" if name else failure_reason(error)
    if "instances" in squares:
        squares["contours"] = contours_of(squares["instances"]).float()
    return {name: to_stored(name, square) for name, square in squares.items()}


def to_values(name: str, array: NDArray[Any], conventions: Conventions) -> Values:
    """Interpret the values of a file: (H, W) or (H, W, C) -> (C, H, W).

    Raises:
        Unreadable: it has the wrong number of channels, or no valid pixel.
    """
    return {"depth": _depth, "normals": _normals, "contours": _contours, "instances": _instances}[name](
        array, conventions
    )


def to_meters(array: NDArray[Any], conventions: Conventions) -> Values:
    """Depth in meters, valid or not: (H, W) or (H, W, C) -> (H, W).

    Raises:
        Unreadable: it has several channels, or other numbers than its encoding requires.
    """
    plane = _plane(array)
    if conventions.depth_encoding == "linear":
        unit = conventions.depth_unit or (1.0 if plane.dtype.kind == "f" else 1e-3)
        with np.errstate(over="ignore"):
            return (plane.astype(np.float64) * unit).astype(np.float32)
    if plane.dtype.itemsize < 2 or plane.dtype.kind not in "ui":
        raise Unreadable("is not of 16-bit integers, which the encoding `half` requires")
    return plane.astype(np.uint16).view(np.float16).astype(np.float32)


def _depth(array: NDArray[Any], conventions: Conventions) -> Values:
    meters = to_meters(array, conventions)
    valid = (meters > 0) & (meters < FAR)  # false for NaN
    if not valid.any():
        raise Unreadable("is nowhere positive and finite")
    return np.where(valid, meters, 0)[None].astype(np.float32)


def _normals(array: NDArray[Any], conventions: Conventions) -> Values:
    if array.ndim != 3 or array.shape[2] != 3:
        raise Unreadable(f"has the shape {array.shape}, not (H, W, 3)")
    vectors = array.astype(np.float32)
    if array.dtype.kind in "bui":
        half = (np.iinfo(array.dtype).max + 1) / 2  # 128 of 8 bits is zero
        vectors = (vectors - half) / (half - 1) * array.any(2, keepdims=True)  # black is undefined
    length = np.linalg.norm(vectors, axis=2, keepdims=True)
    valid = (length > 0.5) & (length < 1.5)  # false for NaN
    if not valid.any():
        raise Unreadable("is nowhere of unit length")
    unit = np.where(valid, vectors / np.where(valid, length, 1), 0)
    axes = (1, -1 if conventions.normals_y == "down" else 1, -1 if conventions.normals_z == "away" else 1)
    return np.ascontiguousarray((unit * np.array(axes)).transpose(2, 0, 1), dtype=np.float32)


def _contours(array: NDArray[Any], conventions: Conventions) -> Values:
    plane = _plane(array).astype(np.float32)
    if not np.isfinite(plane).all():
        raise Unreadable("is not finite")
    top = np.iinfo(array.dtype).max if array.dtype.kind in "ui" and plane.max() > 1 else 1
    return np.clip(plane / top, 0, 1)[None].astype(np.float32)


def _instances(array: NDArray[Any], conventions: Conventions) -> Values:
    """Ids renumbered from 1 in ascending order; 0 stays. Colors are ids as well, black is 0."""
    if array.ndim == 3 and array.shape[2] == 3 and array.dtype.kind in "ui":
        array = (array.astype(np.int64) * np.array([1 << 32, 1 << 16, 1])).sum(2)
    plane = _plane(array)
    if plane.dtype.kind == "f" and not (np.isfinite(plane) & (plane == np.round(plane))).all():
        raise Unreadable("is not of integers: ids must not be averaged by resizing or antialiasing")
    ids, places = np.unique(plane, return_inverse=True)
    numbers = np.arange(len(ids)) + (0 if 0 in ids else 1)
    if 0 in ids:
        numbers = np.where(ids == 0, 0, np.cumsum(ids != 0))
    if numbers.max() > MAX_INSTANCES:
        raise Unreadable(f"has more than {MAX_INSTANCES:,} ids")
    return numbers[places].reshape(plane.shape)[None].astype(np.float32)


def _plane(array: NDArray[Any]) -> NDArray[Any]:
    """A single channel; three equal ones count as one, as renderers write depth to RGB."""
    if array.ndim == 3 and array.shape[2] == 1:
        return array[..., 0]
    if array.ndim == 3 and (array == array[..., :1]).all():
        return array[..., 0]
    if array.ndim != 2:
        raise Unreadable(f"has the shape {array.shape}, not (H, W)")
    return array


def _square(name: str, values: Values, side: int) -> Tensor:
    """Center crop, resized: (C, H, W) -> (C, side, side)."""
    height, width = values.shape[1:]
    edge = min(height, width)
    tensor = torch.from_numpy(values)
    if height == width == side:
        return tensor
    window = affine(width=edge / width, height=edge / height, count=1)
    return warp_dense(name, tensor[None], window, side)[0]


def to_stored(name: str, values: Tensor) -> NDArray[np.generic]:
    """Values in their stored type: (C, S, S)."""
    scaled = values * SCALE[name] if name in SCALE else values
    rounded = scaled if name == "depth" else scaled.round()
    return rounded.numpy().astype(STORED[name][1])


def from_stored(name: str, stored: Tensor) -> Tensor:
    """Stored values as float32, normals of unit length: (B, C, S, S)."""
    values = stored.float()
    if name == "normals":
        return torch.nn.functional.normalize(values, dim=1)  # zero vectors stay
    return values / SCALE[name] if name in SCALE else values


def sampled_values(reader: Reader, count: int) -> Iterator[dict[str, NDArray[np.generic]]]:
    """The encoded values of some images, by target; those that cannot be read are left out."""
    for raws in reader.stream_dense(reader.sample(count)):
        arrays = {}
        for name, raw in raws.items():
            try:
                arrays[name] = read_values(raw)
            except Exception:  # reported when the image itself is decoded
                continue
        yield arrays
