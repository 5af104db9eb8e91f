"""Triangle meshes made by formulas: surfaces of revolution, tori, prisms, boxes and displaced spheres.

Lengths are in meters, z is up. All surfaces are closed or seen from outside only, with normals pointing outward.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh with texture coordinates."""

    vertices: Floats
    """(V, 3) meters."""
    faces: NDArray[np.int64]
    """(F, 3) indices of vertices, counter-clockwise from outside."""
    uv: Floats
    """(V, 2) texture coordinates; one unit is one repetition of the texture."""
    normals: Floats | None
    """(V, 3) unit vectors for smooth shading; None for flat faces."""

    def transformed(self, linear: Floats, shift: Floats) -> "Mesh":
        """The mesh after x -> linear @ x + shift; `linear` (3, 3) must not mirror."""
        normals = self.normals
        if normals is not None:
            normals = _unit(normals @ np.linalg.inv(linear))
        return Mesh(self.vertices @ linear.T + shift, self.faces, self.uv, normals)

    def textured(self, repetitions: float) -> "Mesh":
        """The mesh with another scale of the texture."""
        return Mesh(self.vertices, self.faces, self.uv * repetitions, self.normals)


def joined(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh of several, all of them flat or all of them smooth."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    normals = [mesh.normals for mesh in meshes if mesh.normals is not None]
    assert len(normals) in (0, len(meshes)), "flat and smooth meshes cannot be joined"
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]),
        np.concatenate([mesh.uv for mesh in meshes]),
        np.concatenate(normals) if normals else None,
    )


def flat(vertices: Floats, faces: NDArray[np.int64]) -> Mesh:
    """A mesh with flat faces: every triangle has its own vertices, and the texture of its dominant plane."""
    corners = vertices[faces]
    direction = np.abs(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    axes = np.array([[1, 2], [0, 2], [0, 1]])[direction.argmax(1)]
    uv = np.take_along_axis(corners, np.repeat(axes[:, None], 3, 1), 2)
    return Mesh(corners.reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3), uv.reshape(-1, 2), None)


def box(low: Sequence[float], high: Sequence[float]) -> Mesh:
    """An axis-aligned box from one corner to the opposite one."""
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return flat(corners, np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]))


def boxes(*extents: tuple[Sequence[float], Sequence[float]]) -> Mesh:
    """Several boxes as one mesh, for blocks with concave corners and for furniture."""
    return joined([box(low, high) for low, high in extents])


def prism(outline: Floats, height: float, top: float = 1.0) -> Mesh:
    """A prism from z = 0 to `height`; its outline must be visible as a whole from the origin.

    Args:
        outline: (n, 2), counter-clockwise.
        height: height in meters.
        top: scale of the upper outline; 0 gives a pyramid.
    """
    count = len(outline)
    lower = np.column_stack((outline, np.zeros(count)))
    upper = np.column_stack((outline * top, np.full(count, height)))
    centers: Floats = np.array([[0.0, 0, 0], [0, 0, height]])
    vertices: Floats = np.concatenate((lower, upper, centers))
    here = np.arange(count)
    after = (here + 1) % count
    faces = [(here, after, count + after), (here, count + after, count + here)]
    faces += [(np.full(count, 2 * count), after, here), (np.full(count, 2 * count + 1), count + here, count + after)]
    return flat(vertices, np.concatenate([np.stack(face, 1) for face in faces]))


def revolved(profile: Floats, segments: int = 24) -> Mesh:
    """A smooth surface of revolution about the z axis.

    Args:
        profile: (n, 2) radius and height, with the outside on the right when followed; a point given twice is a sharp
            edge.
        segments: number of steps around the axis.
    """
    angles = np.linspace(0, 2 * np.pi, segments + 1)
    radius, height = profile[:, 0][:, None], profile[:, 1][:, None]
    grid = np.stack((radius * np.cos(angles), radius * np.sin(angles), height + 0 * angles), -1)
    length = np.concatenate(([0], np.linalg.norm(np.diff(profile, axis=0), axis=1).cumsum()))
    girth = 2 * np.pi * max(profile[:, 0].max(), 1e-6)
    return _surface(grid, np.round(max(girth, 1)), length, wrap=False)


def torus(radius: float, tube: float, segments: int = 28, sides: int = 14) -> Mesh:
    """A torus about the z axis, resting on z = 0."""
    angles = np.linspace(0, 2 * np.pi, sides + 1)
    profile = np.stack((radius + tube * np.cos(angles), tube + tube * np.sin(angles)), 1)
    turns = np.linspace(0, 2 * np.pi, segments + 1)
    grid = np.stack(
        (
            profile[:, :1] * np.cos(turns),
            profile[:, :1] * np.sin(turns),
            profile[:, 1:] + 0 * turns,
        ),
        -1,
    )
    return _surface(grid, np.round(max(2 * np.pi * radius, 1)), angles * tube, wrap=True)


def blob(rng: np.random.Generator, roughness: float, smooth: bool = True, waves: int = 6) -> Mesh:
    """A sphere of radius 0.5 around the origin, displaced by random waves.

    Args:
        rng: random generator.
        roughness: largest displacement as a fraction of the radius.
        smooth: whether it is shaded smoothly; rocks are not.
        waves: number of waves.
    """
    latitude, longitude = np.linspace(-np.pi / 2, np.pi / 2, 11), np.linspace(0, 2 * np.pi, 17)
    ring = np.cos(latitude)[:, None]
    grid = np.stack((ring * np.cos(longitude), ring * np.sin(longitude), np.sin(latitude)[:, None] + 0 * longitude), -1)
    grid[[0, -1], :, :2] = 0
    frequency = rng.normal(size=(waves, 3)) * 2.5
    phase = rng.uniform(0, 2 * np.pi, waves)
    grid[:, -1] = grid[:, 0]
    displaced = np.sin(grid @ frequency.T + phase).mean(-1) * np.sqrt(waves) / 1.4
    grid = grid * (0.5 * (1 + roughness * np.clip(displaced, -1, 1)))[..., None]
    mesh = _surface(grid, 3.0, np.linspace(0, 1.5, 11), wrap=False)
    return mesh if smooth else flat(mesh.vertices, mesh.faces)


def terrain(heights: Floats, width: float) -> Mesh:
    """A smooth height field over a square that is centered on the origin.

    Args:
        heights: (n, n) meters; rows along y, columns along x.
        width: side of the square in meters.
    """
    ticks = np.linspace(-width / 2, width / 2, len(heights))
    x, y = np.meshgrid(ticks, ticks)
    vertices = np.stack((x, y, heights), -1).reshape(-1, 3)
    faces = _grid_faces(*heights.shape)
    return Mesh(vertices, faces, vertices[:, :2].copy(), _vertex_normals(vertices, faces))


def _surface(grid: Floats, around: float, along: Floats, wrap: bool) -> Mesh:
    """A smooth mesh from a grid of points whose last column repeats the first; with `wrap` the last row does too."""
    rows, columns = grid.shape[:2]
    vertices, faces = grid.reshape(-1, 3), _grid_faces(rows, columns)
    normals = _vertex_normals(vertices, faces, unit=False).reshape(rows, columns, 3)
    normals[:, 0] = normals[:, -1] = normals[:, 0] + normals[:, -1]
    if wrap:
        normals[0] = normals[-1] = normals[0] + normals[-1]
    for end in (0, rows - 1):
        if np.allclose(grid[end, :, :2], 0):  # a pole
            normals[end] = normals[end].sum(0)
    u, v = np.meshgrid(np.linspace(0, around, columns), along)
    return Mesh(vertices, faces, np.stack((u, v), -1).reshape(-1, 2), _unit(normals.reshape(-1, 3)))


def _grid_faces(rows: int, columns: int) -> NDArray[np.int64]:
    """Two triangles per cell of a grid of vertices."""
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    return np.concatenate((np.stack((a, b, c), -1).reshape(-1, 3), np.stack((a, c, d), -1).reshape(-1, 3)))


def _vertex_normals(vertices: Floats, faces: NDArray[np.int64], unit: bool = True) -> Floats:
    """Normals of the faces at each vertex, weighted by area."""
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = [np.bincount(faces.ravel(), np.repeat(across[:, axis], 3), len(vertices)) for axis in range(3)]
    total = np.stack(sums, -1).astype(np.float64)
    return _unit(total) if unit else total


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 1e-12, vectors / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])
