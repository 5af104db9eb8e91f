"""Render a scene with Mitsuba 3: picture, depth, normals and instance ids.

Variant `scalar_rgb` only: it is exact, needs no compiler and starts fast; `llvm_ad_rgb` aborts the process with some
versions of LLVM. Depth, normals and ids come from one ray through the center of each pixel, because averages of ids
have no meaning. The picture is the mean of a few random rays per pixel. The albedo for `denoised` is a second picture,
of the same meshes as lamps of their own color, because Mitsuba's own estimate of it takes three times as long as the
picture.

Jakob et al., "Mitsuba 3 renderer", 2022. https://mitsuba-renderer.org
"""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftaught.errors import UserError
from selftaught.rendering.denoise import denoised
from selftaught.rendering.scenes import Camera, Floats, Material, Part, Scene

SAMPLES = 4
"""Rays per pixel of the picture, a square number because they are stratified."""
SEGMENTS = 3
"""Maximum number of segments of a light path: direct light, and light reflected once."""
CHANNELS = "position:position,shading:sh_normal,geometric:geo_normal,index:shape_index"


@dataclass(frozen=True)
class Picture:
    """A rendered scene."""

    image: NDArray[np.uint8]
    """(S, S, 3) sRGB."""
    depth: NDArray[np.float32]
    """(S, S) meters along the viewing axis; 0 in the sky."""
    normals: NDArray[np.float32]
    """(S, S, 3) unit vectors: x right, y up, z toward the camera; zero vectors in the sky."""
    instances: NDArray[np.int64]
    """(S, S) ids of `Part.instance`; 0 in the sky."""


@cache
def mitsuba() -> Any:
    """The module `mitsuba`, set to `scalar_rgb` and one thread.

    Raises:
        UserError: it is not installed.
    """
    if find_spec("mitsuba") is None:
        raise UserError("rendering needs Mitsuba 3: install selftaught[synthetic].")
    module = import_module("mitsuba")
    module.set_variant("scalar_rgb")
    module.set_log_level(module.LogLevel.Error)
    import_module("drjit").set_thread_count(1)  # scenes are rendered side by side, one per process
    return module


def render_scene(scene: Scene, size: int) -> Picture:
    """Render a scene.

    Args:
        scene: the scene.
        size: side of the square picture in pixels.
    """
    mi = mitsuba()
    shapes = {f"part{number:04}": part for number, part in enumerate(scene.parts)}
    textures = {name: _texture(part.material) for name, part in shapes.items()}
    world = {name: _shape(name, part, bsdf=_surface(part.material, textures[name])) for name, part in shapes.items()}
    loaded = _loaded({**world, **_lights(scene)})
    center = {"type": "stratified", "sample_count": 1, "jitter": False}
    measured = _render(loaded, scene.camera, size, {"type": "aov", "aovs": CHANNELS}, center, 0)
    depth, normals, instances = _targets(scene, measured)
    random = {"type": "multijitter", "sample_count": SAMPLES}
    radiance = _render(loaded, scene.camera, size, {"type": "path", "max_depth": SEGMENTS}, random, scene.seed)
    colors = {
        name: _shape(name, part, emitter=mi.load_dict({"type": "area", "radiance": textures[name]}))
        for name, part in shapes.items()
    }
    albedo = _render(_loaded(colors), scene.camera, size, {"type": "path", "max_depth": 1}, random, scene.seed)
    smooth = denoised(radiance, albedo, depth, normals, instances)
    return Picture(tone_mapped(smooth, scene.exposure), depth, normals, instances)


def _loaded(world: dict[str, Any]) -> Any:
    # Optimizing would merge shapes, and so their ids.
    return mitsuba().load_dict({"type": "scene", **world}, parallel=False, optimize=False)


def _render(
    loaded: Any, camera: Camera, size: int, integrator: dict[str, Any], sampler: dict[str, Any], seed: int
) -> Floats:
    """The channels of an integrator: (size, size, C)."""
    mi = mitsuba()
    sensor = mi.load_dict({**_sensor(camera, size), "sampler": sampler})
    count = sampler["sample_count"]
    picture = mi.render(loaded, sensor=sensor, integrator=mi.load_dict(integrator), spp=count, seed=seed)
    return np.array(picture).astype(np.float64)


def tone_mapped(radiance: Floats, exposure: float) -> NDArray[np.uint8]:
    """Linear radiance to 8-bit sRGB.

    Radiance is scaled such that the mean of the mapped picture is `exposure`, and rolled off smoothly toward white
    (1 - exp(-x)), which keeps structure in the sky and in highlights.

    Args:
        radiance: (H, W, 3).
        exposure: mean brightness of the result, in (0, 1).
    """
    radiance = np.nan_to_num(np.maximum(radiance, 0), posinf=1e3)
    low, high = -12.0, 12.0  # powers of two of the scale
    for _ in range(14):
        middle = (low + high) / 2
        brightness = to_srgb(1 - np.exp(-radiance * 2**middle)).mean()
        low, high = (middle, high) if brightness < exposure else (low, middle)
    mapped = to_srgb(1 - np.exp(-radiance * 2 ** ((low + high) / 2)))
    return np.rint(255 * mapped).astype(np.uint8)


def to_srgb(linear: Floats) -> Floats:
    """Linear to sRGB (IEC 61966-2-1), both in [0, 1]."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def to_linear(srgb: Floats) -> Floats:
    """SRGB to linear (IEC 61966-2-1), both in [0, 1]."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _targets(scene: Scene, measured: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Depth, normals and ids from the channels `CHANNELS`."""
    position, shading, geometric = measured[..., -10:-7], measured[..., -7:-4], measured[..., -4:-1]
    hit = np.linalg.norm(geometric, axis=2) > 0.5
    axes = scene.camera.axes()
    offset = position - scene.camera.origin
    depth = np.where(hit, -(offset @ axes[2]), 0)
    behind = (geometric * offset).sum(2) > 0  # a surface seen from its back
    normals = np.where(behind[..., None], -shading, shading) @ axes.T
    length = np.linalg.norm(normals, axis=2, keepdims=True)
    normals = np.where(hit[..., None], normals / np.maximum(length, 1e-9), 0)
    ids = np.array([0, *(part.instance for part in scene.parts)])
    return depth.astype(np.float32), normals.astype(np.float32), ids[measured[..., -1].round().astype(int) * hit]


def _sensor(camera: Camera, size: int) -> dict[str, Any]:
    """A camera with a box filter."""
    axes = camera.axes()
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2], matrix[:3, 3] = -axes[0], axes[1], -axes[2], camera.origin
    return {
        "type": "perspective",
        "fov": float(camera.field_of_view),
        "near_clip": 0.01,
        "far_clip": 1e4,
        "to_world": mitsuba().ScalarTransform4f(matrix.tolist()),
        "film": {"type": "hdrfilm", "width": size, "height": size, "pixel_format": "rgb", "rfilter": {"type": "box"}},
    }


def _lights(scene: Scene) -> dict[str, Any]:
    mi = mitsuba()
    lights: dict[str, Any] = {}
    if scene.sky is not None:
        upright = mi.ScalarTransform4f().rotate([1, 0, 0], 90)  # the poles of Mitsuba's maps are on the y axis
        bitmap = mi.Bitmap(np.ascontiguousarray(scene.sky, dtype=np.float32))
        lights["sky"] = {"type": "envmap", "bitmap": bitmap, "to_world": upright}
    for number, sun in enumerate(scene.suns):
        irradiance = {"type": "rgb", "value": sun.irradiance.tolist()}
        lights[f"sun{number}"] = {"type": "directional", "direction": sun.direction.tolist(), "irradiance": irradiance}
    for number, lamp in enumerate(scene.lamps):
        intensity = {"type": "rgb", "value": lamp.intensity.tolist()}
        lights[f"lamp{number}"] = {"type": "point", "position": lamp.position.tolist(), "intensity": intensity}
    return lights


def _shape(name: str, part: Part, **plugins: Any) -> Any:
    """A Mitsuba mesh with its material or light."""
    mi = mitsuba()
    properties = mi.Properties()
    for kind, plugin in plugins.items():
        properties[kind] = plugin
    mesh = part.mesh
    shape = mi.Mesh(
        name,
        len(mesh.vertices),
        len(mesh.faces),
        has_vertex_normals=mesh.normals is not None,
        has_vertex_texcoords=True,
        props=properties,
    )
    values = mi.traverse(shape)
    values["vertex_positions"] = mesh.vertices.astype(np.float32).ravel()
    values["faces"] = mesh.faces.astype(np.uint32).ravel()
    values["vertex_texcoords"] = mesh.uv.astype(np.float32).ravel()
    if mesh.normals is not None:
        values["vertex_normals"] = mesh.normals.astype(np.float32).ravel()
    values.update()
    return shape


def _texture(material: Material) -> Any:
    mi = mitsuba()
    pixels = np.ascontiguousarray(to_linear(material.texture), dtype=np.float32)
    return mi.load_dict({"type": "bitmap", "bitmap": mi.Bitmap(pixels), "raw": True})


def _surface(material: Material, texture: Any) -> Any:
    """A diffuse material, with a rough specular reflection if it is glossy; both sides reflect."""
    surface = {"type": "diffuse", "reflectance": texture}
    if material.gloss:
        roughness, specular = float(material.roughness), float(material.gloss)
        surface = {"type": "principled", "base_color": texture, "roughness": roughness, "specular": specular}
    return mitsuba().load_dict({"type": "twosided", "bsdf": surface})
