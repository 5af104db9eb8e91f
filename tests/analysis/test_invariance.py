"""Invariance: encoders of which it is known what they see past, and the share written out as a loop."""

import json

import pytest
import torch
from torch import nn

from probe_toys import Given, Plain, Small, noise
from selftaught.analysis.invariance import BINS, distances, invariance
from selftaught.analysis.transforms import TRANSFORMS, slight_affine
from selftaught.contracts import Encoder, Layer
from selftaught.errors import UserError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(count: int = 12, side: int = 12) -> Given:
    """Random colours without steps between neighbouring pixels."""
    coarse = torch.rand(count, 3, 3, 3, generator=generator())
    images = nn.functional.interpolate(coarse, size=side, mode="bilinear", align_corners=True)
    return Given(images, torch.zeros(count, dtype=torch.int64), None)


def test_slight_changes_stay_within_the_image():
    matrices = slight_affine(4000, generator())
    corners = torch.tensor([[x, y, 1.0] for x in (-1.0, 1) for y in (-1.0, 1)]).T
    assert (matrices @ corners)[:, :2].abs().max() <= 1 + 1e-6
    places = matrices[:, :2, 2]
    assert places.abs().max() <= 0.15
    assert (places.abs() > 0.03).float().mean() > 0.3  # and there is room to move


def copies(name: str, source: Given, size: int = 12) -> torch.Tensor:
    return TRANSFORMS[name](source.batch(torch.arange(len(source)), torch.device("cpu")), size, generator())


def test_the_share_is_that_of_a_loop():
    images = nn.functional.normalize(torch.randn(15, 4, generator=generator(1)), dim=1)
    moved = nn.functional.normalize(images + 0.5 * torch.randn(15, 4, generator=generator(2)), dim=1)
    found, own, others = distances(images, moved)
    nearer = 0
    for i in range(15):
        for j in range(15):
            nearer += i != j and (images[i] - images[j]).norm() < (images[i] - moved[i]).norm()
    assert found == pytest.approx(float(nearer) / (15 * 14))
    assert 0.02 < found < 0.98
    assert own.sum() == 15
    assert others.sum() == 15 * 14 / 2
    expected = torch.histc(torch.pdist(images), BINS, 0, 2).long()
    assert torch.equal(others, expected)


def test_a_copy_like_its_image_is_nearest_and_any_other_image_is_half_way():
    images = nn.functional.normalize(torch.randn(400, 8, generator=generator()), dim=1)
    strangers = nn.functional.normalize(torch.randn(400, 8, generator=generator(1)), dim=1)
    assert distances(images, images)[0] == 0
    assert distances(images, strangers)[0] == pytest.approx(0.5, abs=0.03)
    assert distances(images, -images)[0] == 1


def test_images_that_are_all_alike_say_nothing():
    images = torch.ones(5, 1)
    assert distances(images, images)[0] == 0.5


def test_turns_are_rot90_of_each_image():
    source = smooth()
    for image, copy in zip(source.images, copies("rotation", source), strict=True):
        assert any(torch.allclose(torch.rot90(image, k, (1, 2)), copy, atol=1e-5) for k in (1, 2, 3))


def test_a_puzzle_has_the_nine_tiles_of_its_image_elsewhere():
    source = smooth()
    for image, copy in zip(source.images, copies("jigsaw", source), strict=True):
        tiles = [[picture[:, r : r + 4, c : c + 4] for r in (0, 4, 8) for c in (0, 4, 8)] for picture in (image, copy)]
        places = [next(i for i, tile in enumerate(tiles[1]) if torch.allclose(tile, was)) for was in tiles[0]]
        assert sorted(places) == list(range(9))
        assert places != list(range(9))


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("size", [8, 12])
def test_copies_are_images_of_the_size_and_none_is_its_own_image(name, size):
    source = smooth(side=size)
    changed = copies(name, source, size)
    assert changed.shape == (12, 3, size, size)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert ((changed - source.images).abs().flatten(1).amax(1) > 0.01).all()
    assert torch.equal(changed, copies(name, source, size))


class Means(Encoder):
    """Says the mean colour, which no turn and no puzzle changes, and the colour of the upper left corner."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.input_mode, self.preprocess = (
            {"mean": Layer(3, 0), "corner": Layer(3, 0)},
            "color",
            nn.Identity(),
        )

    def features(self, seen):
        return {"mean": seen.mean((2, 3)), "corner": seen[:, :, 0, 0]}


def test_a_mean_sees_past_turns_and_puzzles_and_a_corner_does_not():
    found = invariance(Means(), lambda seed: Means(), smooth(60), size=12)
    nearer = {(row.layer, row.change): row.nearer for row in found.rows}
    assert nearer["mean", "rotation"] == nearer["mean", "jigsaw"] == 0
    assert nearer["corner", "rotation"] > 0.2
    assert nearer["corner", "jigsaw"] > 0.2
    assert all(row.random == row.nearer for row in found.rows)


def test_the_table_is_json_and_repeats_itself():
    def asked():
        torch.manual_seed(0)  # the bias of Small
        return json.loads(json.dumps(invariance(Small(), Small, noise(40, 0, 8), size=8, seeds=2).to_json()))

    table = asked()
    assert (table["chance"], table["images"], table["seeds"], table["recalibrated"]) == (0.5, 40, 2, False)
    assert [(row["layer"], row["change"]) for row in table["rows"]] == [("only", name) for name in TRANSFORMS]
    assert all(row["std"] is not None and sum(row["own"]) == 40 for row in table["rows"])
    assert table == asked()


def test_statistics_are_set_anew_only_where_asked_and_where_there_are_any():
    encoder, source = Small(), noise(40, 0, 8)
    invariance(encoder, Small, source, size=8)
    assert (encoder.norm.running_mean == 0).all()
    assert invariance(encoder, Small, source, size=8, recalibrate=True).recalibrated
    assert (encoder.norm.running_mean != 0).all()
    assert not invariance(Plain(), lambda seed: Plain(), source, size=8, recalibrate=True).recalibrated


def test_one_image_and_features_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match=r"at least 2 images, but .* has 1"):
        invariance(Plain(), lambda seed: Plain(), noise(1, 0), size=4)
    with pytest.raises(UserError, match="contain infinity or NaN"):
        distances(torch.tensor([[float("nan")], [1.0]]), torch.ones(2, 1))
