"""Place random objects: scale, turn, drop to a surface; choose materials and keep objects apart."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from selftaught.rendering.meshes import Mesh
from selftaught.rendering.scenes import Material, Part
from selftaught.rendering.textures import texture

Floats = NDArray[np.float64]


@dataclass
class Workshop:
    """Shared by the objects of one scene: the random generator, the textures and the counter of ids."""

    rng: np.random.Generator
    photos: NDArray[np.uint8] | None
    photo_share: float = 0.5
    parts: list[Part] = field(default_factory=list)
    instances: int = 0

    def material(self, image: Floats | None = None) -> Material:
        """A material, mostly matte."""
        chosen = texture(self.rng, self.photos, self.photo_share) if image is None else image
        glossy = self.rng.uniform() < 0.3
        return Material(chosen, self.rng.uniform(0.3, 1.0) if glossy else 0.0, self.rng.uniform(0.08, 0.5))

    def add(self, meshes: list[Mesh], materials: list[Material], new: bool = True) -> None:
        """Add the parts of one object, as a new instance or as the latest one."""
        self.instances += new
        for mesh, material in zip(meshes, materials, strict=True):
            self.parts.append(Part(mesh, material, self.instances))

    def materials(self, count: int) -> list[Material]:
        """Materials of the parts of one object."""
        return [self.material() for _ in range(count)]


def turn(degrees: float) -> Floats:
    """Rotation about the z axis."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])


def tumble(rng: np.random.Generator) -> Floats:
    """A random rotation in space."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else q * np.array([[-1.0], [1], [1]])


def placed(meshes: list[Mesh], linear: Floats, place: Floats, drop: bool = True) -> list[Mesh]:
    """Transform the parts of an object and shift it, so that it rests on the height of `place` if `drop`."""
    moved = [mesh.transformed(linear, np.zeros(3)) for mesh in meshes]
    low = min(mesh.vertices[:, 2].min() for mesh in moved) if drop else 0.0
    return [mesh.transformed(np.eye(3), place - np.array([0, 0, low])) for mesh in moved]


def extent(meshes: list[Mesh]) -> tuple[float, float]:
    """Radius around the z axis through the origin, and height, of the parts of an object."""
    points = np.concatenate([mesh.vertices for mesh in meshes])
    return float(np.linalg.norm(points[:, :2], axis=1).max()), float(points[:, 2].max())


def varied(rng: np.random.Generator, meshes: list[Mesh]) -> list[Mesh]:
    """The parts with random scales of their textures."""
    return [mesh.textured(float(np.exp(rng.uniform(-0.7, 1.2)))) for mesh in meshes]
