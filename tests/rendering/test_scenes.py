"""Scenes are a pure function of (seed, number), and valid."""

import numpy as np
import pytest

from selftaught.rendering.denoise import denoised
from selftaught.rendering.random_scene import random_scene
from selftaught.rendering.scenes import Scene
from selftaught.rendering.textures import KINDS, foliage, ground, noise, sky, texture


def signature(scene: Scene) -> tuple[object, ...]:
    return (
        scene.seed,
        scene.exposure,
        scene.camera.origin.tobytes(),
        scene.camera.target.tobytes(),
        tuple(part.mesh.vertices.tobytes() + part.material.texture.tobytes() for part in scene.parts),
        None if scene.sky is None else scene.sky.tobytes(),
        len(scene.lamps),
    )


def test_a_scene_depends_on_its_seed_and_number_only() -> None:
    expected = [signature(random_scene(3, number)) for number in (7, 8, 9)]
    random_scene(0, 1)
    np.random.default_rng(0).uniform()
    assert [signature(random_scene(3, number)) for number in (9, 7, 8)] == [expected[2], expected[0], expected[1]]
    others = [signature(random_scene(seed, number)) for seed, number in ((3, 10), (4, 7), (7, 3))]
    assert len({*expected, *others}) == 6


def test_scenes_are_valid_and_varied() -> None:
    kinds, counts = set(), []
    for number in range(30):
        scene = random_scene(1, number)
        kinds.add(scene.kind)
        counts.append(len({part.instance for part in scene.parts}))
        assert all(np.isfinite(part.mesh.vertices).all() for part in scene.parts)
        assert all(part.mesh.vertices.shape[1] == 3 for part in scene.parts)
        assert 0 < scene.exposure < 1
        axes = scene.camera.axes()
        assert np.allclose(axes @ axes.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(axes) > 0
        assert {part.instance for part in scene.parts} == set(range(1, counts[-1] + 1))
    assert kinds == {"room", "landscape"}
    assert min(counts) >= 3
    assert np.mean(counts) > 6


def test_photos_are_used_as_textures() -> None:
    photos = np.random.default_rng(0).integers(0, 256, (5, 3, 64, 64), dtype=np.uint8)
    known = {photo.transpose(1, 2, 0).tobytes() for photo in photos}
    scenes = [random_scene(0, number, photos) for number in range(6)]
    used = [
        np.rint(part.material.texture * 255).astype(np.uint8).tobytes() in known
        for scene in scenes
        for part in scene.parts
        if part.material.texture.shape == (64, 64, 3)
    ]
    assert 0.2 < np.mean(used) < 0.7


@pytest.mark.parametrize("kind", [*dict.fromkeys(KINDS), texture, ground, foliage])
def test_textures_are_colors(kind: object) -> None:
    for seed in range(8):
        values = kind(np.random.default_rng(seed))  # type: ignore[operator]
        assert values.ndim == 3
        assert values.shape[2] == 3
        assert np.isfinite(values).all()
        assert values.min() >= 0
        assert values.max() <= 1


def test_noise_is_periodic() -> None:
    field = noise(np.random.default_rng(0), 2.0)
    inside = np.abs(np.diff(field, axis=0)).mean()
    assert np.abs(field[0] - field[-1]).mean() < 2 * inside


def test_skies_are_positive_and_brighter_than_the_ground() -> None:
    for seed in range(8):
        radiance = sky(np.random.default_rng(seed))
        assert radiance.shape == (32, 64, 3)
        assert radiance.min() > 0
        assert radiance[:16].mean() > radiance[17:].mean()


def flat_surface(side: int = 24) -> dict[str, np.ndarray]:
    normals = np.zeros((side, side, 3), np.float32)
    normals[..., 2] = 1
    return {"depth": np.ones((side, side), np.float32), "normals": normals, "ids": np.ones((side, side), np.int64)}


def test_noise_of_light_is_removed_and_textures_stay() -> None:
    rng = np.random.default_rng(0)
    albedo = rng.uniform(0.1, 0.9, (24, 24, 3))
    light = 2 + rng.normal(0, 0.5, (24, 24, 1))
    smooth = denoised(albedo * light, albedo, **flat_surface())
    assert np.abs(smooth / albedo - 2).mean() < 0.4 * np.abs(light - 2).mean()
    assert np.mean(smooth / albedo) == pytest.approx(2, rel=0.03)


def test_edges_of_shadows_and_objects_stay() -> None:
    albedo = np.full((24, 24, 3), 0.5)
    light = np.ones((24, 24, 1))
    light[:, :12] = 0.05
    smooth = denoised(albedo * light, albedo, **flat_surface())
    assert np.abs(smooth - albedo * light)[:, [8, 9, 14, 15]].max() < 0.03
    surface = flat_surface()
    surface["ids"][:, 12:] = 2
    light[:, :12] = 0.8
    assert np.allclose(denoised(albedo * light, albedo, **surface), albedo * light, atol=1e-9)


def test_single_bright_pixels_are_removed_and_the_sky_is_kept() -> None:
    albedo = np.full((24, 24, 3), 0.5)
    light = np.ones((24, 24, 1))
    light[10, 10] = 500
    surface = flat_surface()
    surface["depth"][:4] = 0
    radiance = albedo * light
    radiance[:4] = np.random.default_rng(0).uniform(0, 9, (4, 24, 3))
    smooth = denoised(radiance, albedo, **surface)
    assert smooth[10, 10].max() < 1
    assert np.array_equal(smooth[:4], radiance[:4])
