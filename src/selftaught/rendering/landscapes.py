"""Random landscapes: hills, trees, rocks, houses and things in a meadow, under a sky with a sun."""

import numpy as np
from numpy.typing import NDArray

from selftaught.rendering.meshes import Mesh, terrain
from selftaught.rendering.placing import Workshop, placed, tumble, turn, varied
from selftaught.rendering.scenes import Camera, Scene, Sun
from selftaught.rendering.shapes import FURNITURE, PLANTS, SOLIDS, house, rock
from selftaught.rendering.textures import foliage, ground, noise, sky, wood

Floats = NDArray[np.float64]
WIDTH = 240.0
"""Side of the terrain in meters."""
CELLS = 56
"""Vertices along a side of the terrain."""


def landscape(rng: np.random.Generator, photos: NDArray[np.uint8] | None = None) -> Scene:
    """A landscape seen from near the ground, along the y axis."""
    shop = Workshop(rng, photos)
    heights = _heights(rng)
    ground_mesh = terrain(heights, WIDTH)
    shop.add([ground_mesh.textured(1 / rng.uniform(3, 10))], [shop.material(ground(rng))])
    origin = np.array([0.0, -WIDTH * 0.4, 0.0])
    view = rng.uniform(45, 70)
    eye = float(np.exp(rng.uniform(np.log(0.8), np.log(7))))
    origin[2] = _height(heights, origin) + eye
    village = rng.uniform() < 0.4
    for _ in range(rng.integers(1, 5) if village else rng.integers(0, 2)):
        spot = _spot(rng, origin, heights, view, 14, 70)
        _add(shop, house(rng), turn(rng.uniform(0, 360)), spot)
    forest = rng.uniform() < 0.5
    for _ in range(rng.integers(8, 22) if forest else rng.integers(1, 8)):
        plant = PLANTS[rng.integers(len(PLANTS))](rng)
        spot = _spot(rng, origin, heights, view, 6, 90)
        linear = turn(rng.uniform(0, 360)) * rng.uniform(0.7, 1.5)
        crown = shop.material(foliage(rng))
        moved = varied(rng, placed(plant, linear, spot, drop=False))
        shop.add(moved, [shop.material(wood(rng)) for _ in moved[:-1]] + [crown])
    for _ in range(rng.integers(0, 6)):
        _add(shop, rock(rng), tumble(rng) * np.exp(rng.uniform(-0.7, 1.2)), _spot(rng, origin, heights, view, 2, 40))
    things = (*SOLIDS, *SOLIDS, *FURNITURE)
    for _ in range(rng.integers(1, 7)):
        spot = _spot(rng, origin, heights, view, 2.0 + eye, 9 + 3 * eye)
        linear = turn(rng.uniform(0, 360)) if rng.uniform() < 0.8 else tumble(rng)
        _add(shop, things[rng.integers(len(things))](rng), linear * np.exp(rng.uniform(-0.6, 0.7)), spot)
    reach = rng.uniform(6, 30)
    aim = origin + np.array([rng.normal(0, 0.1) * reach, reach, 0])
    aim[2] = origin[2] - reach * np.tan(np.deg2rad(rng.uniform(2, 18)))
    return Scene(
        parts=tuple(shop.parts),
        camera=Camera(origin, aim, view, rng.normal(0, 3)),
        exposure=float(np.clip(rng.normal(0.46, 0.06), 0.3, 0.65)),
        sky=sky(rng),
        suns=_sun(rng),
        kind="landscape",
    )


def _heights(rng: np.random.Generator) -> Floats:
    """Hills of random height; the surroundings of the camera are gentle."""
    field = noise(rng, 2.2, CELLS) - 0.5
    fine = noise(rng, 1.4, CELLS) - 0.5
    high = float(np.exp(rng.uniform(np.log(2), np.log(45))))
    distance = np.linspace(-0.1, 1, CELLS)[:, None].clip(0)  # rows run along y, away from the camera
    return field * high * (0.15 + distance**1.5) + fine * rng.uniform(0.2, 2.0) * (0.2 + distance)


def _height(heights: Floats, place: Floats) -> float:
    """Height of the terrain at a place, bilinear."""
    x, y = np.clip((place[:2] / WIDTH + 0.5) * (CELLS - 1), 0, CELLS - 1.001)
    column, row = int(x), int(y)
    across, down = x - column, y - row
    block = heights[row : row + 2, column : column + 2]
    return float(np.array([1 - down, down]) @ block @ np.array([1 - across, across]))


def _spot(rng: np.random.Generator, origin: Floats, heights: Floats, view: float, near: float, far: float) -> Floats:
    """A place on the ground in the field of view, at a log-uniform distance."""
    distance = float(np.exp(rng.uniform(np.log(near), np.log(far))))
    angle = np.deg2rad(rng.uniform(-0.55, 0.55) * view)
    place = origin + distance * np.array([np.sin(angle), np.cos(angle), 0])
    place[2] = _height(heights, place) - 0.03
    return place


def _add(shop: Workshop, shape: list[Mesh], linear: Floats, place: Floats) -> None:
    """Add an object to the scene, on the ground."""
    upright = np.allclose(linear[2, :2], 0)
    moved = placed(shape, linear, place, drop=not upright)
    shop.add(varied(shop.rng, moved), shop.materials(len(moved)))


def _sun(rng: np.random.Generator) -> tuple[Sun, ...]:
    """A sun from any side, low or high; sometimes hidden by clouds."""
    if rng.uniform() < 0.2:
        return ()
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(12, 75))
    direction = -np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    warmth = np.clip(np.rad2deg(elevation) / 50, 0, 1)
    tint = np.array([1.0, 0.75 + 0.2 * warmth, 0.5 + 0.4 * warmth])
    return (Sun(direction, tint * rng.uniform(1.5, 4.5)),)
