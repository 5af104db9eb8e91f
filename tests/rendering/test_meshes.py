"""Meshes: volumes by the divergence theorem against closed forms, and normals that point outward."""

import numpy as np
import pytest

from selftaught.rendering import shapes
from selftaught.rendering.meshes import Mesh, blob, box, boxes, prism, revolved, terrain, torus


def volume(mesh: Mesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def ball(radius: float, steps: int = 200) -> Mesh:
    turns = np.linspace(-np.pi / 2, np.pi / 2, steps)
    return revolved(np.stack((radius * np.cos(turns), radius * np.sin(turns)), 1), 2 * steps)


SQUARE = np.array([[1.0, -1], [1, 1], [-1, 1], [-1, -1]])
CYLINDER = np.array([[0.0, 0], [0.5, 0], [0.5, 0], [0.5, 2], [0.5, 2], [0, 2]])
PIPE = np.array([[0.5, 0.0], [0.5, 1], [0.3, 1], [0.3, 0], [0.5, 0]])


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        (box([0, 0, 0], [1, 2, 3]), 6),
        (boxes(([0, 0, 0], [1, 1, 1]), ([2, 0, 0], [3, 1, 2])), 3),
        (prism(SQUARE, 3.0), 12),
        (prism(SQUARE, 3.0, 0.0), 4),
        (ball(0.7), 4 / 3 * np.pi * 0.7**3),
        (torus(1.0, 0.3, 200, 100), 2 * np.pi**2 * 0.09),
        (revolved(CYLINDER, 400), np.pi * 0.25 * 2),
        (revolved(PIPE, 400), np.pi * (0.25 - 0.09)),
    ],
)
def test_volumes(mesh: Mesh, expected: float) -> None:
    assert volume(mesh) == pytest.approx(expected, rel=2e-3)


def test_smooth_normals_of_a_sphere_are_its_directions() -> None:
    mesh = ball(0.7)
    assert mesh.normals is not None
    assert np.abs(mesh.normals - mesh.vertices / 0.7).max() < 0.02


def test_transformed_normals_stay_orthogonal_to_the_surface() -> None:
    mesh = ball(1.0, 60).transformed(np.diag([2.0, 1, 0.5]), np.array([3.0, 0, 0]))
    local = (mesh.vertices - [3, 0, 0]) / [4, 1, 0.25]  # gradient of the ellipsoid
    expected = local / np.linalg.norm(local, axis=1, keepdims=True)
    assert mesh.normals is not None
    assert (mesh.normals * expected).sum(1).min() > 0.99


def test_a_terrain_faces_up() -> None:
    heights = np.random.default_rng(0).uniform(0, 1, (9, 9))
    mesh = terrain(heights, 8.0)
    assert mesh.normals is not None
    assert (mesh.normals[:, 2] > 0).all()
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()
    assert mesh.vertices[:, 2].tolist() == heights.ravel().tolist()


SHAPES = {shape.__name__: shape for shape in (*shapes.SOLIDS, *shapes.FURNITURE, *shapes.PLANTS, shapes.house)}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_finite_and_their_normals_agree_with_their_faces(name: str) -> None:
    for seed in range(5):
        parts = SHAPES[name](np.random.default_rng(seed))
        assert -1.5 < min(mesh.vertices[:, 2].min() for mesh in parts) < 0.1
        for mesh in parts:
            assert np.isfinite(mesh.vertices).all()
            assert np.isfinite(mesh.uv).all()
            assert mesh.faces.max() < len(mesh.vertices)
            if mesh.normals is not None:
                a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
                across = np.cross(b - a, c - a)
                area = np.linalg.norm(across, axis=1)
                agree = (across * mesh.normals[mesh.faces].mean(1)).sum(1) > 0
                assert area[agree].sum() > 0.95 * area.sum()  # thin rims are shaded as part of the sides


def test_a_rock_is_not_a_ball() -> None:
    radii = np.linalg.norm(blob(np.random.default_rng(1), 0.4).vertices, axis=1)
    assert radii.std() > 0.02
    assert radii.max() < 0.5 * 1.41
