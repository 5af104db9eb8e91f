import math

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as TF
from torchvision.transforms.v2 import InterpolationMode

from selftaught.augment.warp import Pyramid, affine, identity, levels, random_crop, resample
from selftaught.errors import UserError


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_identity_returns_the_image(images):
    assert torch.equal(resample(images, identity(3), 32), images)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_and_flips_are_exact(images, turns):
    bytes_ = (images * 255).round()
    turned = resample(bytes_ / 255, affine(degrees=90 * turns, count=3), 32)
    assert torch.equal((turned * 255).round(), torch.rot90(bytes_, turns, (2, 3)))
    mirrored = resample(bytes_ / 255, affine(flip=1.0, count=3), 32)
    assert torch.equal((mirrored * 255).round(), bytes_.flip(3))


@pytest.mark.parametrize("degrees", [-35.0, 10.0, 45.0])
def test_rotations_agree_with_torchvision(images, degrees):
    ours = resample(images, affine(degrees=degrees, count=3), 32)
    theirs = TF.rotate(images, degrees, InterpolationMode.BILINEAR)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[9:23, 9:23] = True  # torchvision fills what lies outside with black, we mirror
    torch.testing.assert_close(ours[..., inside], theirs[..., inside], atol=1e-4, rtol=0)


def test_shear_and_shift_agree_with_torchvision(images):
    # magnified, because at 1 : 1 a lean steps over more than a pixel, which we antialias and torchvision does not
    ours = resample(images, affine(shear=20.0, width=0.5, height=0.5, count=3), 32)
    theirs = TF.affine(images, 0, [0, 0], 2, [20.0, 0.0], InterpolationMode.BILINEAR)
    torch.testing.assert_close(ours[..., 12:20, 12:20], theirs[..., 12:20, 12:20], atol=1e-4, rtol=0)
    moved = resample(images, affine(x=-2 * 3 / 32, y=2 * 5 / 32, count=3), 32)
    theirs = TF.affine(images, 0, [3, -5], 1, [0.0, 0.0], InterpolationMode.BILINEAR)
    torch.testing.assert_close(moved[..., :27, 3:], theirs[..., :27, 3:], atol=1e-4, rtol=0)


def test_magnified_crops_agree_with_torchvision(images):
    top, left, height, width = 4, 6, 16, 12
    matrix = affine(
        x=(2 * left + width) / 32 - 1, y=(2 * top + height) / 32 - 1, width=width / 32, height=height / 32, count=3
    )
    theirs = TF.resized_crop(images, top, left, height, width, [32, 32], antialias=True)
    ours = resample(images, matrix, 32)
    torch.testing.assert_close(ours[..., 4:-4, 4:-4], theirs[..., 4:-4, 4:-4], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [8, 11, 16, 23])
def test_downscaling_approximates_torchvision_without_aliasing(size):
    smooth = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    smooth = TF.resize(smooth, [64, 64], InterpolationMode.BICUBIC)
    theirs = TF.resize(smooth, [size, size], antialias=True)
    ours = resample(smooth, identity(1), size)
    assert (ours - theirs).abs().mean() < 0.1 * smooth.std()
    if size in (8, 16):  # whole octaves are plain averages
        k = 64 // size
        torch.testing.assert_close(ours, smooth.unfold(2, k, k).unfold(3, k, k).mean((4, 5)))
    stripes = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)  # finer than any view can show: must turn grey
    plain = torch.nn.functional.grid_sample(
        stripes, torch.nn.functional.affine_grid(identity(1)[:, :2], [1, 3, size, size], align_corners=False),
        align_corners=False,
    )  # fmt: skip
    ours = resample(stripes, identity(1), size)
    assert (ours - 0.5).abs().mean() <= min(0.2, 0.5 * (plain - 0.5).abs().mean() + 0.2)
    if size <= 16:  # two octaves down nothing is left
        assert (ours - 0.5).abs().max() < 1e-6


def test_a_view_of_a_view_is_the_product_of_their_matrices():
    ramp = torch.linspace(0, 1, 64)
    smooth = (ramp[:, None] * 0.7 + ramp * 0.3).expand(1, 3, 64, 64)
    first = affine(width=0.5, height=0.5, x=0.2, y=-0.1, count=1)
    second = affine(degrees=30.0, width=0.6, height=0.6, count=1)
    once = resample(smooth, first @ second, 64)
    twice = resample(resample(smooth, first, 64), second, 64)
    torch.testing.assert_close(once, twice, atol=2e-3, rtol=0)


def test_several_views_equal_views_made_one_by_one(images):
    matrix = torch.stack([affine(degrees=d, width=w, height=w, count=3) for d, w in ((0, 1), (20, 0.5), (70, 1))], 1)
    together = resample(images, matrix, 8)
    for k in range(3):
        torch.testing.assert_close(together[:, k], resample(images, matrix[:, k], 8))


def test_one_image_is_warped_by_several_matrices(images):
    matrix = random_crop(5, torch.Generator().manual_seed(0), scale=(0.1, 1.0))
    shared = Pyramid(images[:1]).sample(matrix[None], 8)[0]
    copied = resample(images[:1].repeat(5, 1, 1, 1), matrix, 8)
    torch.testing.assert_close(shared, copied)


def test_pyramid_levels_equal_their_definition():
    for width, size, expected in ((1.0, 32, 1.0), (0.5, 32, 0.0), (1.0, 16, 2.0), (0.25, 32, 0.0)):
        found = levels(affine(width=width, height=width, degrees=33.0, count=1), (64, 64), size)
        assert math.isclose(float(found), expected, abs_tol=1e-3)


def test_random_crops_stay_inside_and_have_the_requested_areas():
    matrix = random_crop(20_000, torch.Generator().manual_seed(0), scale=(0.2, 0.6), ratio=(1, 1))
    corners = torch.tensor([[-1.0, 1, 1, -1], [-1, -1, 1, 1], [1, 1, 1, 1]])
    assert (matrix @ corners)[:, :2].abs().max() <= 1 + 1e-6
    area = matrix[:, 0, 0].abs() * matrix[:, 1, 1]
    assert 0.2 - 1e-6 <= area.min() <= area.max() <= 0.6 + 1e-6
    assert abs(area.mean() - 0.4) < 4 * 0.4 / 12**0.5 / 20_000**0.5
    assert abs((matrix[:, 0, 0] < 0).float().mean() - 0.5) < 4 * 0.5 / 20_000**0.5


def test_views_of_zero_pixels_are_rejected(images):
    with pytest.raises(UserError, match="at least 1 pixel, got 0"):
        resample(images, identity(3), 0)


def test_windows_use_reflection_padding():
    """Up to the border itself, where the padding that is used there could differ from the mirror's."""
    images = torch.rand(6, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    matrix = random_crop(6, torch.Generator().manual_seed(1), scale=(0.3, 1.0))
    matrix[0] = identity(1)[0]
    grid = F.affine_grid(matrix[:, :2], [6, 3, 24, 24], align_corners=False)
    expected = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    assert torch.allclose(resample(images, matrix, 24), expected, atol=1e-5)


def test_views_between_two_levels_interpolate_them():
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    matrix, size = identity(1), 21  # a step of three pixels lies log2(3) - 1 of the way from halves to quarters
    seen, depth = Pyramid(image).sample(matrix[None], size)[0], math.log2(64 / size)
    pooled = [F.avg_pool2d(image, 2**level) for level in (1, 2)]
    grid = F.affine_grid(matrix[:, :2], [1, 3, size, size], align_corners=False)
    halves, quarters = (F.grid_sample(level, grid, padding_mode="border", align_corners=False) for level in pooled)
    expected = halves + (depth - 1) * (quarters - halves)
    assert torch.allclose(seen, expected, atol=1e-5)


@pytest.mark.parametrize(("size", "level"), [(64, 0), (52, 0), (45, 1), (32, 2), (28, 2), (22, 3), (16, 4)])
def test_half_octave_pyramid_uses_the_nearest_level(size, level):
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    between = F.interpolate(image, (46, 46), mode="bilinear", antialias=True)  # 64 / sqrt(2), rounded up
    shrunk = [image, between, F.avg_pool2d(image, 2), F.adaptive_avg_pool2d(between, 23), F.avg_pool2d(image, 4)]
    grid = F.affine_grid(torch.eye(3)[None, :2], [1, 3, size, size], align_corners=False)
    expected = F.grid_sample(shrunk[level], grid, padding_mode="border", align_corners=False)
    assert torch.allclose(Pyramid(image, octave=2).sample(identity(1)[None], size)[0], expected, atol=1e-5)


def test_frequencies_above_those_of_the_view_do_not_alias():
    stripes = (torch.arange(128) % 2).float().expand(1, 3, 128, 128)
    for octave in (1, 2):
        for size in (60, 45, 33, 20):
            seen = Pyramid(stripes, octave).sample(identity(1)[None], size)[0]
            assert (seen - 0.5).abs().mean() < 0.05, (octave, size)
