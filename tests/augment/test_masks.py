from itertools import pairwise

import pytest
import torch

from selftaught.augment.masks import block_masks, center_masks, center_side, free_masks, rim
from selftaught.errors import UserError

RANDOM = {"blocks": block_masks, "free": free_masks}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def border(masks: torch.Tensor) -> torch.Tensor:
    """How many neighbours in a row or column are not alike, per mask."""
    down = masks[..., 1:, :] != masks[..., :-1, :]
    across = masks[..., 1:] != masks[..., :-1]
    return down.flatten(1).sum(1) + across.flatten(1).sum(1)


@pytest.mark.parametrize(("size", "share", "side"), [(32, 0.25, 16), (128, 0.25, 64), (9, 0.25, 5), (3, 0.01, 1)])
def test_center_mask_is_a_centered_square(size, share, side):
    masks = center_masks(2, size, share)
    low = (size - side) // 2
    expected = [[low <= y < low + side and low <= x < low + side for x in range(size)] for y in range(size)]
    assert center_side(size, share) == side
    assert torch.equal(masks, torch.tensor(expected).expand(2, 1, size, size))
    assert torch.equal(masks, masks.flip(2, 3))


def test_masks_leave_a_border_for_every_fraction():
    assert center_masks(1, 8, 0.999)[0, 0].sum() == 36


@pytest.mark.parametrize("kind", RANDOM)
def test_masks_depend_on_the_seed_and_differ_between_views(kind):
    masks = RANDOM[kind](20, 16, seeded(3))
    torch.manual_seed(1)
    assert masks.shape == (20, 1, 16, 16)
    assert masks.dtype == torch.bool
    assert torch.equal(masks, RANDOM[kind](20, 16, seeded(3)))
    assert not torch.equal(masks, RANDOM[kind](20, 16, seeded(4)))
    assert len(masks.flatten(1).unique(dim=0)) > 15


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_one_block_is_a_rectangle_with_sides_in_range(share):
    largest = 32 * share**0.5
    heights = set()
    for mask in block_masks(300, 32, seeded(), share=share, blocks=1)[:, 0]:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        assert mask[top:bottom, left:right].all()
        assert mask.sum() == (bottom - top) * (right - left)
        assert {int(bottom - top), int(right - left)} <= set(range(int(largest / 2), int(largest) + 1))
        heights.add(int(bottom - top))
    assert {int(largest / 2), int(largest)} - heights <= {int(largest)}  # both ends are met, the upper nearly


@pytest.mark.parametrize(("size", "blocks"), [(16, 4), (32, 4), (32, 9), (33, 2)])
def test_blocks_cover_at_most_their_fraction_and_reach_every_position(size, blocks):
    masks = block_masks(4000, size, seeded(), share=0.25, blocks=blocks)
    covered = masks.flatten(1).float().mean(1)
    assert covered.max() <= 0.25
    assert covered.min() > 0
    assert covered.mean() > 0.08
    assert masks.any(0).all()
    corner, opposite = masks[:, 0, 0, 0].float().mean(), masks[:, 0, -1, -1].float().mean()
    assert abs(corner - opposite) < 4 * (2 * corner / 4000) ** 0.5 + 1e-3


@pytest.mark.parametrize(("size", "share"), [(16, 0.25), (32, 0.25), (31, 0.4), (3, 0.01), (3, 0.99)])
def test_free_masks_hide_their_fraction_to_a_pixel(size, share):
    hidden = free_masks(64, size, seeded(), share=share).flatten(1).sum(1)
    assert (hidden == min(max(1, round(share * size**2)), size**2 - 1)).all()


def test_free_masks_are_connected_regions_at_every_position():
    masks = free_masks(3000, 32, seeded())
    specks = torch.rand(3000, 1, 32, 32, generator=seeded()) < 0.25
    squares = center_masks(1, 32)
    assert border(masks).float().mean() < 0.5 * border(specks).float().mean()
    assert (border(masks) > border(squares)).float().mean() > 0.9  # nor are they compact
    # Every pixel is hidden about as often, those of the border as those of the middle.
    often = masks.float().mean(0)
    assert often.min() > 0.2
    assert often.max() < 0.3


def test_fewer_cells_make_larger_regions():
    borders = [border(free_masks(500, 32, seeded(), cells=cells)).float().mean() for cells in (2, 4, 8, 16)]
    assert all(1.5 * fewer < more for fewer, more in pairwise(borders))


def test_free_masks_have_the_same_regions_at_every_size():
    small, large = free_masks(20, 32, seeded()), free_masks(20, 128, seeded())
    shrunk = torch.nn.functional.avg_pool2d(large.float(), 4) > 0.5
    assert (small == shrunk).float().mean() > 0.95


@pytest.mark.parametrize("width", [0, 1, 2])
def test_rim_is_the_visible_pixels_within_a_distance(width):
    masks = free_masks(3, 10, seeded())
    expected = torch.zeros_like(masks)
    for image in range(3):
        hidden = masks[image, 0].nonzero().tolist()
        for y in range(10):
            for x in range(10):
                away = min(max(abs(y - v), abs(x - u)) for v, u in hidden)
                expected[image, 0, y, x] = 0 < away <= width
    assert torch.equal(rim(masks, width), expected)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_fractions_of_0_and_1_are_rejected(share):
    with pytest.raises(UserError, match=f"got {share:g}"):
        center_masks(1, 16, share)


@pytest.mark.parametrize("kind", RANDOM)
def test_views_too_small_to_be_masked_are_rejected(kind):
    with pytest.raises(UserError, match="views to be masked must have at least 3 pixels per side, got 2"):
        RANDOM[kind](1, 2, seeded())
