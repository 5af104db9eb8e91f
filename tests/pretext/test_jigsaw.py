import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from selftaught.augment.tiles import mosaic
from selftaught.encoders.convnet import ConvNet
from selftaught.encoders.inputs import require_input_sizes
from selftaught.errors import UserError
from selftaught.modules.permutations import distant_permutations
from selftaught.pretext.jigsaw import Jigsaw
from toys import ToyBatch, ToyEncoder, ToySource

BARE = {"normalize": False, "shift": 0.0, "grayscale": 0.0, "scale": (1.0, 1.0), "flip": False}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(images):
    return ToyBatch({"image": images}, torch.arange(len(images)), {}, len(images))


@pytest.fixture
def places():
    """Images whose red is x, whose green is y (0 to 1) and whose blue tells them apart."""
    ramp = (torch.arange(48) + 0.5) / 48
    x, y = ramp.expand(48, 48), ramp[:, None].expand(48, 48)
    return torch.stack([torch.stack([x, y, torch.full_like(x, 0.1 + 0.1 * n)]) for n in range(6)])


def made(task):
    torch.manual_seed(0)
    encoder = ToyEncoder(size=task.size)
    return encoder, task.heads(encoder, ToySource())


def test_tiles_come_row_by_row_from_their_own_cell_of_their_own_image(places):
    views = Jigsaw(size=48, **BARE).views(batch_of(places), generator())
    tiles = views["images"].reshape(6, 9, 3, 12, 12)
    centre = tiles.mean((3, 4))
    for place in range(9):
        row, column = divmod(place, 3)
        assert ((centre[:, place, 0] - (column + 0.5) / 3).abs() <= 1 / 24 + 1e-4).all()
        assert ((centre[:, place, 1] - (row + 0.5) / 3).abs() <= 1 / 24 + 1e-4).all()
    expected = 0.1 + 0.1 * torch.arange(6.0)[:, None].expand(6, 9)
    torch.testing.assert_close(centre[..., 2], expected, atol=1e-5, rtol=0)
    step = tiles[..., 0, :, 1:] - tiles[..., 0, :, :-1]
    torch.testing.assert_close(step, torch.full_like(step, 1 / 48), atol=1e-5, rtol=0)  # the zoom of the whole view


def test_without_a_gap_lines_go_on_from_tile_to_tile(places):
    views = Jigsaw(size=48, gap=0.0, **BARE).views(batch_of(places), generator())
    joined = mosaic(views["images"].reshape(6, 9, 3, 12, 12), gap=0)
    step = joined[:, 0, :, 1:] - joined[:, 0, :, :-1]
    torch.testing.assert_close(step, torch.full_like(step, 1 / 48), atol=1e-5, rtol=0)


def test_the_head_reads_every_puzzles_tiles_in_its_order():
    task = Jigsaw(size=16, permutations=50, puzzles=3)
    encoder, heads = made(task)
    views = task.views(ToySource().batch(torch.arange(5), torch.device("cpu")), generator())
    heads.eval(), encoder.eval()
    loss, outputs = task.loss(encoder, heads, views)
    known, right, losses = distant_permutations(9, 50), [], []
    for image in range(5):
        tiles = [heads["tile"](encoder(views["images"][9 * image + k][None]))[0] for k in range(9)]
        for asked in views["order"][image].tolist():
            answer = heads["order"](torch.cat([tiles[k] for k in known[asked].tolist()])[None])[0]
            losses.append(-answer.log_softmax(0)[asked])
            right.append(answer.argmax() == asked)
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    torch.testing.assert_close(outputs["accuracy"], torch.stack(right).float().mean())


def test_every_known_order_is_asked_for():
    task = Jigsaw(size=16, grid=2, tile=0.3, permutations=24, puzzles=100)
    order = task.views(ToySource().batch(torch.arange(12), torch.device("cpu")), generator())["order"]
    assert order.shape == (12, 100)
    assert (order.flatten().bincount(minlength=24) - 50).abs().max() < 5 * 50**0.5


class Oracle(nn.Module):
    """A head that knows the answers."""

    def __init__(self, answers, ways):
        super().__init__()
        self.answers = nn.functional.one_hot(answers, ways).float()

    def forward(self, laid):
        return self.answers


def test_a_solved_puzzle_is_shown_as_the_image_and_an_unsolved_one_is_not(places):
    task = Jigsaw(size=48, permutations=100, **BARE)
    encoder, heads = made(task)
    views = task.views(batch_of(places), generator())
    tiles, asked = views["images"].reshape(6, 9, 3, 12, 12), views["order"][:, 0]
    heads["order"] = Oracle(asked, 100)
    heads.eval()
    shown = task.visualize(encoder, heads, views)
    assert torch.equal(shown["laid"], mosaic(tiles))
    for image in range(6):
        shuffled = tiles[image][distant_permutations(9, 100)[asked[image]]]
        assert torch.equal(shown["puzzle"][image], mosaic(shuffled[None])[0])
    heads["order"] = Oracle((asked + 1) % 100, 100)
    assert not torch.equal(task.visualize(encoder, heads, views)["laid"], mosaic(tiles))


def test_each_guard_does_its_part_and_can_be_switched_off(places):
    def tiles(**changed):
        task = Jigsaw(size=48, **{**BARE, **changed})
        return task.views(batch_of(0.3 + 0.4 * places), generator())["images"]

    bare = tiles()
    grayscale = tiles(grayscale=1.0)
    torch.testing.assert_close(grayscale[:, 0], grayscale[:, 2])
    projected = tiles(project=1.0)
    assert (2 * projected[:, 1] - projected[:, 0] - projected[:, 2]).abs().max() < 1e-5
    assert (2 * bare[:, 1] - bare[:, 0] - bare[:, 2]).abs().max() > 0.1
    normalised = tiles(normalize=True)[:, :2]
    assert normalised.mean((2, 3)).std() < 1e-4 < bare.mean((2, 3))[:, :2].std()
    with pytest.raises(UserError, match=r"--shift must be from 0 to 0\.25, got 2\.0"):
        tiles(shift=2.0)
    shifted = tiles(shift=1 / 12)[:, :2]  # by at most a pixel, which on the ramps is 0.4 / 48
    assert 0 < (shifted - bare[:, :2]).abs().max() <= 0.4 / 48 + 1e-5


def test_puzzles_with_content_are_learned_and_those_without_stay_at_chance(places):
    """Ramps say where a tile lies; tiles of one colour say nothing, unless the order leaks past the pixels."""
    task = Jigsaw(size=48, grid=2, permutations=24, **BARE)
    encoder, heads = made(task)
    optimizer = torch.optim.Adam([*encoder.parameters(), *heads.parameters()], lr=1e-3)
    for step in range(30):
        loss, _ = task.loss(encoder, heads, task.views(batch_of(places), generator(step)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    encoder.eval(), heads.eval()

    def accuracy(images):
        fresh = task.views(batch_of(images.repeat(10, 1, 1, 1)), generator(1000))
        return float(task.loss(encoder, heads, fresh)[1]["accuracy"])

    assert accuracy(places) > 0.8
    flat = places.mean((2, 3), keepdim=True).expand_as(places)
    assert accuracy(flat) < 0.12  # chance 0.042, n = 240


def test_heads_built_twice_ask_the_same_orders():
    first, second = (Jigsaw(size=16, permutations=30).heads(ToyEncoder(), ToySource())["table"] for _ in range(2))
    assert torch.equal(first.permutations, second.permutations)
    first.permutations[0, 0] = 99  # what is loaded into one must not reach the other
    assert not torch.equal(first.permutations, second.permutations)
    assert distant_permutations(9, 30).max() == 8


def test_mistakes_are_one_sentence():
    with pytest.raises(UserError, match="between 2 and 24, the number of permutations of 4 tiles, got 100"):
        Jigsaw(grid=2)
    with pytest.raises(UserError, match="between 2 and 362,880, the number of permutations of 9 tiles, got 362,881"):
        Jigsaw(permutations=362_881)
    with pytest.raises(UserError, match="2 or 3 tiles per side, got 4"):
        Jigsaw(grid=4)
    with pytest.raises(UserError, match="must fit into the view"):
        Jigsaw(tile=0.4)
    with pytest.raises(UserError, match="--puzzles must be from 1 to"):
        Jigsaw(puzzles=0)
    with pytest.raises(UserError, match="--grayscale must be from 0 to 1, got 30"):
        Jigsaw(grayscale=30.0)
    with pytest.raises(UserError, match="scale"):
        Jigsaw(scale=(0.0, 1.0))
    with pytest.raises(UserError, match=r"cannot process tiles of 4 pixels: increase --size"):
        require_input_sizes(ConvNet(size=16), Jigsaw(size=16).view_sizes())


def test_one_image_is_enough_but_one_puzzle_in_a_batch_is_not():
    batch = ToySource().batch(torch.arange(1), torch.device("cpu"))
    task = Jigsaw(size=16, permutations=10)
    loss, _ = task.loss(*made(task), task.views(batch, generator()))
    assert loss.isfinite()
    single = Jigsaw(size=16, permutations=10, puzzles=1)
    with pytest.raises(UserError, match="at least two puzzles per batch, got one"):
        single.loss(*made(single), single.views(batch, generator()))


def test_the_trial_of_the_encoder_leaves_it_as_it_was():
    encoder = ConvNet(size=48)
    before = copy.deepcopy(encoder.state_dict())
    Jigsaw(size=48, permutations=10).heads(encoder, ToySource())
    assert encoder.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


@settings(max_examples=25, deadline=None, database=None)
@given(seed=st.integers(0, 2**32), contrast=st.floats(0.1, 4.0))
def test_projected_tiles_have_no_component_along_green_and_magenta_whatever_the_image(seed, contrast):
    """At high contrast most values are exactly 0 or 1, and projections of such colors lie outside of [0, 1]."""
    images = (contrast * torch.randn(2, 3, 32, 32, generator=generator(seed)) + 0.5).clamp(0, 1)
    task = Jigsaw(size=32, **{**BARE, "project": 1.0, "grayscale": 0.3, "shift": 1 / 8})
    tiles = task.views(batch_of(images), generator(seed))["images"]
    along = torch.einsum("c,nchw->nhw", torch.tensor([-1.0, 2.0, -1.0]), tiles)
    assert along.abs().max() < 1e-5
