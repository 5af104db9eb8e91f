import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console

from probe_toys import Given, Plain, Small, half_red, noise
from selftaught.encoders.pixels import Pixels
from selftaught.errors import UserError
from selftaught.evaluation import (
    KNNProbe,
    LogisticProbe,
    MLPProbe,
    RidgeProbe,
    SGDProbe,
    SVMProbe,
    probe_layers,
    render,
)
from selftaught.evaluation.baselines.encoders import calibrate
from selftaught.evaluation.features import Viewing
from selftaught.evaluation.probes import name_of
from selftaught.evaluation.table import data_name

CPU = torch.device("cpu")


def unequal():
    """Test images of which two thirds are of class b."""
    source = noise(90, seed=1)
    source.labels = (torch.arange(90) % 3 > 0).long()
    return source


def probed(encoder, fresh, train, test, **more):
    return probe_layers(encoder, fresh, train, test, size=4, progress=False, **more)


def lines(table):
    """The table as people see it, on one line."""
    out = io.StringIO()
    Console(file=out, width=400).print(render(table))
    return " ".join(out.getvalue().split())


def test_table_holds_every_layer_and_its_baselines():
    found = probed(Plain(), lambda seed: Plain(), half_red(200, seed=0), half_red(100, seed=1))
    table = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert {"data", "metric", "chance", "pixels", "layers", "spread", "train", "test", "probe"} <= set(table)
    assert [row["layer"] for row in table["layers"]] == ["image", "mean"]
    assert {"accuracy", "std", "held_out", "random", "random_std", "random_held_out", "dimensions", "lambda"} <= set(
        table["layers"][0]
    )
    assert table["layers"][0]["accuracy"] == table["layers"][0]["random"] == table["pixels"] == 1.0
    assert table["layers"][0]["std"] is None
    assert (table["metric"], table["train"], table["test"]) == ("accuracy", 200, 100)
    assert table["gain"]["value"] == 0
    assert table["gain"]["low"] < 0 < table["gain"]["high"]
    assert table["spread"] == "Random weights: mean ± standard deviation over 3 random initializations."


def test_chance_is_the_most_frequent_test_class():
    table = probe_layers(Plain(), lambda seed: Plain(), noise(50, seed=0), unequal(), size=4, progress=False)
    assert table.chance == pytest.approx(60 / 90)


def hard(count, seed):
    """Two classes that overlap."""
    source = half_red(count, seed)
    source.images += 0.6 * torch.rand(source.images.shape, generator=torch.Generator().manual_seed(seed + 100))
    return source


def test_three_initializations_are_probed_whatever_the_number_of_seeds():
    for seeds in (1, 2):
        drawn = []

        def fresh(seed, drawn=drawn):
            drawn.append(seed)
            return Small(seed)

        table = probed(Small(9), fresh, hard(100, 0), hard(100, 1), seeds=seeds)
        assert drawn == [0, 1, 2]
        assert table.layers[0].random_std > 0
        assert (table.layers[0].std is None) == (seeds == 1)
        assert "over 3 random initializations" in table.spread
        assert ("over 2 probe seeds" in table.spread) == (seeds == 2)
        assert table.observations.trained.shape == (seeds, 1, 100)
        assert table.observations.random.shape == (3, 1, 100)


def test_the_random_row_is_the_mean_of_initializations_probed_one_by_one():
    train, test = hard(100, 0), hard(100, 1)
    together = probed(Small(9), Small, train, test)
    alone = [
        probed(Small(9), lambda _, s=s: Small(s), train, test, initializations=1).layers[0].random for s in range(3)
    ]
    assert together.layers[0].random == pytest.approx(sum(alone) / 3)
    assert together.layers[0].random_std == pytest.approx(torch.tensor(alone, dtype=torch.float64).std().item())


@pytest.mark.parametrize("probe", [RidgeProbe(), SGDProbe(epochs=2, learning_rate=0.1), KNNProbe(k=5)])
def test_test_images_never_choose_the_layer(probe):
    """With wrong test labels the worst layer would look best; the choice must stay that of the training images."""
    train, test = half_red(200, 0), half_red(100, 1)
    train.images[:, 1:] = test.images[:, 1:] = 0.5  # only red differs

    class Two(Plain):
        def features(self, seen):
            return {"image": seen[:, 1:], "mean": seen.mean((2, 3))}  # green and blue say nothing

    opposite = Given(test.images, 1 - test.labels)
    tables = [probed(Two(), lambda seed: Two(), train, judge, probe=probe) for judge in (test, opposite)]
    assert [table.gain.layer for table in tables] == ["mean", "mean"]
    assert [table.gain.random_layer for table in tables] == ["mean", "mean"]
    assert tables[0].best.value > 0.95
    assert tables[1].best.value < 0.05
    assert tables[0].best.held_out == tables[1].best.held_out > 0.9


def test_correctness_of_every_test_image_is_kept():
    test = hard(100, 1)
    test.labels[3] = -1
    table = probed(Small(9), Small, hard(100, 0), test)
    with np.load(io.BytesIO(table.observations.npz())) as kept:
        assert kept["trained"].shape == (1, 1, 99)
        assert kept["trained"].mean() == pytest.approx(table.layers[0].value)
        assert kept["random"].mean() == pytest.approx(table.layers[0].random)
        assert kept["pixels"].mean() == pytest.approx(table.pixels)
        assert kept["labels"].tolist() == test.labels[test.labels >= 0].tolist()
        assert kept["layers"].tolist() == ["only"]


def test_the_table_says_how_many_test_images_were_in_pretraining():
    train, test = hard(100, 0), hard(100, 1)
    assert "unknown whether the test images" in lines(probed(Small(9), Small, train, test))
    test.ids = torch.arange(100)
    for overlap, seen in ((torch.arange(90, 300), 10), (torch.arange(100, 300), 0)):
        table = probed(Small(9), Small, train, test, pretraining_ids=overlap)
        assert table.overlap == table.to_json()["overlap"] == seen
        warning = "Warning: 10 of 100 test images were part of the (unlabeled) pretraining set."
        assert (warning in lines(table)) == (seen == 10)


def test_copies_of_training_images_among_the_test_images_are_counted():
    """Only those with a label: others are neither trained on nor tested."""
    train, test = hard(100, 0), hard(100, 1)
    train.ids, test.ids = torch.arange(100), torch.arange(90, 190)
    assert "10 of 100 test images are copies of labeled training images" in lines(probed(Small(9), Small, train, test))
    train.labels[95:] = -1
    assert "Warning: 5 of 100 test images are copies" in lines(probed(Small(9), Small, train, test))
    test.ids = torch.arange(100, 200)
    assert "copies" not in lines(probed(Small(9), Small, train, test))


def test_few_test_images_are_said_to_be_too_few_and_digits_follow_their_number():
    table = probed(Small(9), Small, hard(100, 0), hard(6, 1))
    assert "6 test images are too few: the 95 % interval is ±0." in lines(table)
    assert f"{table.layers[0].random:.2f} ±" in lines(table)
    assert f"{table.layers[0].random:.3f}" not in lines(table)


def test_the_sgd_probe_says_how_images_were_cropped():
    for side, words in ((4, "shifted by up to 1/8"), (8, "random 4-pixel crops of 8-pixel images")):
        train, test = half_red(40, 0, side), half_red(40, 1, side)
        table = probed(Plain(), lambda seed: Plain(), train, test, probe=SGDProbe(epochs=1))
        assert words in lines(table)
    assert "crops" not in lines(probed(Plain(), lambda seed: Plain(), train, test))


@pytest.mark.parametrize(
    "probe",
    [
        RidgeProbe(),
        LogisticProbe(),
        SVMProbe(),
        KNNProbe(),
        SGDProbe(epochs=10, learning_rate=0.5),
        MLPProbe(epochs=60, hidden=20),
    ],
    ids=lambda probe: name_of(probe),
)
def test_probes_agree_on_what_is_easy(probe):
    table = probe_layers(
        Plain(),
        lambda seed: Plain(),
        half_red(200, seed=0),
        half_red(100, seed=1),
        size=4,
        probe=probe,
        progress=False,
    )
    assert table.best.value >= 0.99
    assert table.probe == name_of(probe)


def test_rendered_table_shows_the_numbers():
    table = probed(Plain(), lambda seed: Plain(), noise(50, seed=0), unequal())
    said = lines(table)
    for number in (table.layers[0].value, table.layers[1].random, table.pixels, table.chance):
        assert f"{number:.2f}" in said
    assert "Top-1 accuracy (ridge probe) on 90 test images of given" in said
    neighbors = probed(Plain(), lambda seed: Plain(), noise(50, 0), unequal(), probe=KNNProbe(k=9), seeds=2)
    assert "k-NN is deterministic" in lines(neighbors)
    assert neighbors.seeds == 1  # probes of the encoder: another one would be the same
    assert neighbors.to_json()["settings"] == {"k": 9, "temperature": 0.07}


@pytest.mark.parametrize(
    ("source", "name"),
    [("a/b (train)", "a/b"), ("b (train, 80 % of every class)", "b"), ("b (2)", "b (2)"), ("b (test)", "b")],
)
def test_a_title_names_the_images_without_their_split(source, name):
    assert data_name(source) == name


def test_mistakes_are_told():
    train = half_red(50, seed=0)
    other = Given(train.images, train.labels, ("cat", "dog"))
    with pytest.raises(UserError, match="the same classes, but given has a, b and given has cat, dog"):
        probe_layers(Plain(), lambda seed: Plain(), train, other, size=4, progress=False)
    with pytest.raises(UserError, match="from 1 to 1,000, got 0"):
        probe_layers(Plain(), lambda seed: Plain(), train, train, size=4, seeds=0, progress=False)
    with pytest.raises(UserError, match="no probe called 'rigde': did you mean ridge"):
        probe_layers(Plain(), lambda seed: Plain(), train, train, size=4, probe="rigde", progress=False)


def test_calibration_sets_the_statistics_of_whole_images_and_nothing_else():
    encoder, source = Small(), half_red(64, seed=0)
    weights = [weight.clone() for weight in encoder.parameters()]
    encoder.norm.momentum = 0.3
    calibrate(encoder, noise(64, seed=1), 4, CPU)  # must be forgotten
    calibrate(encoder, source, 4, CPU)
    seen = encoder.convolution(source.images)
    torch.testing.assert_close(encoder.norm.running_mean, seen.mean((0, 2, 3)))
    torch.testing.assert_close(encoder.norm.running_var, seen.var((0, 2, 3), correction=1), rtol=1e-3, atol=1e-5)
    assert all(old.equal(new) for old, new in zip(weights, encoder.parameters(), strict=True))
    assert encoder.norm.momentum == 0.3
    assert not encoder.norm.training


def test_pixels_are_the_image_averaged_where_it_is_too_large():
    images = torch.rand(2, 3, 8, 8)
    assert Pixels(pooled_side=8).features(images)["pixels"].equal(images)
    torch.testing.assert_close(
        Pixels(pooled_side=4).features(images)["pixels"],
        torch.nn.functional.interpolate(images, scale_factor=0.5, mode="area"),
    )


def test_neighbours_vote_by_similarity():
    train, test = half_red(60, seed=0), half_red(40, seed=1)
    features, queries = (torch.nn.functional.normalize(s.images.mean((2, 3)), dim=1) for s in (train, test))
    right = 0
    for query, label in zip(queries, test.labels, strict=True):
        votes = [0.0, 0.0]
        for similarity, voter in sorted(zip((features @ query).tolist(), train.labels.tolist(), strict=True))[-9:]:
            votes[voter] += torch.tensor(similarity / 0.07).exp().item()
        right += int(votes[1] > votes[0]) == int(label)

    viewing, asked = Viewing(4, CPU), []
    probe = KNNProbe(k=9)
    found = probe.evaluate(Plain(), train, test, viewing, 0, lambda phase, images: asked.append(images))
    assert list(found) == ["image", "mean"]
    assert all(reading.accuracy == pytest.approx(right / 40) for reading in found.values())  # of a map, its mean
    assert all(reading.dimensions == 3 for reading in found.values())
    assert sum(asked) == 100
    assert right / 40 > 0.9
    by_chance = KNNProbe().evaluate(Plain(), noise(60, seed=0), noise(2000, seed=1), viewing, 0, lambda *_: None)
    assert by_chance["mean"].accuracy == pytest.approx(0.5, abs=0.05)
    pixels = KNNProbe().evaluate(Pixels(), train, test, viewing, 0, lambda *_: None)["pixels"]
    assert pixels.dimensions == 48  # positions are kept


def test_an_encoder_is_recalibrated_on_whole_training_images_only_where_asked():
    train, test = half_red(60, seed=0), half_red(40, seed=1)
    encoder, tables = Small(), []
    for recalibrate in (False, True):
        tables.append(probe_layers(encoder, Small, train, test, size=4, recalibrate=recalibrate, progress=False))
        said = io.StringIO()
        Console(file=said, width=200).print(render(tables[-1]))
        assert ("recomputed on whole training images" in " ".join(said.getvalue().split())) is recalibrate
        assert tables[-1].to_json()["recalibrated"] is recalibrate
        seen = encoder.convolution(train.images).mean((0, 2, 3)) if recalibrate else torch.zeros(4)
        torch.testing.assert_close(encoder.norm.running_mean, seen, rtol=1e-4, atol=1e-5)
    plain = probe_layers(Plain(), lambda seed: Plain(), train, test, size=4, recalibrate=True, progress=False)
    assert not plain.recalibrated  # it has nothing to set
