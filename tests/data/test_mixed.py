"""Rendered and real images in one source."""

import pytest
import torch

from selftaught.augment.warp import affine, identity
from selftaught.data.mixed import MixedSource
from toys import ToySource

CPU = torch.device("cpu")


@pytest.fixture
def sources() -> tuple[ToySource, ToySource]:
    return ToySource(10), ToySource(4, seed=1)


def test_even_images_are_rendered_and_odd_ones_real(sources):
    rendered, real = sources
    mixed = MixedSource(rendered, real)
    assert len(mixed) == 20
    assert mixed.targets == {"depth", "normals", "contours", "real"}
    indices = torch.tensor([3, 0, 19, 8, 4, 1])
    batch = mixed.batch(indices, CPU)
    assert batch.targets["real"].tolist() == [True, False, True, False, False, True]
    images = batch.warp(identity(6), 16)
    for row, index in enumerate(indices.tolist()):
        source, place = (real, index // 2 % 4) if index % 2 else (rendered, index // 2)
        torch.testing.assert_close(images[row], source.images[place], atol=1e-5, rtol=0)
        for name in ("depth", "normals", "contours"):
            expected = torch.zeros_like(source.dense[name][place]) if index % 2 else source.dense[name][place]
            torch.testing.assert_close(batch.targets[name][row], expected)


def test_targets_are_warped_as_in_a_source_of_their_own(sources):
    rendered, real = sources
    matrix = affine(degrees=torch.tensor([20.0, -10.0, 50.0]), width=0.7, height=0.7, count=3)
    batch = MixedSource(rendered, real).batch(torch.tensor([2, 5, 6]), CPU)
    alone = rendered.batch(torch.tensor([1, 3]), CPU)
    for name in ("depth", "normals", "contours"):
        warped = batch.warp(matrix, 8, of=name)
        torch.testing.assert_close(warped[[0, 2]], alone.warp(matrix[[0, 2]], 8, of=name))
        assert not warped[1].any()


@pytest.mark.parametrize("indices", [[0, 2, 4], [1, 3]])
def test_a_batch_may_have_one_kind_only(sources, indices):
    batch = MixedSource(*sources).batch(torch.tensor(indices), CPU)
    assert batch.warp(identity(len(indices)), 8).shape == (len(indices), 3, 8, 8)
    assert batch.warp(identity(len(indices)), 8, of="normals").shape == (len(indices), 3, 8, 8)
    assert len(batch.targets["depth"]) == len(indices)


def test_the_fingerprint_depends_on_both(sources):
    rendered, real = sources
    other = ToySource(4, seed=2)
    other.fingerprint = "other"
    fingerprints = {MixedSource(*pair).fingerprint for pair in ((rendered, real), (rendered, other), (other, real))}
    assert len(fingerprints) == 3
