import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from selftaught.encoders.convnet import ConvNet
from selftaught.encoders.inputs import require_input_sizes
from selftaught.errors import UserError
from selftaught.pretext.context import Context, pairs
from toys import ToyBatch, ToyEncoder, ToySource

BARE = {"normalize": "none", "color": "keep", "pixelate": 0.0, "scale": (1.0, 1.0), "flip": False}
COMPASS = ["north-west", "north", "north-east", "west", "east", "south-west", "south", "south-east"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(images):
    return ToyBatch({"image": images}, torch.arange(len(images)), {}, len(images))


@pytest.fixture
def places():
    """Six images whose red is x, whose green is y (0 to 1)."""
    ramp = (torch.arange(48) + 0.5) / 48
    x, y = ramp.expand(48, 48), ramp[:, None].expand(48, 48)
    return torch.stack([x, y, torch.full_like(x, 0.5)]).repeat(6, 1, 1, 1)


def made(task):
    torch.manual_seed(0)
    encoder = ToyEncoder(size=task.size)
    return encoder, task.heads(encoder, ToySource())


def direction_between(first, second):
    """The compass says where the second lies, from two (x, y); y points down."""
    north = {-1: "north", 0: "", 1: "south"}[(second[1] > first[1]) - (second[1] < first[1])]
    west = {-1: "west", 0: "", 1: "east"}[(second[0] > first[0]) - (second[0] < first[0])]
    return f"{north}-{west}".strip("-")


@pytest.mark.parametrize("grid", [2, 3, 4])
def test_all_neighbours_are_paired_in_both_orders_with_the_right_direction(grid):
    found = set(map(tuple, pairs(grid).tolist()))
    expected = set()
    for first in range(grid**2):
        for second in range(grid**2):
            (y1, x1), (y2, x2) = divmod(first, grid), divmod(second, grid)
            if first != second and abs(x1 - x2) <= 1 and abs(y1 - y2) <= 1:
                expected.add((first, second, COMPASS.index(direction_between((x1, y1), (x2, y2)))))
    assert found == expected
    assert len(found) == {2: 12, 3: 40, 4: 84}[grid]


def test_the_direction_is_that_between_what_the_tiles_show(places):
    task = Context(size=48, **BARE)
    shown = task.views(batch_of(places), generator())["images"].reshape(6, 9, 3, 12, 12).mean((3, 4))
    for first, second, direction in pairs(3).tolist():
        right, down = (shown[:, second] - shown[:, first])[:, :2].unbind(1)
        pitch, stray = 12 / 48 + 0.1, 2 * 0.0167 + 1e-4
        for moved, axis in ((right, ("west", "east")), (down, ("north", "south"))):
            sign = (axis[1] in COMPASS[direction]) - (axis[0] in COMPASS[direction])
            assert ((moved - sign * pitch).abs() <= stray).all()


def test_tiles_stray_as_far_as_in_the_paper_and_never_meet():
    task = Context()
    assert task.jitter == pytest.approx(task.tile * 7 / 96, abs=2e-3)
    assert task.gap > 2 * task.jitter + task.tile / 4


@pytest.mark.parametrize("size", [64, 96, 128, 256])
def test_images_from_64_pixels_on_have_tiles_that_the_default_encoder_reads(size):
    Context(size=size).heads(ConvNet(size=size), ToySource())


def test_the_loss_is_the_mean_over_directions_written_out():
    task = Context(size=16, pixelate=0.0)
    encoder, heads = made(task)
    encoder.eval(), heads.eval()
    views = task.views(ToySource().batch(torch.arange(4), torch.device("cpu")), generator())
    loss, outputs = task.loss(encoder, heads, views)
    entropies, right = {d: [] for d in range(8)}, {d: [] for d in range(8)}
    for image in range(4):
        tiles = [heads["tile"](encoder(views["images"][9 * image + k][None]))[0] for k in range(9)]
        for first, second, direction in pairs(3).tolist():
            answer = heads["pair"](torch.cat([tiles[first], tiles[second]])[None])[0]
            entropies[direction].append(F.cross_entropy(answer, torch.tensor(direction)))
            right[direction].append((answer.argmax() == direction).float())
    torch.testing.assert_close(loss, torch.stack([torch.stack(e).mean() for e in entropies.values()]).mean())
    expected = torch.stack([torch.stack(r).mean() for r in right.values()]).mean()
    torch.testing.assert_close(outputs["accuracy"], expected)


def test_whoever_always_gives_one_answer_scores_chance():
    task = Context(size=16)
    encoder, heads = made(task)
    views = task.views(ToySource().batch(torch.arange(4), torch.device("cpu")), generator())
    heads["pair"][-1].weight.data.zero_()
    for answer in range(8):
        heads["pair"][-1].bias.data = F.one_hot(torch.tensor(answer), 8).float()
        assert task.loss(encoder, heads, views)[1]["accuracy"] == pytest.approx(
            task.chance(ToySource(), 12)["accuracy"]
        )


@pytest.mark.parametrize("normalize", ["color", "none"])
def test_dropping_leaves_one_colour_of_each_tile(places, normalize):
    bare = {**BARE, "normalize": normalize}
    kept = Context(size=48, **bare).views(batch_of(places), generator())["images"]
    dropped = Context(size=48, **{**bare, "color": "drop"}).views(batch_of(places), generator())["images"]
    same = (dropped == kept).flatten(2).all(2)
    assert (same.sum(1) == 1).all()
    assert len(same.int().argmax(1).unique()) == 3  # which colour differs from tile to tile
    left, noise = kept[same][:, None], dropped[~same].unflatten(0, (-1, 2))
    mean, deviation = left.mean((2, 3), keepdim=True), left.std((2, 3), keepdim=True)
    about = ((noise - mean) / deviation)[deviation.flatten() > 1e-3]  # one colour is flat
    assert abs(about.std() - 0.01) < 0.001  # "about 1/100" of the deviation of the colour that is left
    assert abs(about.mean()) < 1e-3


def test_each_guard_can_be_switched_off(places):
    def tiles(**changed):
        return Context(size=48, **{**BARE, **changed}).views(batch_of(0.3 + 0.4 * places), generator())["images"]

    bare, projected = tiles(), tiles(color="project")
    assert (2 * projected[:, 1] - projected[:, 0] - projected[:, 2]).abs().max() < 1e-5
    assert (2 * bare[:, 1] - bare[:, 0] - bare[:, 2]).abs().max() > 0.1
    # On a ramp the shrunk and magnified tile differs at its rim alone, where there is nothing to go on from.
    changed = (tiles(pixelate=0.5) - bare).abs().amax((1, 2, 3)) > 1e-4
    assert 0.2 < changed.float().mean() < 0.8
    normalised = tiles(normalize="color")[:, :2]
    assert normalised.mean((2, 3)).std() < 1e-4 < bare.mean((2, 3))[:, :2].std()


def test_directions_are_learned_from_what_tiles_show(places):
    """Ramps say where a tile lies; tiles of one colour say nothing. Fresh views each step."""
    task = Context(size=48, **BARE)
    encoder, heads = made(task)
    optimizer = torch.optim.Adam([*encoder.parameters(), *heads.parameters()], lr=1e-3)
    for step in range(60):
        loss, _ = task.loss(encoder, heads, task.views(batch_of(places), generator(step)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    encoder.eval(), heads.eval()

    def accuracy(images):
        return float(task.loss(encoder, heads, task.views(batch_of(images), generator(1000)))[1]["accuracy"])

    assert accuracy(places) > 0.9
    assert accuracy(torch.full_like(places, 0.5)) == pytest.approx(1 / 8)


def test_one_image_is_enough():
    task = Context(size=16)
    loss, _ = task.loss(*made(task), task.views(ToySource().batch(torch.arange(1), torch.device("cpu")), generator()))
    assert loss.isfinite()


def test_mistakes_are_one_sentence():
    with pytest.raises(UserError, match="must fit into the view"):
        Context(tile=0.3)
    with pytest.raises(UserError, match="--pixelate must be from 0 to 1"):
        Context(pixelate=2.0)
    with pytest.raises(UserError, match="at least 2 tiles per side, got 1"):
        Context(grid=1)
    with pytest.raises(UserError, match=r"at least 3 pixels per side, got 2 .* increase --size"):
        Context(size=8).views(ToySource().batch(torch.arange(2), torch.device("cpu")), generator())
    with pytest.raises(UserError, match=r"cannot process tiles of 4 pixels"):
        require_input_sizes(ConvNet(size=16), Context(size=16).view_sizes())


@settings(max_examples=25, deadline=None, database=None)
@given(seed=st.integers(0, 2**32), contrast=st.floats(0.1, 4.0))
def test_projected_tiles_have_no_component_along_green_and_magenta_whatever_the_image(seed, contrast):
    """At high contrast most values are exactly 0 or 1, and projections of such colors lie outside of [0, 1]."""
    images = (contrast * torch.randn(2, 3, 32, 32, generator=generator(seed)) + 0.5).clamp(0, 1)
    task = Context(size=32, **{**BARE, "color": "project", "pixelate": 0.5})
    tiles = task.views(batch_of(images), generator(seed))["images"]
    along = torch.einsum("c,nchw->nhw", torch.tensor([-1.0, 2.0, -1.0]), tiles)
    assert along.abs().max() < 1e-5
