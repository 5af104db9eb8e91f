"""Remove the noise of few light paths per pixel: a cross-bilateral filter of the incident light.

The picture is divided by the albedo, which has no noise, so that textures stay sharp. The quotient is averaged over
neighbors of the same object with a similar normal and similar light.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RADIUS = 2
"""Of the window, in pixels."""
SPREAD = 1.3
"""Standard deviation of the weights over space, in pixels."""
CONTRAST = 0.6
"""Standard deviation of the weights over the logarithm of light: larger differences are edges of shadows."""
SHARPNESS = 16
"""Exponent of the cosine between normals."""


def denoised(
    radiance: Floats, albedo: Floats, depth: NDArray[np.float32], normals: NDArray[np.float32], ids: NDArray[np.int64]
) -> Floats:
    """Filter a picture.

    Args:
        radiance: (H, W, 3) linear.
        albedo: (H, W, 3) reflectance of surfaces.
        depth: (H, W), 0 in the sky, which is not filtered.
        normals: (H, W, 3).
        ids: (H, W) of objects.
    """
    surface = depth > 0
    base = np.maximum(albedo, 0.02)
    light = radiance / base
    bright = light.mean(2)
    limited = _without_outliers(bright)
    light = light * (limited / np.maximum(bright, 1e-9))[..., None]
    level = np.log(_blurred(limited) + 1e-3)
    total, weights = np.zeros_like(light), np.zeros_like(depth, dtype=np.float64)
    for down in range(-RADIUS, RADIUS + 1):
        for across in range(-RADIUS, RADIUS + 1):
            here, there = _overlap(level.shape, down, across)
            cosine = np.clip((normals[here] * normals[there]).sum(2), 0, 1)
            closeness = np.exp(-(down**2 + across**2) / (2 * SPREAD**2))
            similar = np.exp(-((level[here] - level[there]) ** 2) / (2 * CONTRAST**2))
            weight = closeness * similar * cosine**SHARPNESS * ((ids[here] == ids[there]) & surface[there])
            total[here] += weight[..., None] * light[there]
            weights[here] += weight
    filtered = total / np.maximum(weights, 1e-9)[..., None] * base
    return np.where((surface & (weights > 1e-6))[..., None], filtered, radiance)


def _without_outliers(level: Floats) -> Floats:
    """Limit each pixel to 1.5 times the second brightest of its neighbors: single bright pixels are chance hits."""
    padded = np.pad(level, 1, mode="reflect")
    height, width = level.shape
    around = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    return np.minimum(level, 1.5 * np.partition(np.stack(around), -2, axis=0)[-2])


def _blurred(level: Floats) -> Floats:
    """Mean over 3 x 3 pixels, in which all rays of a single pixel missing the light is no longer an edge."""
    padded = np.pad(level, 1, mode="reflect")
    height, width = level.shape
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:])[:height, :width] / 9


def _overlap(shape: tuple[int, ...], down: int, across: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The pixels that have a neighbor at an offset, and these neighbors."""
    here, there = [], []
    for side, offset in zip(shape, (down, across), strict=False):
        here.append(slice(max(-offset, 0), side - max(offset, 0)))
        there.append(slice(max(offset, 0), side - max(-offset, 0)))
    return (here[0], here[1]), (there[0], there[1])
