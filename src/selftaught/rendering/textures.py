"""Procedural textures, periodic in both directions, and colors for them."""

import colorsys
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SIZE = 64
"""Side of procedural textures in pixels."""
BANK = 24
"""Number of noise fields of each kind."""


def color(rng: np.random.Generator, saturation: float = 1.0) -> Floats:
    """A random sRGB color: any hue, more often pale than saturated, of any lightness."""
    hue, sat, value = rng.uniform(), rng.beta(1.3, 2.4) * saturation, 0.15 + 0.8 * rng.beta(1.6, 1.2)
    return np.array(colorsys.hsv_to_rgb(hue, sat, value))


def noise(rng: np.random.Generator, slope: float, size: int = SIZE, stretch: float = 1.0) -> Floats:
    """Periodic noise with spectrum 1 / frequency ** slope, in [0, 1]: (size, size).

    It is a random shift, mirror image or transposition of one of `BANK` fields, because computing one takes longer.

    Args:
        rng: random generator.
        slope: 0 is white, 2 is cloudy; rounded to fifths.
        size: side in pixels.
        stretch: elongation along the rows, as of wood grain.
    """
    field = _field(round(5 * slope), size, stretch, int(rng.integers(BANK)))
    down, across, change = rng.integers(size), rng.integers(size), rng.integers(4 if stretch == 1 else 2)
    shifted = np.roll(field, (down, across), (0, 1))
    return (shifted, shifted[::-1], shifted.T, shifted.T[::-1])[change]


@lru_cache(maxsize=1024)
def _field(fifths: int, size: int, stretch: float, number: int) -> Floats:
    """One field of noise, a pure function of its arguments."""
    rng = np.random.default_rng((fifths, size, int(1000 * stretch), number))
    rows, columns = np.fft.fftfreq(size)[:, None] * size, np.fft.rfftfreq(size) * size
    frequency = np.sqrt((rows / np.sqrt(stretch)) ** 2 + (columns * np.sqrt(stretch)) ** 2)
    amplitude = np.where(frequency > 0, np.maximum(frequency, 1e-9) ** (-fifths / 5), 0)
    phase = rng.uniform(0, 2 * np.pi, amplitude.shape)
    field = np.fft.irfft2(amplitude * np.exp(1j * phase), (size, size))
    low, high = np.percentile(field, (2, 98))
    return np.clip((field - low) / max(high - low, 1e-12), 0, 1)


def _blend(weight: Floats, first: Floats, second: Floats) -> Floats:
    return first + weight[..., None] * (second - first)


def _grid(size: int = SIZE) -> tuple[Floats, Floats]:
    """Coordinates from 0 to 1: rows and columns."""
    ticks = (np.arange(size) + 0.5) / size
    return np.meshgrid(ticks, ticks, indexing="ij")


def _near(rng: np.random.Generator, base: Floats, distance: float) -> Floats:
    """A color that is similar to another one."""
    return np.clip(base * rng.uniform(1 - distance, 1 + distance) + rng.normal(0, distance / 4, 3), 0.02, 1)


def mottled(rng: np.random.Generator) -> Floats:
    """Two similar colors, cloudy: plaster, stone, cloth."""
    base = color(rng)
    return _blend(noise(rng, rng.uniform(0.9, 1.8)), base, _near(rng, base, rng.uniform(0.1, 0.5)))


def plain(rng: np.random.Generator) -> Floats:
    """Nearly one color: paint."""
    base = color(rng)
    return _blend(noise(rng, 1.2), base, _near(rng, base, 0.06))


def wood(rng: np.random.Generator) -> Floats:
    """Grain along the rows."""
    base = np.array([0.55, 0.36, 0.2]) * rng.uniform(0.35, 1.5) + rng.normal(0, 0.04, 3)
    _, across = _grid()
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.integers(2, 6) * across + 0.8 * noise(rng, 2.0, stretch=5.0)))
    weight = 0.6 * rings + 0.4 * noise(rng, 0.8, stretch=12.0)
    return np.clip(_blend(weight, base * 0.6, base), 0.02, 1)


def marble(rng: np.random.Generator) -> Floats:
    """Thin veins."""
    base = color(rng, 0.5)
    veins = np.abs(2 * noise(rng, 1.8) - 1) ** rng.uniform(0.3, 0.7)
    return _blend(veins, np.clip(base * rng.uniform(0.2, 0.6), 0, 1), base)


def stripes(rng: np.random.Generator) -> Floats:
    """Parallel stripes, of two or three colors."""
    rows, columns = _grid()
    phase = (rows if rng.uniform() < 0.5 else columns) * rng.integers(2, 7) + 0.1 * noise(rng, 2.0)
    if rng.uniform() < 0.3:
        phase = phase + rows + columns
    chosen = np.array([color(rng) for _ in range(rng.integers(2, 4))])
    return chosen[np.floor(phase * len(chosen)).astype(int) % len(chosen)]


def checks(rng: np.random.Generator) -> Floats:
    """Checkerboard, or tartan if blended."""
    rows, columns = _grid()
    count = rng.integers(1, 5)
    a, b = np.floor(rows * 2 * count) % 2, np.floor(columns * 2 * count) % 2
    weight = (a + b) % 2 if rng.uniform() < 0.6 else (a + b) / 2
    return _blend(np.clip(weight + 0.1 * (noise(rng, 1.0) - 0.5), 0, 1), color(rng), color(rng))


def bricks(rng: np.random.Generator) -> Floats:
    """Bricks or tiles with joints."""
    rows, columns = _grid()
    high, wide = rng.integers(2, 9), rng.integers(1, 5)
    course = np.floor(rows * high)
    shifted = columns * wide + (0.5 * (course % 2) if rng.uniform() < 0.7 and high % 2 == 0 else 0)
    column = np.floor(shifted) % wide
    shade = rng.uniform(0.75, 1.15, (high, wide))[course.astype(int), column.astype(int)]
    joint = np.minimum(rows * high % 1 * wide / high, shifted % 1) < rng.uniform(0.05, 0.12)
    base = color(rng) if rng.uniform() < 0.6 else np.array([0.6, 0.3, 0.22]) * rng.uniform(0.7, 1.3)
    body = base * shade[..., None] * (0.85 + 0.3 * noise(rng, 0.8)[..., None])
    return np.clip(np.where(joint[..., None], color(rng, 0.3), body), 0.02, 1)


def dots(rng: np.random.Generator) -> Floats:
    """Spots at random places."""
    rows, columns = _grid()
    weight = np.zeros((SIZE, SIZE))
    for _ in range(rng.integers(4, 24)):
        y, x, radius = rng.uniform(), rng.uniform(), rng.uniform(0.03, 0.14)
        down, across = np.abs(rows - y), np.abs(columns - x)
        distance = np.hypot(np.minimum(down, 1 - down), np.minimum(across, 1 - across))
        weight = np.maximum(weight, distance < radius)
    return _blend(weight, color(rng), color(rng))


def speckled(rng: np.random.Generator) -> Floats:
    """Granite, gravel or carpet."""
    base = color(rng, 0.6)
    weight = noise(rng, rng.uniform(0.4, 0.9))
    return np.clip(base * (0.45 + 0.9 * weight[..., None]), 0.02, 1)


KINDS: tuple[Callable[[np.random.Generator], Floats], ...] = (
    mottled, mottled, plain, wood, marble, stripes, checks, bricks, dots, speckled,
)  # fmt: skip


def texture(rng: np.random.Generator, photos: NDArray[np.uint8] | None = None, share: float = 0.5) -> Floats:
    """A random texture: (S, S, 3) sRGB in [0, 1].

    Args:
        rng: random generator.
        photos: (n, 3, S, S) images that are used as textures.
        share: probability of using one of them.
    """
    if photos is not None and rng.uniform() < share:
        return photos[rng.integers(len(photos))].transpose(1, 2, 0) / 255
    return KINDS[rng.integers(len(KINDS))](rng)


def ground(rng: np.random.Generator) -> Floats:
    """Natural ground: grass, earth, sand, rock or snow."""
    bases = [
        (0.28, 0.4, 0.12),
        (0.4, 0.45, 0.2),
        (0.45, 0.34, 0.22),
        (0.7, 0.6, 0.42),
        (0.42, 0.4, 0.38),
        (0.9, 0.92, 0.95),
    ]
    weights = np.array([4, 3, 3, 2, 2, 0.7])
    first, second = (np.array(bases[index]) for index in rng.choice(len(bases), 2, p=weights / weights.sum()))
    mixed = _blend(noise(rng, 1.5, 128) ** 2, first, second * 0.6 + first * 0.4)
    return np.clip(mixed * (0.6 + 0.7 * noise(rng, 0.5, 128)[..., None]), 0.02, 1)


def foliage(rng: np.random.Generator) -> Floats:
    """Leaves: green, sometimes autumnal."""
    hue = rng.normal(0.27, 0.04) if rng.uniform() < 0.8 else rng.uniform(0.02, 0.15)
    base = np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.4, 0.8), rng.uniform(0.25, 0.6)))
    return np.clip(base * (0.3 + 1.2 * noise(rng, 0.35)[..., None]), 0.02, 1)


def sky(rng: np.random.Generator, height: int = 32, width: int = 64) -> Floats:
    """A sky as an environment map, z up: (height, width, 3) linear radiance with a horizon glow and clouds."""
    elevation = np.linspace(1, -1, height)[:, None, None]
    zenith = np.array([0.16, 0.36, 0.9]) * rng.uniform(0.4, 1.1) + rng.uniform(0, 0.08)
    horizon = np.array([0.62, 0.78, 1.0]) * rng.uniform(0.5, 1.1)
    if rng.uniform() < 0.25:  # dusk
        horizon = np.array([1.3, 0.8, 0.5]) * rng.uniform(0.6, 1.2)
    blend = np.clip(elevation, 0, 1) ** rng.uniform(0.2, 0.6)
    clear = horizon + blend * (zenith - horizon)
    field = np.concatenate([noise(rng, 1.6)[:height]] * (width // SIZE), 1)
    cover = np.clip((field - rng.uniform(0.1, 0.9)) * rng.uniform(1.5, 5), 0, 1)[..., None]
    white = np.array([1.0, 1.0, 1.0]) * rng.uniform(0.5, 1.4)
    return np.clip(clear + cover * (white - clear), 0.01, None) * np.where(elevation < -0.02, 0.4, 1)
