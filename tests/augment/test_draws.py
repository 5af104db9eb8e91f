"""Draws for a part of a batch are rows of those for the whole batch."""

import pytest
import torch

from selftaught.augment.color import random_color
from selftaught.augment.draws import OnlyTheseDraws, PartGenerator, common, rand, randint, randn
from selftaught.augment.masks import block_masks, free_masks
from selftaught.augment.tiles import grid_tiles, shift_channels
from selftaught.augment.warp import random_crop

PICTURES = torch.rand(12, 3, 12, 12, generator=torch.Generator().manual_seed(5))
DRAWN = {
    "uniform": lambda count, generator: rand(count, 5, generator=generator),
    "normal": lambda count, generator: randn(3 * count, 2, generator=generator),
    "integers": lambda count, generator: randint(100, count, generator=generator),
    "images along the second axis": lambda count, generator: rand(2, count, 3, generator=generator, axis=1).transpose(
        0, 1
    ),
    "crops": lambda count, generator: random_crop(count, generator, scale=(0.2, 1.0)),
    "colors": lambda count, generator: torch.cat(random_color(count, generator, grayscale=0.2), 2),
    "blocks": lambda count, generator: block_masks(count, 9, generator),
    "free masks": lambda count, generator: free_masks(count, 9, generator),
    "tiles": lambda count, generator: grid_tiles(count, generator),
    "channels": lambda count, generator: shift_channels(PICTURES[:1].expand(count, -1, -1, -1), 2, generator),
}


@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize("name", DRAWN)
def test_parts_together_are_the_whole(name, parts):
    draw = DRAWN[name]
    generator = torch.Generator().manual_seed(3)
    whole = [draw(12, generator) for _ in range(2)]
    generators = [PartGenerator(part, parts).manual_seed(3) for part in range(parts)]
    for expected in whole:
        found = torch.cat([draw(12 // parts, each) for each in generators])
        assert torch.equal(found, expected)


def test_the_helpers_draw_what_torch_draws():
    generator, other = (torch.Generator().manual_seed(1) for _ in range(2))
    assert torch.equal(rand(3, 4, generator=generator), torch.rand(3, 4, generator=other))
    assert torch.equal(randn(5, generator=generator), torch.randn(5, generator=other))
    assert torch.equal(randint(9, 5, 2, generator=generator), torch.randint(9, (5, 2), generator=other))
    assert common(generator) is generator


def test_common_numbers_are_those_of_one_process_between_other_draws():
    def drawn(count, generator):
        first = rand(count, generator=generator)
        return first, torch.randperm(20, generator=common(generator)), rand(count, generator=generator)

    first, order, last = drawn(4, torch.Generator().manual_seed(2))
    for part in range(2):
        mine = drawn(2, PartGenerator(part, 2).manual_seed(2))
        assert torch.equal(mine[1], order)
        assert torch.equal(mine[0], first[2 * part : 2 * part + 2])
        assert torch.equal(mine[2], last[2 * part : 2 * part + 2])


@pytest.mark.parametrize(
    "draw",
    [
        lambda generator: torch.rand(4, generator=generator),
        lambda generator: torch.randint(4, (4,), generator=generator),
        lambda generator: torch.empty(4).uniform_(generator=generator),
        lambda generator: torch.randperm(4, generator=generator),
    ],
)
def test_direct_draws_from_a_part_are_an_error(draw):
    with OnlyTheseDraws(), pytest.raises(TypeError, match=r"augment\.draws"):
        draw(PartGenerator(0, 2).manual_seed(1))
    with OnlyTheseDraws():
        draw(torch.Generator())
