"""Random objects: solids, concave blocks, vessels, furniture, trees, rocks and houses.

A shape is a function of a random generator that returns the parts of one object, which stands on z = 0 around the
origin and is about one meter in size; furniture, trees and houses have their natural size.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from selftaught.rendering.meshes import Mesh, blob, boxes, joined, prism, revolved, torus

Extent = tuple[Sequence[float], Sequence[float]]
Shape = Callable[[np.random.Generator], list[Mesh]]
Floats = NDArray[np.float64]


def _polygon(count: int, radius: float = 0.5, inner: float = 1.0) -> Floats:
    """A regular polygon, or a star if `inner` (the scale of every other corner) is below 1."""
    angles = np.arange(count) * 2 * np.pi / count
    radii = np.where(np.arange(count) % 2 == 0, radius, radius * inner)
    return np.stack((radii * np.cos(angles), radii * np.sin(angles)), 1)


def cuboid(rng: np.random.Generator) -> list[Mesh]:
    """A box of random proportions."""
    x, y, z = rng.uniform(0.25, 1.0, 3)
    return [boxes(((-x / 2, -y / 2, 0), (x / 2, y / 2, z)))]


def ball(rng: np.random.Generator) -> list[Mesh]:
    """A sphere or an ellipsoid."""
    turns = np.linspace(-np.pi / 2, np.pi / 2, 15)
    radius, height = 0.5, 0.5 * (1 if rng.uniform() < 0.6 else rng.uniform(0.5, 1.6))
    return [revolved(np.stack((radius * np.cos(turns), height + height * np.sin(turns)), 1))]


def cylinder(rng: np.random.Generator) -> list[Mesh]:
    """A cylinder, a truncated cone or a cone."""
    bottom, height = rng.uniform(0.2, 0.5), rng.uniform(0.2, 1.2)
    top = bottom * rng.choice([1.0, rng.uniform(0.3, 0.9), 0.0])
    profile = [(0, 0), (bottom, 0), (bottom, 0), (top, height)]
    return [revolved(np.array([*profile, (top, height), (0, height)] if top else profile))]


def pyramid(rng: np.random.Generator) -> list[Mesh]:
    """A prism, frustum or pyramid of three to seven sides."""
    return [
        prism(_polygon(int(rng.integers(3, 8))), rng.uniform(0.3, 1.2), rng.choice([0.0, 1.0, rng.uniform(0.3, 1)]))
    ]


def star(rng: np.random.Generator) -> list[Mesh]:
    """A star-shaped prism."""
    return [prism(_polygon(2 * int(rng.integers(4, 8)), inner=rng.uniform(0.4, 0.7)), rng.uniform(0.15, 0.9))]


def ring(rng: np.random.Generator) -> list[Mesh]:
    """A torus, lying or standing."""
    tube = rng.uniform(0.07, 0.2)
    mesh = torus(0.5 - tube, tube)
    if rng.uniform() < 0.5:
        mesh = mesh.transformed(np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), np.array([0, tube, 0.5]))
    return [mesh]


def vessel(rng: np.random.Generator) -> list[Mesh]:
    """A bowl, cup or vase: a hollow surface of revolution."""
    height = rng.choice([rng.uniform(0.2, 0.4), rng.uniform(0.5, 1.1)])
    steps = np.linspace(0, 1, 9)
    foot, rim = rng.uniform(0.15, 0.35), rng.uniform(0.2, 0.5)
    belly = rng.uniform(-0.1, 0.25)
    radius = foot + (rim - foot) * steps + belly * np.sin(np.pi * steps)
    outside = np.stack((radius, height * steps), 1)
    wall = rng.uniform(0.02, 0.05)
    inside = np.stack((np.maximum(radius - wall, 0.02), wall + (height - wall) * steps), 1)[::-1]
    profile = np.concatenate(([(0, 0), (foot, 0)], outside, inside, [(0, wall)]))
    return [revolved(profile)]


def pipe(rng: np.random.Generator) -> list[Mesh]:
    """A hollow cylinder."""
    outer, height = rng.uniform(0.25, 0.5), rng.uniform(0.15, 0.9)
    inner = outer * rng.uniform(0.6, 0.9)
    corners = [(outer, 0), (outer, height), (inner, height), (inner, 0), (outer, 0)]
    return [revolved(np.array([point for a, b in pairwise(corners) for point in (a, b)]))]


def lamp(rng: np.random.Generator) -> list[Mesh]:
    """A turned stand with a shade."""
    height = rng.uniform(0.5, 1.6)
    stand = [(0, 0), (0.18, 0), (0.18, 0.04), (0.03, 0.05), (0.02, height)]
    wide, narrow = rng.uniform(0.2, 0.3), rng.uniform(0.08, 0.2)
    shade = [(wide, height - 0.1), (narrow, height + 0.2), (narrow - 0.01, height + 0.2), (wide - 0.01, height - 0.1)]
    return [revolved(np.array(stand), 12), revolved(np.array(shade))]


def block(rng: np.random.Generator) -> list[Mesh]:
    """A concave block: an L, a U or arch, a T, a cross, or stairs."""
    w, d, h, t = rng.uniform(0.6, 1.0), rng.uniform(0.3, 0.7), rng.uniform(0.5, 1.0), rng.uniform(0.15, 0.3)
    kind = rng.integers(5)
    parts: list[Extent]
    if kind == 0:
        parts = [((0, 0, 0), (w, d, t)), ((0, 0, t), (t, d, h))]
    elif kind == 1:
        parts = [((0, 0, 0), (t, d, h)), ((w - t, 0, 0), (w, d, h)), ((t, 0, h - t), (w - t, d, h))]
    elif kind == 2:
        parts = [((w / 2 - t / 2, 0, 0), (w / 2 + t / 2, d, h)), ((0, 0, h), (w, d, h + t))]
    elif kind == 3:
        parts = [((0, w / 2 - t / 2, 0), (w, w / 2 + t / 2, t)), ((w / 2 - t / 2, 0, 0), (w / 2 + t / 2, w, t + 0.01))]
    else:
        count = int(rng.integers(3, 6))
        parts = [((w * k / count, 0, 0), (w * (k + 1) / count, d, h * (k + 1) / count)) for k in range(count)]
    mesh = boxes(*parts)
    middle = mesh.vertices[:, :2].mean(0)
    return [mesh.transformed(np.eye(3), np.array([-middle[0], -middle[1], 0]))]


def rock(rng: np.random.Generator) -> list[Mesh]:
    """A rough lump."""
    mesh = blob(rng, rng.uniform(0.2, 0.5), smooth=rng.uniform() < 0.4)
    scale = np.diag([1, rng.uniform(0.6, 1), rng.uniform(0.4, 1)])
    return [mesh.transformed(scale, np.array([0, 0, 0.35 * scale[2, 2]]))]


def table(rng: np.random.Generator) -> list[Mesh]:
    """A table or a stool, of natural size."""
    height = rng.uniform(0.4, 0.8)
    x, y = rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.6)
    leg, top = rng.uniform(0.03, 0.07), rng.uniform(0.03, 0.06)
    corners = [(sx * (x - leg), sy * (y - leg)) for sx in (-1, 1) for sy in (-1, 1)]
    legs = [((a - leg, b - leg, 0), (a + leg, b + leg, height - top)) for a, b in corners]
    return [boxes(((-x, -y, height - top), (x, y, height)), *legs)]


def chair(rng: np.random.Generator) -> list[Mesh]:
    """A chair with a back."""
    s, seat, back, leg = 0.22, rng.uniform(0.4, 0.5), rng.uniform(0.8, 1.1), 0.025
    corners = [(sx * (s - leg), sy * (s - leg)) for sx in (-1, 1) for sy in (-1, 1)]
    legs = [((a - leg, b - leg, 0), (a + leg, b + leg, seat)) for a, b in corners]
    rest = ((-s, s - 0.05, seat + rng.uniform(0.04, 0.25)), (s, s, back))
    posts = [((a - leg, s - 0.05, seat), (a + leg, s, back)) for a in (leg - s, s - leg)]
    return [boxes(((-s, -s, seat), (s, s, seat + 0.04)), rest, *legs, *posts)]


def shelf(rng: np.random.Generator) -> list[Mesh]:
    """An open shelf."""
    w, d, h, t, count = rng.uniform(0.4, 1.2), 0.32, rng.uniform(0.8, 2.0), 0.03, int(rng.integers(2, 5))
    boards = [((t - w / 2, 0, k * (h - t) / count), (w / 2 - t, d, k * (h - t) / count + t)) for k in range(count + 1)]
    sides = [((-w / 2, 0, 0), (t - w / 2, d, h)), ((w / 2 - t, 0, 0), (w / 2, d, h))]
    back = [((t - w / 2, d - 0.01, 0), (w / 2 - t, d, h))] if rng.uniform() < 0.6 else []
    return [boxes(*boards, *sides, *back)]


def sofa(rng: np.random.Generator) -> list[Mesh]:
    """A sofa or armchair."""
    w, seat, arm, back = rng.uniform(0.4, 1.0), rng.uniform(0.35, 0.45), rng.uniform(0.55, 0.65), rng.uniform(0.75, 1.0)
    base = ((-w, -0.4, 0.08), (w, 0.4, seat))
    rest = ((-w, 0.25, seat), (w, 0.45, back))
    arms = [((-w - 0.15, -0.4, 0), (-w, 0.45, arm)), ((w, -0.4, 0), (w + 0.15, 0.45, arm))]
    return [boxes(base, rest, *arms)]


def conifer(rng: np.random.Generator) -> list[Mesh]:
    """A trunk and a stack of cones."""
    height, radius = rng.uniform(3, 9), rng.uniform(0.8, 1.8)
    trunk = revolved(np.array([(0.14, 0), (0.1, height * 0.5)]), 8)
    count = int(rng.integers(2, 5))
    tiers = []
    for k in range(count):
        low, wide = height * (0.15 + 0.7 * k / count), radius * (1 - 0.75 * k / count)
        tiers.append(
            revolved(np.array([(0, low), (wide, low), (wide, low), (0, min(low + height * 0.45, height))]), 14)
        )
    return [trunk, joined(tiers)]


def broadleaf(rng: np.random.Generator) -> list[Mesh]:
    """A trunk and a crown of blobs."""
    height, radius = rng.uniform(2.5, 6), rng.uniform(1.0, 2.2)
    trunk = revolved(np.array([(0.2, 0), (0.12, height)]), 8)
    crowns = []
    for _ in range(rng.integers(1, 4)):
        size = radius * rng.uniform(1.0, 1.8)
        place = np.array([*rng.normal(0, radius * 0.3, 2), height + rng.uniform(-0.2, 0.5) * radius])
        crowns.append(blob(rng, 0.35).transformed(np.diag([size, size, size * rng.uniform(0.7, 1.1)]), place))
    return [trunk, joined(crowns)]


def bush(rng: np.random.Generator) -> list[Mesh]:
    """A low crown."""
    size = rng.uniform(0.6, 1.6)
    return [blob(rng, 0.4).transformed(np.diag([size, size, size * 0.8]), np.array([0, 0, size * 0.25]))]


def house(rng: np.random.Generator) -> list[Mesh]:
    """Walls, a roof with gables, and windows."""
    x, y, wall, roof = rng.uniform(2, 5), rng.uniform(2, 3.5), rng.uniform(2.4, 5.5), rng.uniform(0.8, 2.5)
    over = 0.3
    gable = prism(np.array([(y + over, 0), (0, roof), (-y - over, 0)]) - [0, roof / 3], 2 * x + 2 * over)
    upright = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    gable = gable.transformed(upright, np.array([-x - over, 0, wall + roof / 3]))
    panes = []
    for side in (-1, 1):
        for k in np.arange(-x + 0.9, x - 0.8, 1.6):
            for z in np.arange(0.9, wall - 1.3, 2.4):
                low, high = sorted((side * y, side * (y + 0.05)))
                panes.append(((k - 0.4, low, z), (k + 0.4, high, z + 1.1)))
    parts = [boxes(((-x, -y, -1.0), (x, y, wall))), gable]
    return [*parts, boxes(*panes)] if panes else parts


SOLIDS: tuple[Shape, ...] = (cuboid, ball, cylinder, pyramid, star, ring, vessel, vessel, pipe, block, block, rock)
"""Shapes of any size."""
FURNITURE: tuple[Shape, ...] = (table, table, chair, chair, shelf, sofa, lamp)
PLANTS: tuple[Shape, ...] = (conifer, broadleaf, broadleaf, bush)
