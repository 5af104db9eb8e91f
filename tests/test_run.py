"""Results of a run: what they are called, which weights they belong to, what is kept between them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import selftaught
from selftaught.api.loaded import load_trained
from selftaught.api.run import Run
from selftaught.config.build import load_encoder
from selftaught.errors import UserError
from selftaught.evaluation.probes import RidgeProbe, SGDProbe
from selftaught.evaluation.results import file_stem
from selftaught.runs.weights import weights_digest

TINY = {"task": "rotation", "size": 16, "steps": 2, "batch_size": 8, "threads": 1}


def make_images(folder: Path, count: int = 12, side: int = 16, seed: int = 0) -> Path:
    """Two classes of noisy images, in a training and a test part."""
    rng = np.random.default_rng(seed)
    for part in ("train", "test"):
        for name, level in (("bright", 150), ("dark", 60)):
            (place := folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = level + rng.integers(-50, 50, (side, side, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp("a") / "images")


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    return selftaught.pretrain(images, out=tmp_path_factory.mktemp("runs") / "run", width=8, **TINY).path


@pytest.fixture
def run(trained, tmp_path):
    return Run(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def probed_encoders(monkeypatch):
    """The encoders that were probed, in order."""
    probed = []
    evaluate = RidgeProbe.evaluate

    def spy(self, encoder, *arguments):
        probed.append(type(encoder).__name__)
        return evaluate(self, encoder, *arguments)

    monkeypatch.setattr(RidgeProbe, "evaluate", spy)
    return probed


def results(run: Run, suffix: str = ".json") -> list[Path]:
    return sorted(path for path in (run.path / "probes").iterdir() if path.suffix == suffix)


def test_no_result_replaces_another(run, images, tmp_path):
    other = make_images(tmp_path / "b" / "images", seed=1)
    run.probe(images)
    run.probe(images)  # the same again
    run.probe(images, size=8)
    run.probe(images, seeds=2)
    run.probe(images, limit=20)
    run.probe(other)
    assert len(results(run)) == len(results(run, ".npz")) == 5
    assert all(path.name.startswith("images-ridge-") for path in results(run))
    for path in results(run):
        result = json.loads(path.read_text())
        with np.load(path.with_name(result["correctness"])) as kept:
            assert kept["trained"].shape == (result["seeds"], len(result["layers"]), result["test"])
            assert len(kept["test_ids"]) == result["test"]
            assert kept["trained"].mean((0, 2)) == pytest.approx([layer["accuracy"] for layer in result["layers"]])


@pytest.mark.parametrize("data", ["x" * 215, "회" * 80, "/", "a/b c (2).d"])
def test_names_of_results_fit_in_any_file_system(data):
    stem = file_stem(data, "paper-100000", {"size": 1})
    assert len(f"{stem}.json.part".encode()) < 120
    assert "/" not in stem
    assert stem != file_stem(data, "paper-100000", {"size": 2})


def test_a_folder_with_a_long_name_keeps_its_result(run, tmp_path):
    run.probe(make_images(tmp_path / ("long" * 60)[:215], count=6))
    assert len(results(run)) == 1


def test_a_result_belongs_to_the_weights_that_were_probed_whatever_happens_meanwhile(run, images, monkeypatch):
    evaluate, before = RidgeProbe.evaluate, weights_digest(load_encoder(run.folder).state_dict())

    def resumed_meanwhile(self, *arguments):
        weights, description = run.folder.read_encoder()
        run.folder.write_encoder({name: value + 1 for name, value in weights.items()}, description)
        run.folder.update_status(step=99)
        return evaluate(self, *arguments)

    monkeypatch.setattr(RidgeProbe, "evaluate", resumed_meanwhile)
    run.probe(images)
    (path,) = results(run)
    result = json.loads(path.read_text())
    assert (result["step"], result["weights"]) == (2, before)
    assert weights_digest(load_encoder(run.folder).state_dict()) != before


def test_a_failed_probe_leaves_no_folder(run, images, monkeypatch):
    monkeypatch.setattr(RidgeProbe, "evaluate", lambda *arguments: (_ for _ in ()).throw(UserError("failed")))
    with pytest.raises(UserError, match="failed"):
        run.probe(images)
    assert not (run.path / "probes").exists()


def test_a_result_names_its_label_file(run, images, tmp_path):
    paths = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    rows = [f"{path},{'ab'[number % 2]}" for number, path in enumerate(paths)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    run.probe(images)
    run.probe(images, labels=tmp_path / "labels.csv")
    labels = {json.loads(path.read_text())["labels"] for path in results(run)}
    assert labels == {None, str(tmp_path / "labels.csv")}


def test_where_nothing_can_be_written_nothing_is_computed(run, images, probed_encoders):
    (run.path / "probes").write_text("in the way")
    with pytest.raises(UserError, match="writable"):
        run.probe(images)
    assert probed_encoders == []


def test_random_weights_and_pixels_are_probed_once_for_each_setting(run, images, tmp_path, probed_encoders):
    first = run.probe(images)
    assert probed_encoders == ["ConvNet", "Pixels", "ConvNet", "ConvNet", "ConvNet"]
    probed_encoders.clear()
    again = run.probe(images)
    assert probed_encoders == ["ConvNet"]
    assert [layer.random for layer in again.layers] == [layer.random for layer in first.layers]
    assert again.observations.random.tolist() == first.observations.random.tolist()
    assert again.gain == first.gain
    probed_encoders.clear()
    run.probe(images, size=8)
    assert len(probed_encoders) == 5
    probed_encoders.clear()
    wider = selftaught.pretrain(images, out=tmp_path / "wider", width=12, **TINY)
    wider.probe(images)
    assert probed_encoders == ["ConvNet"] * 4  # pixels are the same
    probed_encoders.clear()
    longer = selftaught.pretrain(images, out=tmp_path / "longer", width=8, **{**TINY, "steps": 3})
    longer.probe(images)
    assert probed_encoders == ["ConvNet"]


def test_a_damaged_cache_is_computed_again(run, images, probed_encoders):
    from selftaught.data.cache import cache_folder

    first = run.probe(images)
    for path in (cache_folder() / "baselines").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    probed_encoders.clear()
    again = run.probe(images)
    assert len(probed_encoders) == 5
    assert again.gain == first.gain


def test_test_images_that_were_in_pretraining_are_counted_by_content(images, tmp_path):
    """Under other names, in another folder: seven of the test images are among the pretraining images."""
    flat = tmp_path / "unlabeled"
    flat.mkdir()
    for number, path in enumerate(sorted(images.glob("train/*/*.png")) + sorted(images.glob("test/*/*.png"))[:7]):
        (flat / f"{number}.png").write_bytes(path.read_bytes())
    run = selftaught.pretrain(flat, out=tmp_path / "run", width=8, **TINY)
    assert run.probe(images).overlap == 7
    ids = np.load(run.path / "images.npy")
    assert len(ids) == 31
    assert (np.diff(ids) > 0).all()
    (run.path / "images.npy").unlink()
    assert run.probe(images).overlap is None
    (run.path / "images.npy").write_bytes(b"not an array")
    with pytest.raises(UserError, match=r"images\.npy is damaged"):
        run.probe(images)


def test_the_paper_probe_crops_where_images_are_large_enough(run, tmp_path, monkeypatch):
    notes = {}
    for side in (16, 24):
        folder = make_images(tmp_path / str(side), count=5, side=side)
        notes[side] = run.probe(folder, probe=SGDProbe(epochs=1)).note
    assert "shifted" in notes[16]
    assert "random 16-pixel crops of 18-pixel images" in notes[24]


def test_paths_may_be_strings(run, images, tmp_path):
    from selftaught.report import write_report

    flat = tmp_path / "flat"
    flat.mkdir()
    lines = ["path,label"]
    for path in sorted(images.glob("*/*/*.png")):
        name = "-".join(path.parts[-3:])
        (flat / name).write_bytes(path.read_bytes())
        lines.append(f"{name},{path.parent.name}")
    (listed := tmp_path / "labels.csv").write_text("\n".join(lines))
    assert run.probe(str(flat), labels=str(listed)).test == run.probe(flat, labels=listed).test > 0
    assert len(selftaught.open_source(str(flat), labels=str(listed), split="test")) > 0
    run.invariance(str(flat), images=8)
    run.audit(str(flat), images=8)
    assert run.report(str(tmp_path / "one.html")).is_file()
    assert write_report([str(run.path)], str(tmp_path / "two.html")).is_file()


def test_the_sentence_of_an_audit_names_the_layer_chosen_on_held_out_images(run, images):
    table = run.probe(images)
    (said,) = run.audit(images, images=8).probes
    assert f"the best layer ({table.gain.layer}) reaches {table.best.value:.3f}" in said


def test_the_same_seed_has_the_same_random_weights(run):
    fresh = load_trained(run.folder, None, "cpu").arguments["fresh"]
    first, again, other = (torch.cat([w.flatten() for w in fresh(seed).parameters()]) for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


def test_the_quality_of_features_is_kept_and_reported(run, images):
    run.quality(images, images=16)
    ((path, figure),) = [sorted((run.path / "quality").glob("*.json")) + sorted((run.path / "quality").glob("*.svg"))]
    assert json.loads(path.read_text())["step"] == 2
    assert "<svg" in figure.read_text()
    assert "Feature quality of every layer on 16 images" in run.report().read_text()
    with pytest.raises(UserError, match="--images must be from 2"):
        run.quality(images, images=1)
