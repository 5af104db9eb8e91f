"""Detect wrong units and axes of dense targets from a sample of a source."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

import numpy as np
from numpy.typing import NDArray

from selftaught.data.conventions import Conventions
from selftaught.data.dense import sampled_values, to_meters, to_values
from selftaught.data.opening import Unreadable
from selftaught.data.reader import Reader
from selftaught.errors import UserError

SAMPLE = 32
"""Number of images that are examined."""
DEPTHS = (0.05, 5000.0)
"""Plausible range of the median depth, in meters."""
LENGTHS = (0.9, 1.1)
"""Plausible range of the median length of normals."""
HOW = "in targets.json in the folder of the images"


def check_units(reader: Reader) -> tuple[str, ...]:
    """Check a sample of the dense targets of a source.

    Returns:
        Notes for the user, one phrase each.

    Raises:
        UserError: the depth is not in meters, or normals are not unit vectors or point away from the camera.
    """
    arrays: dict[str, list[NDArray[np.generic]]] = {}
    for values in sampled_values(reader, SAMPLE):
        for name, array in values.items():
            arrays.setdefault(name, []).append(array)
    notes = [
        *_check_depth(arrays.get("depth", []), reader.conventions, reader.name),
        *_check_normals(arrays.get("normals", []), reader.conventions, reader.name),
    ]
    return tuple(notes)


def _check_depth(arrays: list[NDArray[np.generic]], conventions: Conventions, where: str) -> Iterable[str]:
    eight_bits = any(array.dtype.itemsize == 1 for array in arrays)
    if eight_bits and conventions.depth_unit is None:
        raise UserError(
            f"the depth of {where} has 8 bits, whose unit is unknown: use 16-bit PNG in millimeters, or state the "
            f'meters per unit as {{"depth_unit": 0.1}} {HOW}.'
        )
    maps = _interpreted(to_meters, arrays, conventions)
    valid = [(values > 0) & np.isfinite(values) for values in maps]
    if not any(mask.any() for mask in valid):
        return
    positive = np.concatenate([values[mask][::7] for values, mask in zip(maps, valid, strict=True)])
    median = float(np.median(positive))
    if not DEPTHS[0] <= median <= DEPTHS[1]:
        raise UserError(
            f"the median depth of {where} is {median:.3g} m, expected {DEPTHS[0]:g} to {DEPTHS[1]:,.0f} m: state the "
            f'meters per unit as {{"depth_unit": 0.001}} {HOW}.'
        )
    unknown = 1 - float(np.mean([mask.mean() for mask in valid]))
    if unknown >= 0.005:
        yield f"depth unknown or infinite in {100 * unknown:.0f} % of the pixels"


def _check_normals(arrays: list[NDArray[np.generic]], conventions: Conventions, where: str) -> Iterable[str]:
    floats = [array for array in arrays if array.dtype.kind == "f" and array.ndim == 3 and array.shape[2] == 3]
    if floats:
        lengths = np.concatenate([np.linalg.norm(array.astype(np.float64), axis=2).ravel()[::7] for array in floats])
        lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
        median = float(np.median(lengths)) if len(lengths) else 1.0
        if not LENGTHS[0] <= median <= LENGTHS[1]:
            raise UserError(
                f"normals of {where} must be unit vectors, got vectors of median length {median:.3g}: store floats in "
                "[-1, 1], or 8-bit PNG in which 128 is zero."
            )
    maps = _interpreted(partial(to_values, "normals"), arrays, conventions)
    if not maps:
        return
    vectors = np.concatenate([values.reshape(3, -1)[:, ::7] for values in maps], axis=1)
    vectors = vectors[:, np.abs(vectors).sum(0) > 0]
    share = float((vectors[2] < 0).mean()) if vectors.size else 0.0
    if share > 0.5:
        other = "away" if conventions.normals_z == "toward" else "toward"
        raise UserError(
            f"{100 * share:.0f} % of the normals of {where} point away from the camera, expected z toward it: state "
            f'{{"normals_z": "{other}"}} {HOW}, or convert normals in world space to camera space.'
        )
    undefined = float(np.mean([np.mean(np.abs(values).sum(0) == 0) for values in maps]))
    if undefined >= 0.005:
        yield f"normals undefined in {100 * undefined:.0f} % of the pixels"


def _interpreted(
    interpret: Callable[[NDArray[np.generic], Conventions], NDArray[np.float32]],
    arrays: list[NDArray[np.generic]],
    conventions: Conventions,
) -> list[NDArray[np.float32]]:
    """Interpreted values; those that cannot be used are left out, and reported when the image is decoded."""
    interpreted = []
    for array in arrays:
        with suppress(Unreadable):
            interpreted.append(interpret(array, conventions))
    return interpreted
