import math

import pytest
import torch

from probe_toys import Given, Plain, half_red, noise
from selftaught.errors import UserError
from selftaught.evaluation.features import Viewing
from selftaught.evaluation.probes import RidgeProbe
from selftaught.evaluation.probes.base import held_out

VIEWING = Viewing(4, torch.device("cpu"))


def quiet(phase, images):
    pass


def ridge(*arguments):
    return RidgeProbe().evaluate(*arguments)


def test_what_a_hyperplane_parts_is_read_without_error():
    results = ridge(Plain(), half_red(400, seed=0), half_red(200, seed=1), VIEWING, 0, quiet)
    assert {name: result.accuracy for name, result in results.items()} == {"image": 1.0, "mean": 1.0}
    assert [result.dimensions for result in results.values()] == [48, 3]


def test_noise_is_read_at_chance():
    accuracy = ridge(Plain(), noise(400, seed=0), noise(2000, seed=1), VIEWING, 0, quiet)["image"].accuracy
    assert abs(accuracy - 0.5) < 4 * math.sqrt(0.25 / 2000)


def test_test_images_choose_nothing():
    train, test = half_red(100, seed=0), half_red(100, seed=1)
    for source in (train, test):
        source.images += 0.5 * torch.randn(source.images.shape, generator=torch.Generator().manual_seed(2))
    opposite = Given(test.images, 1 - test.labels)
    first, second = (ridge(Plain(), train, judge, VIEWING, 0, quiet) for judge in (test, opposite))
    for name in first:
        assert first[name].penalty == second[name].penalty
        assert first[name].accuracy == pytest.approx(1 - second[name].accuracy)
        assert first[name].accuracy > 0.6


def test_results_do_not_depend_on_the_batch_size():
    train, test = noise(100, seed=0), noise(100, seed=1)
    small = Viewing(4, torch.device("cpu"), batch_size=7, rows=20)
    whole, parts = (ridge(Plain(), train, test, viewing, 0, quiet) for viewing in (VIEWING, small))
    for name in whole:
        assert whole[name].correct.equal(parts[name].correct)
        assert (whole[name].held_out, whole[name].penalty) == (parts[name].held_out, parts[name].penalty)


def test_held_out_is_a_tenth_by_seed():
    assert [int(held_out(n, 0).sum()) for n in (1, 10, 11, 1000, 10**6)] == [1, 1, 2, 100, 5000]
    assert held_out(1000, 0).equal(held_out(1000, 0))
    assert not held_out(1000, 0).equal(held_out(1000, 1))


def test_too_few_labels_are_told():
    train, test = half_red(100, seed=0), half_red(100, seed=1)
    train.labels[~held_out(100, 0)] = -1
    with pytest.raises(UserError, match="others to hold out, but given has 10 in all"):
        ridge(Plain(), train, test, VIEWING, 0, quiet)
    test.labels[:] = -1
    with pytest.raises(UserError, match="labeled test images, but given has none"):
        ridge(Plain(), half_red(100, seed=0), test, VIEWING, 0, quiet)
