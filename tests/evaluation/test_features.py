import pytest
import torch

from probe_toys import Given, Plain, half_red
from selftaught.errors import UserError
from selftaught.evaluation.features import Viewing, grid, layer_features, pool

CPU = torch.device("cpu")


def test_grid_is_the_largest_that_fits():
    for channels in (1, 3, 64, 96, 300, 10000):
        for side in (1, 5, 32):
            fitting = [g for g in range(1, side + 1) if channels * g * g <= 9600]
            assert grid(channels, side) == max(fitting, default=1)


@pytest.mark.parametrize(
    ("channels", "side", "dimensions"),
    [
        # Zhang et al. 2016 and Asano et al. 2020, AlexNet conv1 to conv5
        *[(96, 55, 9600), (256, 27, 9216), (384, 13, 9600), (256, 13, 9216)],
        # Gidaris et al. 2018, conv1 to conv5
        *[(64, 55, 9216), (192, 27, 9408)],
        # Goyal et al. 2019, ResNet-50 stem to res5
        *[(64, 112, 9216), (256, 56, 9216), (512, 28, 8192), (1024, 14, 9216), (2048, 7, 8192)],
    ],
)
def test_default_dimensions_are_those_of_the_papers(channels, side, dimensions):
    assert channels * grid(channels, side) ** 2 == dimensions


@pytest.mark.parametrize("kind", ["average", "max", "bilinear"])
def test_every_pooling_gives_the_papers_sizes_of_alexnet(kind):
    maps = [(96, 55), (256, 27), (384, 13), (384, 13), (256, 13)]
    sizes = [pool(torch.zeros(1, channels, side, side), 9600, kind).shape[1] for channels, side in maps]
    assert sizes == [9600, 9216, 9600, 9600, 9216]


def test_bilinear_pooling_interpolates_between_four_positions():
    feature = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    # Centers of a 2 x 2 grid lie in the middle of each quarter of the map, between its four positions.
    quarters = [feature[0, 0, y : y + 2, x : x + 2].mean() for y in (0, 2) for x in (0, 2)]
    torch.testing.assert_close(pool(feature, 4, "bilinear")[0], torch.stack(quarters))
    feature = torch.arange(36.0).view(1, 1, 6, 6)
    # A linear ramp is reproduced at the centers of thirds: columns 0.5, 2.5, 4.5.
    expected = [6 * y + x for y in (0.5, 2.5, 4.5) for x in (0.5, 2.5, 4.5)]
    torch.testing.assert_close(pool(feature, 9, "bilinear")[0], torch.tensor(expected))


@pytest.mark.parametrize(("kind", "reduce"), [("max", torch.amax), ("average", torch.mean)])
def test_pool_by_brute_force(kind, reduce):
    feature = torch.randn(2, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    by_hand = torch.stack(
        [reduce(feature[:, :, y : y + 2, x : x + 2], dim=(2, 3)) for y in (0, 2, 4) for x in (0, 2, 4)], dim=-1
    )
    torch.testing.assert_close(pool(feature, 45, kind), by_hand.flatten(1))


def test_pool_averages_positions_and_leaves_vectors():
    feature = torch.randn(2, 7, 5)
    torch.testing.assert_close(pool(feature), feature.sum(1) / 7)
    torch.testing.assert_close(pool(feature[:, 0].double()), feature[:, 0])


def test_features_do_not_depend_on_how_images_are_batched():
    source = half_red(23, seed=0)
    for batch_size, rows in [(4, 8), (5, 23), (100, 100)]:
        parts = list(layer_features(Plain(), source, Viewing(4, CPU, batch_size=batch_size, rows=rows)))
        assert all(len(part.index) <= rows for part in parts)
        assert torch.cat([part.index for part in parts]).equal(torch.arange(23))
        assert torch.cat([part.labels for part in parts]).equal(source.labels)
        torch.testing.assert_close(torch.cat([part.layers["image"] for part in parts]), source.images.flatten(1))


def test_unlabeled_images_are_left_out():
    source = half_red(10, seed=0)
    source.labels[3] = -1
    (part,) = layer_features(Plain(), source, Viewing(4, CPU))
    assert part.index.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    torch.testing.assert_close(part.layers["mean"], source.images[part.index].mean((2, 3)))


def test_features_that_are_not_finite_are_the_encoders_fault():
    source = half_red(10, seed=0)
    source.images[3] = torch.nan
    with pytest.raises(UserError, match="layer image contain infinity or NaN"):
        list(layer_features(Plain(), source, Viewing(4, CPU)))


def test_missing_labels_and_a_single_class_are_told():
    images = torch.rand(4, 3, 4, 4)
    with pytest.raises(UserError, match="given has none: use a --data folder"):
        list(layer_features(Plain(), Given(images, torch.zeros(4), None), Viewing(4, CPU)))
    with pytest.raises(UserError, match="at least 2 classes, but given has 1"):
        list(layer_features(Plain(), Given(images, torch.zeros(4), ("a",)), Viewing(4, CPU)))
