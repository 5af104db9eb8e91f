import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF

from selftaught.augment.tiles import (
    grid_tiles,
    mosaic,
    normalize_tiles,
    pixelate,
    require_fit,
    shift_channels,
    tile_pixels,
)
from selftaught.augment.warp import affine, identity, resample
from selftaught.encoders.preprocess import make_preprocess
from selftaught.errors import UserError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.rand(5, 3, 64, 64, generator=generator())


def edges(matrix):
    """Left, right, top, bottom of each window as shares of the view: four of (B, grid, grid)."""
    grid = round(matrix.shape[1] ** 0.5)
    x, y = ((matrix[..., i, 2] + 1) / 2 for i in (0, 1))
    w, h = (matrix[..., i, i] / 2 for i in (0, 1))
    return [e.reshape(len(matrix), grid, grid) for e in (x - w, x + w, y - h, y + h)]


def test_tiles_without_gaps_are_the_blocks_of_the_image_row_by_row(images):
    cut = grid_tiles(5, generator(), grid=4, tile=1 / 4, gap=0.0)
    tiles = resample(images, cut, 16)
    for place in range(16):
        row, column = divmod(place, 4)
        block = images[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        torch.testing.assert_close(tiles[:, place], block, atol=1e-5, rtol=0)


def test_tiles_of_a_crop_equal_tiles_of_the_cropped_image(images):
    crop = affine(width=0.5, height=0.5, x=0.5, y=-0.5, flip=1.0, count=5)  # top right quarter, mirrored
    cut = grid_tiles(5, generator(), grid=2, tile=1 / 2, gap=0.0)
    tiles = resample(images, crop[:, None] @ cut, 16)
    quarter = images[:, :, :32, 32:].flip(3)
    blocks = [quarter[:, :, r : r + 16, c : c + 16] for r in (0, 16) for c in (0, 16)]
    torch.testing.assert_close(tiles, torch.stack(blocks, 1), atol=1e-5, rtol=0)


def test_default_grid_matches_the_paper():
    left, right, top, bottom = (255 * e for e in edges(grid_tiles(4000, generator())))
    torch.testing.assert_close(right - left, torch.full_like(left, 63.75), atol=1e-3, rtol=0)
    cell = 85 * torch.arange(3)
    assert (left >= cell - 1e-3).all()
    assert (right <= cell + 85 + 1e-3).all()
    assert (top >= cell[:, None] - 1e-3).all()
    assert (bottom <= cell[:, None] + 85 + 1e-3).all()
    gaps = left[:, :, 1:] - right[:, :, :-1]  # the sum of two uniform offsets: 0 to 42.5, mean 21.25
    assert 0 <= gaps.min() < 2
    assert 40 < gaps.max() <= 42.5 + 1e-3
    assert abs(gaps.mean() - 21.25) < 0.25
    first = left[:, 0, 0]  # uniform in the cell: nothing of the place within it can be foretold
    assert abs(first.std() - 21.25 / 12**0.5) < 0.2


@pytest.mark.parametrize("grid", [2, 3])
@pytest.mark.parametrize(("tile", "gap", "jitter"), [(0.2, 0.1, 0.0), (0.25, 0.08, 0.04), (0.1, 0.0, 0.3), (0.2, 0, 0)])
def test_tiles_stay_inside_the_view_and_the_grid_spans_it(grid, tile, gap, jitter):
    left, right, top, bottom = edges(grid_tiles(3000, generator(), grid=grid, tile=tile, gap=gap, jitter=jitter))
    assert min(left.min(), top.min()) >= -1e-6
    assert max(right.max(), bottom.max()) <= 1 + 1e-6
    room = 1 - (grid * tile + (grid - 1) * gap)
    assert left[:, 0, 0].min() < 0.1 * room
    assert left[:, 0, 0].max() > 0.9 * room - 1e-6
    if jitter == 0:  # then the grid is rigid
        torch.testing.assert_close(left[:, 0, 1] - right[:, 0, 0], torch.full((3000,), float(gap)), atol=1e-5, rtol=0)


def test_margin_extends_the_same_tile(images):
    plain = resample(images, grid_tiles(5, generator(3), tile=16 / 64, gap=0.08), 16)
    wide = resample(images, grid_tiles(5, generator(3), tile=16 / 64, gap=0.08, margin=2 / 64), 20)
    torch.testing.assert_close(wide[..., 2:-2, 2:-2], plain, atol=1e-4, rtol=0)


def test_channels_are_shifted_independently_by_whole_pixels():
    tiles = torch.rand(600, 3, 9, 9, generator=generator())
    shifted = shift_channels(tiles, 1, generator())
    found = torch.full((600, 3), -1)
    for down in range(3):
        for right in range(3):
            same = (shifted == tiles[..., down : down + 7, right : right + 7]).all(3).all(2)
            found[same] = 3 * down + right
    assert (found >= 0).all()  # every channel is its own picture, moved
    for channel in found.T:
        assert (channel.bincount(minlength=9) - 600 / 9).abs().max() < 40  # in all nine ways alike (5 deviations)
    alike = (found[:, 0] == found[:, 1]).float().mean()
    assert abs(alike - 1 / 9) < 0.07  # and not together
    assert shift_channels(tiles, 0, generator()) is tiles


def test_normalization_is_per_tile_and_channel():
    tiles = torch.rand(4, 3, 6, 6, generator=generator())
    array = tiles.numpy().astype(np.float64)
    z = (array - array.mean((2, 3), keepdims=True)) / array.std((2, 3), keepdims=True)
    torch.testing.assert_close(normalize_tiles(tiles), torch.from_numpy(0.449 + 0.226 * z).float(), atol=1e-5, rtol=0)


def test_rms_and_mean_normalization_use_the_whole_tile():
    tiles = torch.rand(4, 3, 6, 6, generator=generator())
    for tile, rms, mean in zip(tiles, normalize_tiles(tiles, "rms"), normalize_tiles(tiles, "mean"), strict=True):
        off = tile - sum(tile.flatten().tolist()) / 108
        square = sum(value * value for value in off.flatten().tolist()) / 108
        torch.testing.assert_close(mean, 0.449 + off)
        torch.testing.assert_close(rms, 0.449 + 0.226 * off / square**0.5)
    assert normalize_tiles(tiles, "none") is tiles


def test_normalization_removes_brightness_contrast_and_tint_and_has_the_expected_range():
    tiles = torch.rand(4, 3, 8, 8, generator=generator())
    tint = torch.tensor([0.5, 0.7, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(normalize_tiles(tiles * tint + 0.1), normalize_tiles(tiles), atol=1e-4, rtol=0)
    seen = make_preprocess("color")(normalize_tiles(tiles))
    assert seen.mean((2, 3)).abs().max() < 0.25
    assert (seen.std((2, 3)) - 1).abs().max() < 0.1


def test_constant_tiles_are_not_amplified():
    flat = torch.full((1, 3, 8, 8), 0.3)
    torch.testing.assert_close(normalize_tiles(flat), torch.full_like(flat, 0.449))
    rounding = flat + torch.randint(0, 2, flat.shape, generator=generator()) / 255
    assert normalize_tiles(rounding).std() < 0.1


def test_pixelation_agrees_with_torchvision_and_keeps_other_tiles():
    tiles = torch.rand(4, 3, 16, 16, generator=generator())
    got = pixelate(tiles, torch.tensor([1.0, 0, 1, 0]), 5)
    theirs = TF.resize(TF.resize(tiles, [5, 5], antialias=True), [16, 16])
    torch.testing.assert_close(got[::2], theirs[::2], atol=1e-5, rtol=0)
    assert torch.equal(got[1::2], tiles[1::2])


def test_mosaic_places_every_tile_at_its_position():
    tiles = 2 * torch.rand(2, 9, 3, 4, 4, generator=generator()) - 0.5
    picture = mosaic(tiles, gap=1)
    assert picture.shape == (2, 3, 14, 14)
    for place in range(9):
        row, column = divmod(place, 3)
        there = picture[:, :, 5 * row : 5 * row + 4, 5 * column : 5 * column + 4]
        assert torch.equal(there, tiles[:, place].clamp(0, 1))
    assert (picture[:, :, 4] == 1).all()
    assert mosaic(tiles, gap=0).shape == (2, 3, 12, 12)


def test_invalid_grids_raise_a_user_error():
    with pytest.raises(UserError, match=r"at least 3 pixels per side, got 2 .* increase --size"):
        tile_pixels(8, 0.25)
    with pytest.raises(UserError, match="must fit into the view"):
        require_fit(3, 0.3, 0.1, 0.0)
    with pytest.raises(UserError, match="at least 2 tiles per side, got 1"):
        require_fit(1, 0.3, 0.1, 0.0)
    with pytest.raises(UserError, match="--tile must be above 0"):
        grid_tiles(1, generator(), tile=0.0)
    assert tile_pixels(96, 0.25) == 24
    assert tile_pixels(100, 0.23) == 23


def test_one_tile_may_cover_the_whole_view(images):
    """Identity is the limit of a grid: what a tile shows has the zoom of the whole view."""
    cut = grid_tiles(5, generator(), grid=2, tile=0.5, gap=0.0)
    tiles = resample(images, cut, 32)
    torch.testing.assert_close(mosaic(tiles, gap=0), resample(images, identity(5), 64), atol=1e-5, rtol=0)
