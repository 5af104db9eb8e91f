"""Scenes whose depth, normals and ids are given by formulas: rays against planes, spheres and boxes."""

import numpy as np

from selftaught.rendering.meshes import Mesh, box, revolved
from selftaught.rendering.scenes import Camera, Material, Part, Scene

GRAY = Material(np.full((4, 4, 3), 0.5))


def scene(camera: Camera, *meshes: Mesh, ids: tuple[int, ...] = ()) -> Scene:
    numbers = ids or tuple(range(1, len(meshes) + 1))
    parts = tuple(Part(mesh, GRAY, number) for mesh, number in zip(meshes, numbers, strict=True))
    return Scene(parts, camera, 0.4, sky=np.ones((8, 16, 3)))


def rays(camera: Camera, size: int) -> np.ndarray:
    """(S, S, 3) directions through the centers of pixels whose component along the viewing axis is 1."""
    half = np.tan(np.deg2rad(camera.field_of_view) / 2)
    ticks = ((np.arange(size) + 0.5) / size * 2 - 1) * half
    right, up, backward = camera.axes()
    return ticks[None, :, None] * right - ticks[:, None, None] * up - backward


def hit_plane(camera: Camera, size: int, normal: np.ndarray, offset: float) -> np.ndarray:
    """Depth of the plane normal . x = offset, infinite behind the camera: (S, S)."""
    directions = rays(camera, size)
    with np.errstate(divide="ignore"):
        depth = (offset - camera.origin @ normal) / (directions @ normal)
    return np.where(depth > 0, depth, np.inf)


def hit_sphere(camera: Camera, size: int, center: np.ndarray, radius: float) -> np.ndarray:
    directions, offset = rays(camera, size), camera.origin - center
    a, b, c = (directions**2).sum(2), directions @ offset, offset @ offset - radius**2
    discriminant = b**2 - a * c
    return np.where(discriminant > 0, (-b - np.sqrt(np.maximum(discriminant, 0))) / a, np.inf)


def hit_box(camera: Camera, size: int, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth of an axis-aligned box, and its normal in the world (the slab method)."""
    directions = rays(camera, size)
    near, far = (low - camera.origin) / directions, (high - camera.origin) / directions
    enter, leave = np.minimum(near, far), np.maximum(near, far)
    depth = np.where((enter.max(2) < leave.min(2)) & (enter.max(2) > 0), enter.max(2), np.inf)
    normal = -np.sign(directions) * (enter == enter.max(2, keepdims=True))
    return depth, normal


def fine_sphere(center: np.ndarray, radius: float) -> Mesh:
    turns = np.linspace(-np.pi / 2, np.pi / 2, 180)
    profile = np.stack((radius * np.cos(turns), radius * np.sin(turns)), 1)
    return revolved(profile, 360).transformed(np.eye(3), center)


def slab(normal_axis: int, offset: float, reach: float = 50.0) -> Mesh:
    """A large plate whose upper side is the plane x[axis] = offset."""
    low, high = np.full(3, -reach), np.full(3, reach)
    low[normal_axis], high[normal_axis] = offset - 1, offset
    return box(low.tolist(), high.tolist())
