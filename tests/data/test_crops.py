import dataclasses

import pytest
import torch
from scipy import stats

from selftaught.augment.warp import affine, identity
from selftaught.data.crops import Cropping, Crops, uniform_at
from selftaught.errors import UserError

CPU = torch.device("cpu")
PLAIN = Cropping(crop_rotation=0, crop_flip=0, crop_jitter=0, crop_ratio=(1, 1))


def photo(height=90, width=120, seed=0):
    return torch.randint(256, (3, height, width), generator=torch.Generator().manual_seed(seed)).byte()


def test_crop_i_is_a_function_of_seed_and_i_alone():
    source = Crops("a", [photo()], 1000, 16, 7)
    together = source.batch(torch.tensor([3, 500, 999]), CPU).warp(identity(3), 16)
    for place, index in enumerate((3, 500, 999)):
        alone = Crops("b", [photo()], 2000, 16, 7).batch(torch.tensor([index]), CPU).warp(identity(1), 16)
        torch.testing.assert_close(together[place], alone[0], atol=1e-5, rtol=0)
    other = Crops("a", [photo()], 1000, 16, 8).batch(torch.tensor([3]), CPU).warp(identity(1), 16)
    assert (other - together[:1]).abs().max() > 0.05


def test_counter_based_numbers_are_uniform_and_unrelated():
    draws = uniform_at(0, torch.arange(100_000), 4)
    n = draws.shape[1]
    assert 0 <= draws.min() <= draws.max() < 1
    assert (draws.mean(1) - 0.5).abs().max() < 5 * 12**-0.5 / n**0.5
    flat = torch.cat(
        [draws, draws[:1].roll(1, 1), uniform_at(1, torch.arange(n), 1)]
    )  # neighbors and the next seed, too
    between = torch.corrcoef(flat) - torch.eye(len(flat))
    assert between.abs().max() < 5 / n**0.5
    counts = (draws[0] * 64).long().bincount(minlength=64).float()
    assert ((counts - n / 64) ** 2 / (n / 64)).sum() < 63 + 5 * (2 * 63) ** 0.5  # chi-squared


@pytest.mark.parametrize("cropping", [Cropping(crop_shear=30), Cropping(crop_spread="uniform", crop_rotation=90)])
def test_windows_never_leave_the_photo(cropping):
    source = Crops("a", [photo(), photo(40, 300)], 10_000, 16, 0, cropping)
    corners = torch.tensor([[-1.0, 1, 1, -1], [-1, -1, 1, 1], [1, 1, 1, 1]])
    assert (source.windows(torch.arange(10_000)) @ corners)[:, :2].abs().max() <= 1 + 1e-5


@pytest.mark.parametrize("spread", ["uniform", "log"])
def test_areas_have_the_requested_distribution(spread):
    cropping = dataclasses.replace(PLAIN, crop_area=(0.01, 0.3), crop_spread=spread)
    windows = Crops("a", [photo(100, 100)], 20_000, 16, 0, cropping).windows(torch.arange(20_000))
    area = torch.linalg.det(windows[:, :2, :2]).abs()
    assert 0.01 - 1e-5 <= area.min() < 0.0102
    assert 0.29 < area.max() <= 0.3 + 1e-5
    middle = (0.01 + 0.3) / 2 if spread == "uniform" else (0.01 * 0.3) ** 0.5
    assert abs((area < middle).float().mean() - 0.5) < 4 * 0.5 / 20_000**0.5


@pytest.mark.parametrize("spread", ["uniform", "log"])
@pytest.mark.parametrize("turned", [{}, {"crop_rotation": 30, "crop_shear": 30}])
@pytest.mark.parametrize(("height", "width", "largest"), [(100, 100, 1.0), (300, 400, 1.0), (100, 300, 4 / 9)])
def test_areas_have_the_stated_distribution_however_crops_are_rotated(spread, turned, height, width, largest):
    """4/9: the widest crop of a photo of 3:1 is 4:3, and as high as the photo."""
    count = 20_000
    source = Crops("a", [photo(height, width)], count, 16, 0, Cropping(crop_spread=spread, **turned))
    area = torch.linalg.det(source.windows(torch.arange(count))[:, :2, :2]).abs()
    law = stats.uniform(1e-3, largest - 1e-3) if spread == "uniform" else stats.loguniform(1e-3, largest)
    assert stats.kstest(area.double().numpy(), law.cdf).pvalue > 1e-3


def test_crops_that_fit_at_any_angle_are_rotated_uniformly():
    cropping = Cropping(crop_area=(0.01, 0.1), crop_ratio=(1, 1), crop_flip=0)
    windows = Crops("a", [photo(100, 100)], 20_000, 16, 0, cropping).windows(torch.arange(20_000))
    degrees = torch.rad2deg(torch.atan2(windows[:, 1, 0], windows[:, 0, 0])).double()
    assert stats.kstest(degrees.numpy(), stats.uniform(-35, 70).cdf).pvalue > 1e-3


def test_a_plain_crop_shows_the_pixels_of_its_window():
    cropping = dataclasses.replace(PLAIN, crop_area=(0.04, 0.04))
    image = photo(80, 120)
    source = Crops("a", [image], 50, 16, 0, cropping)
    index = torch.arange(50)
    seen, windows = source.batch(index, CPU).warp(identity(50), 32), source.windows(index)
    for crop, window in zip(seen, windows, strict=True):
        for row, column in ((0, 0), (5, 21), (31, 31)):  # brute force: bilinear by hand at the window's own points
            at = torch.tensor([(2 * column + 1) / 32 - 1, (2 * row + 1) / 32 - 1, 1.0])
            x, y, _ = (window @ at).tolist()
            x, y = (x + 1) / 2 * 120 - 0.5, (y + 1) / 2 * 80 - 0.5
            left, top = int(x // 1), int(y // 1)
            if not (0 <= left < 119 and 0 <= top < 79):
                continue  # at the border the photo is mirrored
            u, v = x - left, y - top
            four = image[:, top : top + 2, left : left + 2].float() / 255
            truth = (four * torch.tensor([[(1 - u) * (1 - v), u * (1 - v)], [(1 - u) * v, u * v]])).sum((1, 2))
            torch.testing.assert_close(crop[:, row, column], truth, atol=2e-3, rtol=0)


def test_task_geometry_is_composed_into_one_resampling():
    source = Crops("a", [photo()], 8, 16, 0, PLAIN)
    index = torch.arange(8)
    zoom = affine(width=0.5, height=0.5, x=0.3, count=8)
    sharp = source.batch(index, CPU).warp(zoom, 32)
    window = source.windows(index) @ zoom
    from selftaught.augment.warp import Pyramid

    direct = Pyramid(photo()[None].float() / 255, octave=2).sample(window[None], 32)[0]
    torch.testing.assert_close(sharp, direct)


def test_photos_alternate_and_views_of_a_crop_share_its_photo():
    dark, bright = torch.zeros(3, 50, 50, dtype=torch.uint8), torch.full((3, 70, 40), 255, dtype=torch.uint8)
    source = Crops("a", [dark, bright], 10, 16, 0, PLAIN, classes=("dark", "bright"))
    batch = source.batch(torch.tensor([4, 1, 7, 2]), CPU)
    views = batch.warp(identity(4)[:, None].repeat(1, 3, 1, 1), 16)
    assert views.shape == (4, 3, 3, 16, 16)
    assert batch.targets["label"].tolist() == [0, 1, 1, 0]
    assert views.mean((1, 2, 3, 4)).round().tolist() == [0, 1, 1, 0]


def test_fingerprints_distinguish_sources():
    prints = {
        Crops("a", [p], n, 16, s, c).fingerprint
        for p in (photo(), photo(seed=1))
        for n in (10, 11)
        for s in (0, 1)
        for c in (Cropping(), PLAIN)
    }
    assert len(prints) == 16
    assert Crops("a", [photo()], 10, 16, 0).fingerprint == Crops("b", [photo()], 10, 16, 0).fingerprint


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop_area": (0, 1)},
        {"crop_area": (0.5, 0.1)},
        {"crop_jitter": 2},
        {"crop_shear": 90},
        {"crop_shear": -1},
        {"crop_rotation": -1},
        {"crop_rotation": 1e9},
        {"crop_ratio": (2, 1)},
    ],
)
def test_invalid_parameters_are_rejected(wrong):
    with pytest.raises(UserError, match=f"--{next(iter(wrong)).replace('_', '-')} must"):
        Cropping(**wrong)
