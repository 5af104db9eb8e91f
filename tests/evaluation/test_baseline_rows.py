"""Further baselines of a probe, each at its best layer."""

import io
import json
import sys

import pytest
import torch
from rich.console import Console
from torch import nn

from probe_toys import Plain, Small, noise
from selftaught.contracts import Layer
from selftaught.encoders import make_encoder
from selftaught.errors import UserError
from selftaught.evaluation import RidgeProbe, baseline_rows, probe_layers, render
from selftaught.evaluation.baseline_rows import DEFAULT
from selftaught.evaluation.baselines import FIXED, prepare
from selftaught.evaluation.features import Viewing
from selftaught.evaluation.intervals import paired_interval

CPU = torch.device("cpu")
SETTING = {"name": "small"}


class Deep(Small):
    """Two layers, of which the second one only has the mean."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        nn.init.zeros_(self.convolution.bias)
        self.layers = {"map": Layer(4, 1), "mean": Layer(4, 0)}

    def features(self, inputs):
        maps = super().features(inputs)["only"]
        return {"map": maps, "mean": maps.mean((2, 3))}


class Transposed(Small):
    """An encoder that k-means cannot initialize."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.convolution = nn.ConvTranspose2d(3, 4, 3, padding=1)


def sources():
    """Overlapping classes, so that accuracies differ."""
    train, test = noise(120, 0, side=8), noise(80, 1, side=8)
    for source in (train, test):
        source.images[:, 0] += 0.06 * source.labels[:, None, None]
    return train, test


def probed(encoder=None, fresh=Deep, **more):
    return probe_layers(encoder or Deep(9), fresh, *sources(), size=8, progress=False, initializations=1, **more)


def alone(name, encoder):
    """The results of a baseline by layer, without the table."""
    train, test = sources()
    encoder.fit(train)
    prepare(name, encoder, train, 8, CPU, seed=0)
    return RidgeProbe().evaluate(encoder, train, test, Viewing(8, CPU, RidgeProbe.dimensions), 0, lambda *_: None)


def text(table):
    out = io.StringIO()
    Console(file=out, width=400).print(render(table))
    return out.getvalue()


@pytest.mark.parametrize("name", ["kmeans", "pca", "dictionary", "scattering"])
def test_a_row_is_the_baseline_at_its_best_layer_by_held_out_accuracy(name):
    if name == "scattering":
        pytest.importorskip("kymatio")
    found = alone(name, make_encoder(name, size=8) if name in FIXED else Deep(0))
    best = max(found, key=lambda layer: found[layer].held_out)
    table = probed(baselines=(name,))
    (row,) = json.loads(json.dumps(table.to_json()))["baselines"]
    assert (row["name"], row["layer"]) == (name, best)
    assert row["accuracy"] == pytest.approx(found[best].accuracy, abs=1e-9)
    assert row["held_out"] == pytest.approx(found[best].held_out)
    possible = {
        layer for layer, each in found.items()
        if paired_interval(found[best].held_correct[None], each.held_correct[None])[0] <= 0
    }  # fmt: skip
    assert row["layers"] == [layer for layer in found if layer in possible]
    ours = dict(zip(table.observations.layers, torch.from_numpy(table.observations.trained[0]), strict=True))
    intervals = [
        paired_interval(ours[layer][None], found[other].correct[None])
        for layer in table.gain.layers for other in possible
    ]  # fmt: skip
    assert row["difference"] == pytest.approx(
        {
            "value": table.best.value - row["accuracy"],
            "low": min(low for low, _ in intervals),
            "high": max(high for _, high in intervals),
        }
    )
    assert len(intervals) > 1 or name == "dictionary"  # few held-out images: the choice is uncertain
    assert f"Best layer minus {row['title']}: {row['difference']['value']:+.2f} (95 % interval" in text(table)
    assert table.observations.baselines.tolist() == [found[best].correct.tolist()]
    (line,) = [line for line in text(table).splitlines() if f"{row['title']} ({best})" in line]
    assert f"{row['accuracy']:.2f}" in line


def test_other_rows_do_not_change():
    plain, more = probed(), probed(baselines=("kmeans", "pca", "kmeans"))
    assert plain.baselines == ()
    assert plain.observations.baselines.shape == (0, 80)
    assert [row.name for row in more.baselines] == ["kmeans", "pca"]
    assert (more.layers, more.gain, more.pixels) == (plain.layers, plain.gain, plain.pixels)


def test_a_second_probe_reads_the_rows_from_the_cache(tmp_path, monkeypatch):
    calls = []
    evaluate = RidgeProbe.evaluate
    monkeypatch.setattr(RidgeProbe, "evaluate", lambda *args: calls.append(1) or evaluate(*args))
    first = probed(baselines=("kmeans",), cache=tmp_path, encoder_setting=SETTING)
    assert len(calls) == 4  # trained, pixels, random, k-means
    again = probed(baselines=("kmeans",), cache=tmp_path, encoder_setting=SETTING)
    assert len(calls) == 5
    assert again.baselines == first.baselines
    probed(baselines=("pca",), cache=tmp_path, encoder_setting=SETTING)
    assert len(calls) == 7


@pytest.mark.parametrize(
    ("fresh", "name", "message"),
    [
        (Transposed, "kmeans", "convolution of this encoder is a ConvTranspose2d: choose another --encoder"),
        (lambda seed: Plain(), "pca", "need an encoder in which a norm follows each convolution"),
        (
            Deep,
            "pixels",
            "no further baseline of a probe called 'pixels': choose one of all, dictionary, kmeans, none, pca",
        ),
        (Deep, "kmean", "did you mean kmeans"),
    ],
)
def test_a_baseline_that_does_not_apply_is_an_error_before_anything_is_probed(fresh, name, message, monkeypatch):
    monkeypatch.setattr(RidgeProbe, "evaluate", None)
    with pytest.raises(UserError, match=message):
        probed(fresh(0), fresh, baselines=(name,))


@pytest.fixture
def defaults(monkeypatch):
    """The default rows, which other tests do without."""
    monkeypatch.setattr("selftaught.evaluation.baseline_rows.DEFAULT", DEFAULT)


@pytest.mark.usefixtures("defaults")
def test_default_rows_are_like_those_asked_for():
    pytest.importorskip("kymatio")
    default, asked = probed(baselines=None), probed(baselines=DEFAULT)
    assert [row.name for row in default.baselines] == list(DEFAULT)
    assert default.baselines == asked.baselines
    assert "left out" not in default.note


@pytest.mark.usefixtures("defaults")
@pytest.mark.parametrize("given", [(), ("none",)])
def test_one_flag_switches_further_baselines_off(given):
    assert probed(baselines=given).baselines == ()


def test_all_are_those_that_apply():
    pytest.importorskip("kymatio")
    assert [row.name for row in probed(baselines=("all",)).baselines] == ["kmeans", "pca", "dictionary", "scattering"]
    table = probed(Transposed(9), Transposed, baselines=("all",))
    assert [row.name for row in table.baselines] == ["dictionary", "scattering"]
    assert "K-means initialization is left out: k-means and PCA initialize convolutions without groups" in table.note


@pytest.mark.usefixtures("defaults")
def test_a_default_row_that_does_not_apply_is_left_out_and_the_table_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "kymatio.scattering2d.frontend.torch_frontend", None)
    table = probed(Transposed(9), Transposed, baselines=None)
    assert [row.name for row in table.baselines] == ["dictionary"]
    assert "K-means initialization is left out: k-means and PCA initialize" in " ".join(text(table).split())
    assert "Scattering is left out: the encoder scattering needs kymatio" in " ".join(text(table).split())


@pytest.mark.usefixtures("defaults")
def test_an_encoder_of_tokens_has_a_dictionary_of_colors(monkeypatch):
    monkeypatch.setitem(sys.modules, "kymatio.scattering2d.frontend.torch_frontend", None)

    def fresh(seed):
        torch.manual_seed(seed)
        encoder = make_encoder("gpt", size=8, depth=1, width=8, heads=1, colors=8)
        encoder.fit(sources()[0])
        return encoder

    (row,) = probed(fresh(9), fresh, baselines=None).baselines
    (expected,) = probed(baselines=("dictionary",)).baselines
    assert (row.name, row.layer, row.value, row.held_out) == ("dictionary", "codes", expected.value, expected.held_out)


@pytest.mark.usefixtures("defaults")
def test_default_rows_depend_on_sizes_and_the_others_on_the_flag(monkeypatch):
    """200 images of 8 px are 12,800 pixels."""
    pytest.importorskip("kymatio")
    operations = baseline_rows.initialization_operations(Deep())
    monkeypatch.setattr(baseline_rows, "MOST_OPERATIONS", operations)
    monkeypatch.setattr(baseline_rows, "MOST_PIXELS", dict.fromkeys(FIXED, 200 * 8**2))
    assert [row.name for row in probed(baselines=None).baselines] == list(DEFAULT)
    monkeypatch.setattr(baseline_rows, "MOST_OPERATIONS", operations - 1)
    monkeypatch.setattr(baseline_rows, "MOST_PIXELS", dict.fromkeys(FIXED, 200 * 8**2 - 1))
    table = probed(baselines=None)
    assert table.baselines == ()
    assert "K-means initialization is left out: it is slow for this encoder; --baselines kmeans adds it." in table.note
    assert "Dictionary of patches is left out: it is slow for 200 images of 8 px; --baselines dictionary" in table.note
    assert "Scattering is left out: it is slow for 200 images of 8 px; --baselines scattering adds it." in table.note
    assert [row.name for row in probed(baselines=("kmeans",)).baselines] == ["kmeans"]


@pytest.mark.usefixtures("defaults")
def test_default_rows_do_not_depend_on_what_is_cached(tmp_path, monkeypatch):
    more = {"cache": tmp_path, "encoder_setting": SETTING}
    assert [row.name for row in probed(baselines=("kmeans",), **more).baselines] == ["kmeans"]
    monkeypatch.setattr(baseline_rows, "MOST_OPERATIONS", 1)
    monkeypatch.setattr(baseline_rows, "MOST_PIXELS", dict.fromkeys(FIXED, 1))
    assert probed(baselines=None, **more).baselines == ()


@pytest.mark.usefixtures("defaults")
def test_an_encoder_without_parameters_has_no_default_rows():
    assert probed(Plain(), lambda seed: Plain(), baselines=None).baselines == ()


def test_the_operations_of_an_initialization():
    """A linear layer of 100 inputs and 50 units."""
    expected = 2 * 20_000 * 100**2 + 20 * 100**3 + 40 * 20_000 * 50 * 50
    assert baseline_rows.initialization_operations(nn.Linear(100, 50)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "included"), [("convnet", True), ("nin", True), ("alexnet", True), ("timm:resnet18", False)]
)
def test_which_encoders_have_k_means_initialization_by_default(name, included):
    operations = baseline_rows.initialization_operations(make_encoder(name, size=64))
    assert (operations <= baseline_rows.MOST_OPERATIONS) is included
