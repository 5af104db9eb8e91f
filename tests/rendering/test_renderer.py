"""Rendered depth, normals and ids against closed forms; Mitsuba renders, the formulas are written out here."""

import numpy as np
import pytest
from closed_form import fine_sphere, hit_box, hit_plane, hit_sphere, rays, scene, slab

from selftaught.rendering.meshes import box
from selftaught.rendering.scenes import Camera, Lamp, Material, Part, Scene

pytest.importorskip("mitsuba")
from selftaught.rendering.renderer import render_scene, to_linear, to_srgb, tone_mapped

SIZE = 32
CAMERAS = {
    "level": Camera(np.array([0.0, -5, 1.5]), np.array([0.0, 0, 1.5]), 60.0),
    "turned": Camera(np.array([3.0, -4, 2.5]), np.array([-0.3, 0.4, 0.2]), 45.0, roll=23.0),
    "from the side": Camera(np.array([-6.0, 1, 0.8]), np.array([0.0, 0.2, 0.6]), 50.0, roll=-100.0),
}


@pytest.fixture(params=list(CAMERAS))
def camera(request: pytest.FixtureRequest) -> Camera:
    return CAMERAS[request.param]


def test_a_plane(camera: Camera) -> None:
    picture = render_scene(scene(camera, slab(2, 0.0)), SIZE)
    up = np.array([0.0, 0, 1])
    expected = hit_plane(camera, SIZE, up, 0.0)
    points = camera.origin + expected[..., None] * rays(camera, SIZE)
    inside = np.isfinite(expected) & (np.abs(np.nan_to_num(points, posinf=1e9)) < 49).all(2)
    assert inside.sum() > SIZE
    assert np.allclose(picture.depth[inside], expected[inside], rtol=1e-4)
    assert np.allclose(picture.normals[inside], camera.axes() @ up, atol=1e-4)
    assert (picture.instances[inside] == 1).all()
    sky = np.isinf(expected)
    assert (picture.depth[sky] == 0).all()
    assert (picture.instances[sky] == 0).all()
    assert (picture.normals[sky] == 0).all()


def test_a_sphere(camera: Camera) -> None:
    center, radius = np.array([0.2, 0.1, 0.9]), 0.8
    picture = render_scene(scene(camera, fine_sphere(center, radius), ids=(4,)), SIZE)
    expected = hit_sphere(camera, SIZE, center, radius)
    inside = np.isfinite(expected)
    assert (picture.instances == np.where(inside, 4, 0)).mean() > 0.995  # its outline is a polygon
    both = inside & (picture.depth > 0)
    points = camera.origin + expected[both][:, None] * rays(camera, SIZE)[both]
    facing = (points - center) / radius
    central = -(facing * (points - camera.origin)).sum(1) > 0.3 * np.linalg.norm(points - camera.origin, axis=1)
    assert np.abs(picture.depth[both] - expected[both])[central].max() < 2e-3
    assert np.abs(picture.normals[both] - facing @ camera.axes().T)[central].max() < 5e-3


def test_a_box_in_front_of_a_sphere_on_a_plane(camera: Camera) -> None:
    low, high = np.array([-0.7, -0.9, 0.0]), np.array([0.5, -0.2, 0.9])
    center, radius = np.array([0.4, 0.6, 0.7]), 0.7
    meshes = slab(2, 0.0), fine_sphere(center, radius), box(low.tolist(), high.tolist())
    picture = render_scene(scene(camera, *meshes, ids=(1, 2, 5)), SIZE)
    boxed, normal = hit_box(camera, SIZE, low, high)
    depths = np.stack(
        [
            np.full((SIZE, SIZE), np.inf),
            hit_plane(camera, SIZE, np.array([0.0, 0, 1]), 0.0),
            hit_sphere(camera, SIZE, center, radius),
            boxed,
        ]
    )
    depths[1][
        (np.abs(camera.origin + np.nan_to_num(depths[1], posinf=1e9)[..., None] * rays(camera, SIZE)) > 49).any(2)
    ] = np.inf
    ids = np.array([0, 1, 2, 5])[depths.argmin(0)]
    ids[np.isinf(depths.min(0))] = 0
    agree = picture.instances == ids
    assert agree.mean() > 0.99
    assert {1, 2, 5} <= set(np.unique(ids))
    seen = agree & (ids > 0) & (ids != 2)
    assert np.allclose(picture.depth[seen], depths.min(0)[seen], rtol=1e-4)
    assert np.allclose(picture.normals[agree & (ids == 5)], (normal @ camera.axes().T)[agree & (ids == 5)], atol=1e-4)


def test_normals_of_a_surface_seen_from_its_back_face_the_camera() -> None:
    camera = CAMERAS["level"]
    room = box([-2, -7, 0], [2, 4, 3])  # around the camera
    normals = render_scene(scene(camera, room), SIZE).normals
    assert (normals[..., 2] > -1e-4).all()
    assert np.allclose(normals[16, 16], [0, 0, 1], atol=1e-4)
    assert np.allclose(normals[16, 0], [1, 0, 0], atol=1e-4)  # the left wall faces right
    assert np.allclose(normals[31, 16], [0, 1, 0], atol=1e-4)  # the floor faces up


def test_parts_of_one_object_share_its_id() -> None:
    picture = render_scene(scene(CAMERAS["level"], slab(2, 0.0), slab(1, 3.0), ids=(2, 2)), SIZE)
    assert set(np.unique(picture.instances)) <= {0, 2}


def test_pictures_are_reproducible() -> None:
    first, second = (render_scene(scene(CAMERAS["turned"], slab(2, 0.0)), 16) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.depth, second.depth)


def test_textures_and_light_are_where_they_should_be() -> None:
    """A plate that is red on its left and green on its right, lit from the right."""
    texture = np.zeros((8, 8, 3))
    texture[:, :4, 0], texture[:, 4:, 1] = 1, 1
    plate = box([-2, 0, 0], [2, 1, 3]).textured(0.25)
    shifted = type(plate)(plate.vertices, plate.faces, plate.uv + 0.5, None)
    lamp = Lamp(np.array([1.5, -3, 1.5]), np.array([5.0, 5, 5]))
    part = Part(shifted, Material(texture), 1)
    image = render_scene(Scene((part,), CAMERAS["level"], 0.15, lamps=(lamp,)), SIZE).image.astype(int)
    left, right = image[10:22, 8:15].mean((0, 1)), image[10:22, 17:24].mean((0, 1))
    assert left[0] > 30 + left[1]
    assert right[1] > 30 + right[0]
    assert right[1] > left[0]


def test_exposure_is_reached_and_highlights_are_not_cut_off() -> None:
    rng = np.random.default_rng(0)
    radiance = np.exp(rng.normal(0, 2, (32, 32, 3)))
    for exposure in (0.25, 0.6):
        mapped = tone_mapped(radiance, exposure)
        assert abs(mapped.mean() / 255 - exposure) < 0.01
        assert (np.diff(mapped.ravel()[radiance.ravel().argsort()].astype(int)) >= 0).all()
    assert np.array_equal(tone_mapped(radiance, 0.4), tone_mapped(radiance * 1000, 0.4)) or (
        np.abs(tone_mapped(radiance, 0.4).astype(int) - tone_mapped(radiance * 100, 0.4)).max() <= 1
    )


def test_srgb_is_inverted() -> None:
    values = np.linspace(0, 1, 1001)
    assert np.allclose(to_linear(to_srgb(values)), values, atol=1e-6)
    assert np.isclose(to_srgb(np.array([0.2140411]))[0], 0.5, atol=1e-5)  # the value of the standard
