"""Random scenes: a pure function of (seed, number), independent of the renderer.

Lengths are in meters, z is up. Colors of textures are sRGB, radiances are linear.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from selftaught.rendering.meshes import Mesh

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Material:
    """The surface of a part."""

    texture: Floats
    """(S, S, 3) sRGB in [0, 1]."""
    gloss: float = 0.0
    """Strength of the specular reflection: 0 is matte, 1 is strong."""
    roughness: float = 0.5
    """Width of the specular reflection, in (0, 1]."""


@dataclass(frozen=True)
class Part:
    """A mesh with its material and the object that it belongs to."""

    mesh: Mesh
    material: Material
    instance: int
    """Id of the object, from 1; 0 is the background."""
    radiance: Floats | None = None
    """(3,) emitted radiance of a lamp; None for other parts."""


@dataclass(frozen=True)
class Sun:
    """A distant light with sharp shadows."""

    direction: Floats
    """(3,) direction in which its light travels."""
    irradiance: Floats
    """(3,) on a surface that faces it."""


@dataclass(frozen=True)
class Lamp:
    """A point light."""

    position: Floats
    intensity: Floats


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with square pixels."""

    origin: Floats
    target: Floats
    field_of_view: float
    """Degrees, of width and height."""
    roll: float = 0.0
    """Degrees, counter-clockwise rotation of the content of the image."""

    def axes(self) -> Floats:
        """(3, 3): rows are the directions right, up and backward (toward the viewer) in the world."""
        backward = self.origin - self.target
        backward = backward / np.linalg.norm(backward)
        right = np.cross([0.0, 0.0, 1.0], backward)
        right = right / np.linalg.norm(right)
        up = np.cross(backward, right)
        cos, sin = np.cos(np.deg2rad(-self.roll)), np.sin(np.deg2rad(-self.roll))
        return np.stack((cos * right + sin * up, cos * up - sin * right, backward))


@dataclass(frozen=True)
class Scene:
    """Everything that determines a picture, but its size."""

    parts: tuple[Part, ...]
    camera: Camera
    exposure: float
    """Mean of the picture after tone mapping, between 0 and 1."""
    sky: Floats | None = None
    """(H, 2 H, 3) linear radiance of the surroundings, z up; None for none."""
    suns: tuple[Sun, ...] = ()
    lamps: tuple[Lamp, ...] = ()
    seed: int = 0
    """Seed of the renderer's samples."""
    kind: str = field(default="")
    """For titles: "room" or "landscape"."""
