"""Dense targets are transformed exactly as their image: directions turn with it, and undefined pixels stay apart."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selftaught.augment.dense import contours_of, sample_nearest, warp_dense, warp_depth, warp_normals
from selftaught.augment.warp import affine, identity, resample


def unit_normals(count: int = 2, side: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, 3, side, side, generator=generator)
    return vectors / vectors.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("name", ["depth", "normals", "contours", "instances"])
def test_identity_returns_the_stored_values(name: str) -> None:
    channels = 3 if name == "normals" else 1
    values = unit_normals() if name == "normals" else torch.randint(1, 9, (2, channels, 8, 8)).float()
    assert torch.allclose(warp_dense(name, values, identity(2), 8), values, atol=1e-5)


def test_mirroring_changes_the_sign_of_x() -> None:
    normals = unit_normals()
    mirrored = warp_normals(normals, affine(flip=1.0, count=2), 8)
    expected = normals.flip(-1) * torch.tensor([-1.0, 1, 1])[:, None, None]
    assert torch.allclose(mirrored, expected, atol=1e-5)


def test_a_quarter_turn_turns_x_to_y() -> None:
    # Content turned counter-clockwise: a surface that faced right (x = 1) now faces up (y = 1), and up becomes left.
    normals = unit_normals()
    turned = warp_normals(normals, affine(degrees=90.0, count=2), 8)
    x, y, z = torch.rot90(normals, 1, (-2, -1)).unbind(1)
    assert torch.allclose(turned, torch.stack((-y, x, z), 1), atol=1e-5)


@given(degrees=st.floats(-180, 180), flip=st.sampled_from([0.0, 1.0]), zoom=st.floats(0.2, 0.7))
@settings(max_examples=40, deadline=None)
def test_normals_are_the_gradient_of_the_warped_surface(degrees: float, flip: float, zoom: float) -> None:
    """The independent truth: a surface z = g . p in image coordinates, warped as an image, has the warped gradient."""
    gradient = torch.tensor([0.3, -0.5])  # along x to the right and y up
    side = 32
    ticks = (torch.arange(side) * 2 + 1) / side - 1
    surface = (gradient[0] * ticks[None, :] - gradient[1] * ticks[:, None])[None, None]
    normal = torch.tensor([-gradient[0], -gradient[1], 1.0])
    normal = normal / normal.norm()
    matrix = affine(degrees=degrees, flip=flip, width=zoom, height=zoom, count=1)
    warped = resample(surface, matrix, side)[0, 0]
    right = (warped[16, 20] - warped[16, 12]) / 8 * side / 2 / zoom
    up = (warped[12, 16] - warped[20, 16]) / 8 * side / 2 / zoom
    expected = torch.tensor([-right, -up, 1.0])
    seen = warp_normals(normal[None, :, None, None].expand(1, 3, side, side), matrix, side)[0, :, 16, 16]
    assert torch.allclose(seen, expected / expected.norm(), atol=2e-3)


def test_beyond_the_border_normals_are_mirrored_as_the_image_is() -> None:
    normals = torch.zeros(1, 3, 8, 8)
    normals[:, 0] = 1
    seen = warp_normals(normals, affine(width=2.0, height=2.0, count=1), 8)[0, 0]
    assert (seen[:, 2:6] == 1).all()
    assert (seen[:, [0, 1, 6, 7]] == -1).all()


def test_undefined_pixels_do_not_bleed() -> None:
    depth = torch.full((1, 1, 16, 16), 7.0)
    depth[..., :5] = 0
    for matrix in (affine(degrees=20.0, width=0.8, height=0.8, count=1), affine(x=0.1, count=1), identity(1)):
        for size in (8, 16, 40):
            seen = warp_depth(depth, matrix, size)
            assert set(seen.unique().round(decimals=4).tolist()) <= {0.0, 7.0}
    normals = torch.zeros(1, 3, 16, 16)
    normals[:, 2, :, 5:] = 1
    seen = warp_normals(normals, affine(degrees=20.0, width=0.8, height=0.8, count=1), 8)
    assert torch.isclose(seen[:, 2], torch.ones(())).logical_or(seen[:, 2] == 0).all()
    assert 0 < (seen[:, 2] == 0).float().mean() < 0.5


def test_normals_have_unit_length_after_averaging() -> None:
    seen = warp_normals(unit_normals(side=32), affine(degrees=33.0, count=2), 9)
    length = seen.norm(dim=1)
    assert torch.isclose(length, torch.ones(()), atol=1e-5).logical_or(length == 0).all()


def test_shear_and_anisotropic_zoom_turn_by_the_nearest_rotation() -> None:
    matrix = affine(degrees=30.0, shear=15.0, width=0.7, height=0.4, flip=1.0, count=1)
    u, _, v = torch.linalg.svd(matrix[0, :2, :2])  # the polar factor, from another algorithm
    flip_y = torch.diag(torch.tensor([1.0, -1.0]))
    normal = torch.tensor([0.6, 0.0, 0.8])
    seen = warp_normals(normal[None, :, None, None].expand(1, 3, 8, 8), matrix, 4)[0, :, 1, 1]
    assert torch.allclose(seen[:2], flip_y @ (u @ v).T @ flip_y @ normal[:2], atol=1e-5)


def test_ids_are_never_averaged() -> None:
    ids = torch.randint(0, 5, (2, 1, 16, 16)).float() * 1000
    matrices = torch.stack([affine(degrees=angle, width=0.6, height=0.9, count=2) for angle in (10.0, 77.0)], 1)
    seen = sample_nearest(ids, matrices, 11)
    assert seen.shape == (2, 2, 1, 11, 11)
    assert set(seen.unique().tolist()) <= {0.0, 1000.0, 2000.0, 3000.0, 4000.0}
    assert torch.equal(seen[:, 1], sample_nearest(ids, matrices[:, 1], 11))


@pytest.mark.parametrize("name", ["depth", "normals", "contours", "instances"])
def test_several_views_are_the_views_one_by_one(name: str) -> None:
    values = unit_normals(3) if name == "normals" else torch.rand(3, 1, 8, 8)
    matrices = torch.stack([affine(degrees=12.0 * k, width=0.5 + 0.1 * k, flip=k % 2, count=3) for k in range(3)], 1)
    seen = warp_dense(name, values, matrices, 5)
    for k in range(3):
        assert torch.allclose(seen[:, k], warp_dense(name, values, matrices[:, k], 5), atol=1e-6)


def test_contours_are_where_a_neighbor_differs() -> None:
    ids = torch.randint(0, 3, (9, 7))
    expected = torch.zeros(9, 7, dtype=torch.bool)
    for row in range(9):
        for column in range(7):
            for down, across in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                r, c = row + down, column + across
                if 0 <= r < 9 and 0 <= c < 7 and ids[r, c] != ids[row, column]:
                    expected[row, column] = True
    assert torch.equal(contours_of(ids), expected)
    assert torch.equal(contours_of(ids.flip(-1)), expected.flip(-1))


def test_depth_of_a_slope_follows_the_geometry() -> None:
    side = 16
    depth = (2 + torch.arange(side).float())[None, None, None].expand(1, 1, side, side)
    matrix = affine(degrees=90.0, count=1)
    assert torch.allclose(warp_depth(depth, matrix, side), torch.rot90(depth, 1, (-2, -1)), atol=1e-4)
    assert math.isclose(warp_depth(depth, affine(flip=1.0, count=1), side)[0, 0, 3, 0].item(), 17.0, abs_tol=1e-4)
