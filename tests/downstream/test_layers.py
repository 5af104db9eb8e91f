import io
import json

import pytest
import torch
from probe_toys import Given, Plain, Small, half_red, noise
from rich.console import Console

from selftaught.downstream import Recipe, probe_layers, render
from selftaught.downstream.baselines import Pixels, calibrate
from selftaught.downstream.features import Viewing
from selftaught.downstream.knn import knn
from selftaught.downstream.table import from_json
from selftaught.errors import UserError

CPU = torch.device("cpu")


def unequal():
    """Test images of which two thirds are of class b."""
    source = noise(90, seed=1)
    source.labels = (torch.arange(90) % 3 > 0).long()
    return source


def test_table_holds_every_layer_beside_its_baselines():
    found = probe_layers(
        Plain(), lambda seed: Plain(), half_red(200, seed=0), half_red(100, seed=1), size=4, progress=False
    )
    table = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert {"data", "metric", "chance", "pixels", "layers", "spread", "train", "test", "protocol"} <= set(table)
    assert [row["layer"] for row in table["layers"]] == ["image", "mean"]
    assert set(table["layers"][0]) == {"layer", "accuracy", "std", "random", "random_std", "dimensions", "lambda"}
    assert table["layers"][0]["accuracy"] == table["layers"][0]["random"] == table["pixels"] == 1.0
    assert table["layers"][0]["std"] is None
    assert (table["metric"], table["train"], table["test"]) == ("accuracy", 200, 100)
    assert table["spread"] == "One probe, so no spread is known."


def test_chance_is_the_most_frequent_test_class():
    table = probe_layers(Plain(), lambda seed: Plain(), noise(50, seed=0), unequal(), size=4, progress=False)
    assert table.chance == pytest.approx(60 / 90)


def test_seeds_draw_other_weights_and_their_spread_is_told():
    asked = []

    def fresh(seed):
        asked.append(seed)
        return Small(seed)

    train, test = half_red(100, seed=0), half_red(100, seed=1)
    train.images += 0.6 * torch.rand(train.images.shape, generator=torch.Generator().manual_seed(2))
    table = probe_layers(Small(9), fresh, train, test, size=4, seeds=3, progress=False)
    assert asked == [0, 1, 2]
    assert table.layers[0].random_std > 0
    assert table.layers[0].std is not None
    assert "over 3 probes" in table.spread


def test_known_baselines_are_not_measured_again_and_change_nothing():
    train, test = half_red(100, seed=0), half_red(100, seed=1)
    train.images += 0.6 * torch.rand(train.images.shape, generator=torch.Generator().manual_seed(2))
    whole = probe_layers(Small(9), Small, train, test, size=4, seeds=2, progress=False)
    earlier = probe_layers(Small(8), Small, train, test, size=4, seeds=2, progress=False)
    kept = from_json(json.loads(json.dumps(earlier.to_json())))
    assert kept == earlier
    again = probe_layers(Small(9), None, train, test, size=4, seeds=2, baselines=kept, progress=False)
    assert (again.pixels, again.best.random, again.best.random_std) == (
        whole.pixels,
        whole.best.random,
        whole.best.random_std,
    )
    assert again.best.accuracy == pytest.approx(whole.best.accuracy, abs=0.02)  # sums in another order
    assert abs(earlier.best.accuracy - whole.best.accuracy) > 0.05
    with pytest.raises(ValueError, match="another probe"):
        probe_layers(Small(9), None, train, test, size=4, seeds=1, baselines=kept, progress=False)


@pytest.mark.parametrize("protocol", ["fast", "paper", "knn"])
def test_protocols_agree_on_what_is_easy(protocol):
    table = probe_layers(
        Plain(),
        lambda seed: Plain(),
        half_red(200, seed=0),
        half_red(100, seed=1),
        size=4,
        protocol=protocol,
        recipe=Recipe(epochs=10, learning_rate=0.5),
        progress=False,
    )
    assert table.best.accuracy >= 0.99
    assert table.protocol == protocol


def test_rendered_table_shows_the_numbers():
    table = probe_layers(Plain(), lambda seed: Plain(), noise(50, seed=0), unequal(), size=4, progress=False)
    out = io.StringIO()
    Console(file=out, width=100).print(render(table))
    text = out.getvalue()
    for number in (table.layers[0].accuracy, table.layers[1].random, table.pixels, table.chance):
        assert f"{number:.3f}" in text


def test_mistakes_are_told():
    train = half_red(50, seed=0)
    other = Given(train.images, train.labels, ("cat", "dog"))
    with pytest.raises(UserError, match=r"must have the classes .* found \('cat', 'dog'\)"):
        probe_layers(Plain(), lambda seed: Plain(), train, other, size=4, progress=False)
    with pytest.raises(UserError, match="at least 1, found 0"):
        probe_layers(Plain(), lambda seed: Plain(), train, train, size=4, seeds=0, progress=False)
    with pytest.raises(UserError, match="no protocol called 'fats': did you mean fast"):
        probe_layers(Plain(), lambda seed: Plain(), train, train, size=4, protocol="fats", progress=False)


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
    assert Pixels(192).features(images)["pixels"].equal(images)
    torch.testing.assert_close(
        Pixels(48).features(images)["pixels"], torch.nn.functional.interpolate(images, scale_factor=0.5, mode="area")
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
    found = knn(Plain(), train, test, viewing, lambda doing, images: asked.append(images), neighbors=9)
    assert list(found) == ["image", "mean"]
    assert all(reading.accuracy == pytest.approx(right / 40) for reading in found.values())  # of a map, its mean
    assert all(reading.dimensions == 3 for reading in found.values())
    assert sum(asked) == 100
    assert right / 40 > 0.9
    by_chance = knn(Plain(), noise(60, seed=0), noise(2000, seed=1), viewing, lambda *_: None)
    assert by_chance["mean"].accuracy == pytest.approx(0.5, abs=0.05)
    assert knn(Pixels(48), train, test, viewing, lambda *_: None)["pixels"].dimensions == 48  # positions are kept


def test_an_encoder_is_recalibrated_on_whole_training_images_only_where_asked():
    train, test = half_red(60, seed=0), half_red(40, seed=1)
    encoder, tables = Small(), []
    for recalibrate in (False, True):
        tables.append(probe_layers(encoder, Small, train, test, size=4, recalibrate=recalibrate, progress=False))
        said = io.StringIO()
        Console(file=said, width=200).print(render(tables[-1]))
        assert ("set anew on whole training images" in said.getvalue()) is recalibrate
        assert tables[-1].to_json()["recalibrated"] is recalibrate
        seen = encoder.convolution(train.images).mean((0, 2, 3)) if recalibrate else torch.zeros(4)
        torch.testing.assert_close(encoder.norm.running_mean, seen, rtol=1e-4, atol=1e-5)
    plain = probe_layers(Plain(), lambda seed: Plain(), train, test, size=4, recalibrate=True, progress=False)
    assert not plain.recalibrated  # it has nothing to set
