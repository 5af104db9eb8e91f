"""Random rooms: furniture, solids on the floor and on tables, pictures on the walls, lamps and windows."""

import numpy as np
from numpy.typing import NDArray

from selftaught.rendering.meshes import Mesh, box, boxes
from selftaught.rendering.placing import Workshop, extent, placed, tumble, turn, varied
from selftaught.rendering.scenes import Camera, Lamp, Scene, Sun
from selftaught.rendering.shapes import FURNITURE, SOLIDS, cuboid
from selftaught.rendering.textures import sky, wood

Floats = NDArray[np.float64]


def room(rng: np.random.Generator, photos: NDArray[np.uint8] | None = None) -> Scene:
    """A room seen from one side. The side behind the camera is open to the sky, which lights the room softly."""
    size = np.array([rng.uniform(2.6, 6.0), rng.uniform(2.6, 6.0), rng.uniform(2.3, 3.4)])
    shop = Workshop(rng, photos)
    close = rng.uniform() < 0.35  # a still life instead of a whole room
    _walls(shop, size)
    focus = np.array([rng.uniform(-0.2, 0.2) * size[0], rng.uniform(0.0, 0.25) * size[1], 0.0])
    circles: list[tuple[float, float, float]] = []
    if close:
        top = _pedestal(shop, focus)
        _scatter(shop, focus, top, 0.45, int(rng.integers(2, 7)), (0.15, 0.42))
    for _ in range(0 if close and rng.uniform() < 0.5 else rng.integers(2, 5)):
        _furnish(shop, size, circles)
    for _ in range(rng.integers(1, 6)):
        _put(shop, size, circles)
    for _ in range(rng.integers(0, 4)):
        _hang(shop, size)
    height = top + rng.uniform(0.15, 0.9) if close else rng.uniform(0.9, size[2] - 0.5)
    distance = rng.uniform(0.9, 1.8) if close else rng.uniform(0.55, 0.95) * size[1]
    angle = np.deg2rad(rng.normal(0, 28))
    origin = focus + np.array([distance * np.sin(angle), -distance * np.cos(angle), height])
    origin[0] = np.clip(origin[0], 0.15 - size[0] / 2, size[0] / 2 - 0.15)
    aim = focus + np.array([*rng.normal(0, 0.08 if close else 0.4, 2), top + 0.1 if close else rng.uniform(0.3, 1.2)])
    camera = Camera(origin, aim, rng.uniform(38, 55) if close else rng.uniform(50, 78), rng.normal(0, 3))
    tint = np.array([1.0, rng.uniform(0.82, 1.0), rng.uniform(0.6, 1.0)])
    return Scene(
        parts=tuple(shop.parts),
        camera=camera,
        exposure=float(np.clip(rng.normal(0.42, 0.09), 0.2, 0.65)),
        sky=sky(rng) * rng.uniform(0.5, 1.5),
        suns=_sunlight(rng),
        lamps=tuple(_lamp(rng, size, tint) for _ in range(rng.integers(0 if rng.uniform() < 0.3 else 1, 4))),
        kind="room",
    )


def _walls(shop: Workshop, size: Floats) -> None:
    """Floor, back wall, side walls and, mostly, a ceiling. The fourth side is open."""
    rng = shop.rng
    (x, y), z = size[:2] / 2, size[2]
    front = -y - 3.0
    t = 0.1
    shop.add(varied(rng, [box((-x - 3, front, -t), (x + 3, y, 0))]), shop.materials(1))
    wall = shop.material()
    scale = float(np.exp(rng.uniform(-0.7, 0.7)))
    sides = [box((-x, y, 0), (x, y + t, z))]
    if rng.uniform() < 0.8:
        sides.append(_side(rng, -x - t, -x, front * rng.uniform(0.2, 0.7), y, z))
    if rng.uniform() < 0.8:
        sides.append(_side(rng, x, x + t, front * rng.uniform(0.2, 0.7), y, z))
    same = rng.uniform() < 0.6
    for mesh in sides:
        shop.add([mesh.textured(scale)], [wall if same else shop.material()])
    if rng.uniform() < 0.6:
        shop.add([box((-x - t, -y * rng.uniform(-0.2, 0.6), z), (x + t, y + t, z + t))], shop.materials(1))


def _side(rng: np.random.Generator, near: float, far: float, front: float, back: float, z: float) -> Mesh:
    """A side wall, sometimes with a window."""
    if rng.uniform() < 0.4:
        return box((near, front, 0), (far, back, z))
    a, b = sorted(rng.uniform(front + 0.3, back - 0.3, 2))
    b = max(b, a + 0.6)
    low, high = rng.uniform(0.5, 1.0), rng.uniform(1.6, z - 0.2)
    return boxes(
        ((near, front, 0), (far, a, z)),
        ((near, b, 0), (far, max(back, b + 0.05), z)),
        ((near, a, 0), (far, b, low)),
        ((near, a, high), (far, b, z)),
    )


def _pedestal(shop: Workshop, place: Floats) -> float:
    """A table for a still life; returns the height of its top."""
    rng = shop.rng
    height = rng.uniform(0.4, 0.8)
    x, y = rng.uniform(0.5, 1.0), rng.uniform(0.4, 0.8)
    top = boxes(((-x, -y, height - 0.05), (x, y, height)), ((-0.3, -0.3, 0), (0.3, 0.3, height - 0.05)))
    shop.add(varied(rng, placed([top], turn(rng.uniform(-30, 30)), place)), shop.materials(1))
    return height


def _scatter(
    shop: Workshop, center: Floats, height: float, radius: float, count: int, sizes: tuple[float, float]
) -> None:
    """Solids around a point, which stand, lie or lean; they may touch and overlap in the picture."""
    rng = shop.rng
    taken: list[tuple[float, float, float]] = []
    for _ in range(count):
        size = rng.uniform(*sizes)
        shape = SOLIDS[rng.integers(len(SOLIDS))](rng)
        linear = (tumble(rng) if rng.uniform() < 0.2 else turn(rng.uniform(0, 360))) @ np.diag(
            size * np.array([1, rng.uniform(0.7, 1.3), rng.uniform(0.7, 1.3)])
        )
        own = extent(placed(shape, linear, np.zeros(3)))[0]
        if spot := _free(rng, taken, center, radius, own):
            taken.append((*spot, own))
            place = np.array([*spot, height])
            shop.add(varied(rng, placed(shape, linear, place)), shop.materials(len(shape)))


def _free(
    rng: np.random.Generator, taken: list[tuple[float, float, float]], center: Floats, radius: float, own: float
) -> tuple[float, float] | None:
    """A place in a disk at which an object of radius `own` overlaps with no other one; None if none is found."""
    for _ in range(12):
        distance, angle = radius * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        x, y = center[0] + distance * np.cos(angle), center[1] + distance * np.sin(angle)
        if all(np.hypot(x - a, y - b) > 0.8 * (own + c) for a, b, c in taken):
            return float(x), float(y)
    return None


def _furnish(shop: Workshop, size: Floats, taken: list[tuple[float, float, float]]) -> None:
    """A piece of furniture at the back or at the sides, sometimes with objects on it."""
    rng = shop.rng
    shape = FURNITURE[rng.integers(len(FURNITURE))](rng)
    radius, height = extent(shape)
    linear = turn(rng.choice([0, 90, 180, 270]) + rng.normal(0, 12))
    spot = _free(rng, taken, np.array([0, size[1] * 0.15]), size[:2].min() * 0.42, radius * 0.8)
    if spot is None:
        return
    x = float(np.clip(spot[0], radius - size[0] / 2, size[0] / 2 - radius)) if radius < size[0] / 2 else spot[0]
    spot = (x, min(spot[1], size[1] / 2 - radius * 0.8))
    taken.append((*spot, radius * 0.8))
    place = np.array([*spot, 0.0])
    wooden = rng.uniform() < 0.4
    materials = [shop.material(wood(rng)) for _ in shape] if wooden else shop.materials(len(shape))
    shop.add(varied(rng, placed(shape, linear, place)), materials)
    if height < 0.85 and rng.uniform() < 0.7:
        _scatter(shop, place, height, radius * 0.5, int(rng.integers(1, 4)), (0.12, 0.35))


def _put(shop: Workshop, size: Floats, taken: list[tuple[float, float, float]]) -> None:
    """One or several solids on the floor."""
    rng = shop.rng
    shape = SOLIDS[rng.integers(len(SOLIDS))](rng)
    linear = (tumble(rng) if rng.uniform() < 0.2 else turn(rng.uniform(0, 360))) * rng.uniform(0.25, 0.95)
    own = extent(placed(shape, linear, np.zeros(3)))[0]
    spot = _free(rng, taken, np.array([0, 0]), size[:2].min() * 0.45, own)
    if spot is None:
        return
    taken.append((*spot, own))
    moved = placed(shape, linear, np.array([*spot, 0.0]))
    shop.add(varied(rng, moved), shop.materials(len(shape)))
    top = max(mesh.vertices[:, 2].max() for mesh in moved)
    if shape and rng.uniform() < 0.15:  # a box as a stand with another solid on it
        base = placed(cuboid(rng), linear, np.array([*spot, top]))
        shop.add(varied(rng, base), shop.materials(len(base)))


def _hang(shop: Workshop, size: Floats) -> None:
    """A picture on the back wall or on a side wall."""
    rng = shop.rng
    wide, high = rng.uniform(0.3, 1.2), rng.uniform(0.3, 0.9)
    frame, depth = 0.03, 0.04
    canvas = Mesh(
        np.array([[-wide / 2, -depth, 0], [wide / 2, -depth, 0], [wide / 2, -depth, high], [-wide / 2, -depth, high]]),
        np.array([[0, 1, 2], [0, 2, 3]]),
        np.array([[0.0, 1], [1, 1], [1, 0], [0, 0]]),
        None,
    )
    border = box((-wide / 2 - frame, 0.01 - depth, -frame), (wide / 2 + frame, 0, high + frame))
    side = rng.integers(3)
    linear = turn([0, 90, -90][side])
    along = rng.uniform(-0.35, 0.35) * size[1 if side else 0]
    place = [
        np.array([along, size[1] / 2, 0]),
        np.array([-size[0] / 2, along, 0]),
        np.array([size[0] / 2, along, 0]),
    ][side] + np.array([0, 0, rng.uniform(0.9, max(1.0, size[2] - high - 0.2))])
    shop.add(placed([canvas, border], linear, place, drop=False), shop.materials(2))


def _lamp(rng: np.random.Generator, size: Floats, tint: Floats) -> Lamp:
    """A point light below the ceiling, at a table's height or behind the camera."""
    place = np.array([*(rng.uniform(-0.45, 0.45, 2) * size[:2]), size[2] * rng.uniform(0.6, 0.93)])
    return Lamp(place, tint * float(np.exp(rng.normal(1.2, 0.7))))


def _sunlight(rng: np.random.Generator) -> tuple[Sun, ...]:
    """Sometimes sunlight that falls in through the open side or a window."""
    if rng.uniform() < 0.55:
        return ()
    side = rng.choice([-1, 1])
    direction = np.array([side * rng.uniform(0.3, 1.2), rng.uniform(0.1, 1.0), -rng.uniform(0.4, 1.2)])
    return (Sun(direction / np.linalg.norm(direction), np.array([1.0, 0.93, 0.82]) * rng.uniform(1, 5)),)
