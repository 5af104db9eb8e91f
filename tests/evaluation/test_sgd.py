import math

import pytest
import torch

from probe_toys import Given, Plain, Small, half_red, noise
from selftaught.evaluation.features import Viewing
from selftaught.evaluation.probes import SGDProbe
from selftaught.evaluation.probes.trained import eval_crops, shifted_crop

VIEWING = Viewing(4, torch.device("cpu"), batch_size=32)


def quiet(phase, images):
    pass


def evaluated(encoder, train, test, viewing, seed, on_progress, probe):
    return probe.evaluate(encoder, train, test, viewing, seed, on_progress)


def test_learns_what_a_hyperplane_parts_and_nothing_from_noise():
    probe = SGDProbe(epochs=4, learning_rate=0.5)
    results = evaluated(Plain(), half_red(300, seed=0), half_red(200, seed=1), VIEWING, 0, quiet, probe)
    assert results["mean"].accuracy == 1.0
    assert results["image"].accuracy > 0.98
    accuracy = evaluated(Plain(), noise(300, seed=0), noise(1000, seed=1), VIEWING, 0, quiet, probe)["mean"].accuracy
    assert abs(accuracy - 0.5) < 4 * math.sqrt(0.25 / 1000)


def test_test_images_are_normalised_by_the_training_images():
    """All of one class: their own mean would hide what tells them from the other."""
    test = half_red(300, seed=1)
    test = Given(test.images[test.labels == 1], test.labels[test.labels == 1])
    probe = SGDProbe(epochs=4, learning_rate=0.5)
    assert evaluated(Plain(), half_red(300, seed=0), test, VIEWING, 0, quiet, probe)["mean"].accuracy == 1.0


def test_same_seed_same_reading_and_the_encoder_stays_as_it_was():
    encoder, train, test = Small(), noise(96, seed=0), noise(96, seed=1)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    first, again = (evaluated(encoder, train, test, VIEWING, 3, quiet, SGDProbe(epochs=2)) for _ in range(2))
    assert first["only"].correct.equal(again["only"].correct)
    assert first["only"].held_out == again["only"].held_out
    assert all(value.equal(before[name]) for name, value in encoder.state_dict().items())


def test_rate_follows_the_schedule():
    probe = SGDProbe()
    epochs = [probe.rate(epoch / 28, 512) for epoch in (0, 7.99, 8, 15.99, 16, 23.99, 24, 27.99)]
    assert epochs == pytest.approx([0.02, 0.02, 0.002, 0.002, 2e-4, 2e-4, 2e-5, 2e-5])


@pytest.mark.parametrize(("side", "size"), [(256, 224), (40, 32)])
def test_crops_are_windows_inside_the_image(side, size):
    matrix = shifted_crop(2000, side, size, torch.Generator().manual_seed(0))
    corners = matrix @ torch.tensor([[-1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]])
    assert corners[:, :2].abs().max() <= 1 + 1e-6
    assert corners[:, :2].abs().max() > 0.99  # and they reach the border
    pixels = (corners[:, :2, 1] - corners[:, :2, 0]) * side / 2
    torch.testing.assert_close(pixels.abs(), torch.full((2000, 2), float(size)))
    assert 900 < int((pixels[:, 0] < 0).sum()) < 1100  # half are mirrored
    assert (pixels[:, 1] > 0).all()


def test_small_images_move_by_an_eighth():
    centre = shifted_crop(2000, 32, 32, torch.Generator().manual_seed(0))[:, :2, 2] * 16  # in pixels
    assert 3.9 < centre.abs().max() <= 4


def test_ten_crops_are_the_center_and_four_corners_with_their_mirror_images():
    corners = torch.tensor([[-1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]])
    found = set()
    for matrix in eval_crops(3, 224 / 256, True):
        assert matrix.shape == (3, 3, 3)
        left, right = ((matrix[0] @ corners)[0] * 128 + 128).tolist()
        top, bottom = ((matrix[0] @ corners)[1] * 128 + 128).tolist()
        found.add((round(left), round(right), round(top), round(bottom)))
    spans = [(0, 224), (32, 256)]
    boxes = [(x, y) for x in spans for y in spans] + [((16, 240), (16, 240))]
    assert found == {(*x[:: 1 - 2 * flip], *y) for x, y in boxes for flip in (0, 1)}
    assert len(eval_crops(3, 1.0, True)) == 2
    assert len(eval_crops(3, 0.5, False)) == 1


def test_ten_crops_average_the_probabilities():
    """Of a mirrored pair: scores no longer depend on the side that the image faces."""
    train = noise(64, seed=0)
    train.images[:, :, :, :2] += train.labels.view(-1, 1, 1, 1)  # the left half shows the class
    test = noise(64, seed=1)
    mirrored = Given(test.images.flip(3), test.labels)
    plain, ten = SGDProbe(epochs=3, learning_rate=0.5), SGDProbe(epochs=3, learning_rate=0.5, ten_crop=True)
    scores = [
        [evaluated(Plain(), train, t, VIEWING, 0, quiet, p)["image"].scores for t in (test, mirrored)]
        for p in (plain, ten)
    ]
    assert (scores[0][0] - scores[0][1]).abs().max() > 0.01
    torch.testing.assert_close(scores[1][0], scores[1][1])
    average = torch.stack([scores[0][0].exp(), scores[0][1].exp()]).mean(0)
    torch.testing.assert_close(scores[1][0].exp(), average)
