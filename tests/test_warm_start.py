"""`--encoder-from`: a run that starts from the encoder of another one."""

import shutil

import pytest
import torch

import selftaught
from runs.valid_run import make_images
from selftaught.config.build import build_source, load_encoder
from selftaught.config.settings import Settings
from selftaught.encoders import make_encoder
from selftaught.errors import UserError
from selftaught.evaluation.baselines import prepare
from selftaught.training.interruption import Stop

TINY = {"size": 16, "batch_size": 4, "width": 8, "precision": "32", "threads": 1, "device": "cpu"}


class StopAt(Stop):
    """Requests a stop after a number of steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def agreed(self) -> bool:
        self.left -= 1
        return self.left == 0


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def first(images, tmp_path_factory):
    return selftaught.pretrain(images, out=tmp_path_factory.mktemp("runs") / "first", steps=3, seed=5, **TINY)


def weights(run):
    return load_encoder(run.folder).state_dict()


def same(one, other) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_initial_weights_are_those_of_the_run_and_the_heads_those_of_the_seed(images, first, tmp_path, monkeypatch):
    """A step at a rate of nearly nothing changes batch statistics only."""
    rate = {"learning_rate": 1e-20, "weight_decay": 0.0, "warmup": 0.0}
    warm = selftaught.pretrain(images, out=tmp_path / "warm", steps=1, encoder_from=first.path, **rate, **TINY)
    cold = selftaught.pretrain(images, out=tmp_path / "cold", steps=1, **rate, **TINY)
    before, found = weights(first), weights(warm)
    learned = [name for name, value in before.items() if value.is_floating_point() and "running" not in name]
    assert all(torch.equal(before[name], found[name]) for name in learned)
    assert not all(torch.equal(before[name], weights(cold)[name]) for name in learned)
    heads = [torch.load(run.path / "checkpoint/last.pt", weights_only=True)["heads"] for run in (warm, cold)]
    assert same(*heads)


@pytest.mark.parametrize("name", ["kmeans", "random"])
def test_a_baseline_is_a_start(name, images, tmp_path):
    baseline = selftaught.baseline(name, images, out=tmp_path / name, size=16, width=8, device="cpu")
    warm = selftaught.pretrain(images, out=tmp_path / "warm", steps=1, encoder_from=baseline.path, **TINY)
    cosine = torch.nn.functional.cosine_similarity
    one, other = (weights(run)["blocks.layer3.0.weight"].flatten() for run in (baseline, warm))
    assert cosine(one, other, dim=0) > 0.9


@pytest.mark.parametrize("name", ["kmeans", "pca"])
def test_weights_computed_from_the_images_of_the_run(name, images, tmp_path):
    rate = {"learning_rate": 1e-20, "weight_decay": 0.0, "warmup": 0.0}
    whole = selftaught.pretrain(images, out=tmp_path / "whole", steps=3, encoder_from=name, **rate, **TINY)
    parts = selftaught.pretrain(
        images, out=tmp_path / "parts", steps=3, encoder_from=name, stop=StopAt(2), **rate, **TINY
    )
    assert not parts.finished
    parts = selftaught.pretrain(out=tmp_path / "parts", resume=True)
    assert same(weights(whole), weights(parts))
    source = build_source([str(images)], Settings.of(size=16))
    expected = make_encoder("convnet", size=16, width=8)
    expected.fit(source)
    prepare(name, expected, source, 16, torch.device("cpu"), 0)
    for layer in ("layer1", "layer2", "layer3"):
        torch.testing.assert_close(weights(whole)[f"blocks.{layer}.0.weight"], expected.blocks[layer][0].weight)
    with pytest.raises(UserError, match="choose another --encoder"):
        selftaught.pretrain(images, out=tmp_path / "vit", encoder_from=name, steps=1, size=16, encoder="vit")


def test_resuming_needs_no_source_of_the_weights(images, first, tmp_path):
    """Interrupted and resumed, the run ends like one that was not, although the first run is gone."""
    copy = tmp_path / "copy"
    shutil.copytree(first.path, copy)
    whole = selftaught.pretrain(images, out=tmp_path / "whole", steps=4, encoder_from=copy, **TINY)
    parts = selftaught.pretrain(images, out=tmp_path / "parts", steps=4, encoder_from=copy, stop=StopAt(2), **TINY)
    assert not parts.finished
    shutil.rmtree(copy)
    parts = selftaught.pretrain(out=tmp_path / "parts", resume=True)
    assert parts.finished
    assert same(weights(whole), weights(parts))
    assert parts.folder.read_config()["encoder_from"] == str(copy)
    extended = selftaught.pretrain(out=tmp_path / "parts", resume=True, steps=1)
    assert extended.folder.read_config()["steps"] == 5
    with pytest.raises(UserError, match="cannot change --encoder-from when resuming"):
        selftaught.pretrain(out=tmp_path / "parts", resume=True, encoder_from=first.path)


def test_images_of_the_first_run_count_as_seen(images, tmp_path):
    first = selftaught.pretrain(images, out=tmp_path / "first", steps=1, limit=8, **TINY)
    warm = selftaught.pretrain(images, out=tmp_path / "warm", steps=1, limit=8, seed=1, encoder_from=first.path, **TINY)
    alone = selftaught.pretrain(images, out=tmp_path / "alone", steps=1, limit=8, seed=1, **TINY)
    seen, of_first, of_alone = (set(run.folder.read_image_ids().tolist()) for run in (warm, first, alone))
    assert of_first != of_alone
    assert seen == of_first | of_alone


def test_what_does_not_fit_is_one_sentence(images, first, tmp_path):
    def start(**settings):
        chosen = {**TINY, "steps": 1, "encoder_from": first.path, **settings}
        selftaught.pretrain(images, out=tmp_path / "run", **chosen)

    with pytest.raises(
        UserError, match=r"does not fit that of this run \(they differ in width\): give --encoder-from a run"
    ):
        start(width=16)
    with pytest.raises(UserError, match=r"they differ in input_mode"):
        start(task="colorization")
    with pytest.raises(UserError, match=r"expects a run with the encoder vit, but .*first has convnet"):
        start(encoder="vit", width=48)
    with pytest.raises(UserError, match="is not a run folder"):
        start(encoder_from=tmp_path / "nothing")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("start", ["kmeans", "run"])
def test_published_weights_are_a_second_source_and_are_not_loaded(start, images, first, tmp_path):
    """No weights are on disk, so an attempt to load them would be another error."""
    with pytest.raises(UserError, match="--encoder-from and --pretrained are two sources of initial weights"):
        selftaught.pretrain(
            images, out=tmp_path / "run", encoder="timm:resnet18", pretrained=True, steps=1, size=32,
            encoder_from=first.path if start == "run" else start,
        )  # fmt: skip
    assert not (tmp_path / "run").exists()
