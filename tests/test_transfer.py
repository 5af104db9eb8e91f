"""`selftaught detection` and `segmentation` on drawn discs: results, resuming, comparisons, mistakes."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import selftaught
from drawn import draw_voc
from selftaught.api import best
from selftaught.api.run import Run
from selftaught.cli import main
from selftaught.config.build import load_encoder
from selftaught.errors import UserError
from selftaught.evaluation.intervals import sample_counts
from selftaught.evaluation.transfer.table import Repetition, Row, TransferTable, render
from selftaught.report import compare
from selftaught.runs.folder import RunFolder
from selftaught.training.interruption import Stop
from test_run import TINY, make_images

FAST = {"steps": 3, "learning_rates": (0.01,), "batch_size": 2, "device": "cpu", "size": 32, "evaluations": 1}
DETECT = {**FAST, "head_width": 16}


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    return draw_voc(tmp_path_factory.mktemp("voc") / "discs")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    images = make_images(tmp_path_factory.mktemp("a") / "images", count=8)
    return selftaught.pretrain(images, out=tmp_path_factory.mktemp("runs") / "run", width=4, **TINY).path


@pytest.fixture
def run(pretrained, tmp_path):
    return Run(shutil.copytree(pretrained, tmp_path / "run"))


def test_test_images_that_are_copies_of_training_images_are_counted(run, voc, tmp_path):
    assert not any("copies" in note for note in run.segmentation(voc, **FAST).notes)
    copied = shutil.copytree(voc, tmp_path / "copied")
    shutil.copy(copied / "JPEGImages/000.png", copied / "JPEGImages/009.png")
    for table in (run.detection(copied, **DETECT), run.segmentation(copied, **FAST)):
        assert any(note.startswith("Warning: 1 of 4 test images are copies of training images") for note in table.notes)


def test_the_result_is_valid_and_has_every_detection(run, voc):
    table = run.detection(voc, seeds=2, **DETECT)
    ((result, picture),) = RunFolder(run.path).read_transfers()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [row["name"] for row in result["rows"]] == ["run", "random weights"]
    assert list(result["metrics"]) == ["ap", "ap50", "ap75"]
    assert (result["train"], result["validation"], result["test"], result["steps"]) == (4, 2, 4, 3)
    assert result["differences"][0]["of"] == "run"
    assert json.loads(json.dumps(table.to_json()))["rows"] == result["rows"]
    with np.load(run.path / "transfer" / result["predictions"]) as kept:
        for name in ("run/0", "run/1", "random weights/0"):
            count = len(kept[f"{name}/scores"])
            assert kept[f"{name}/boxes"].shape == (count, 4)
            assert set(kept[f"{name}/image"].tolist()) <= {0, 1, 2, 3}
    assert [str(cell) for cell in render(table).columns[0].cells] == ["run", "random weights"]


def test_what_is_finished_is_not_repeated_and_seeds_and_runs_are_added(run, voc, steps_taken, tmp_path):
    first = run.segmentation(voc, seeds=1, **FAST)
    assert steps_taken == [3, 3]
    assert run.segmentation(voc, seeds=1, **FAST).to_json() == first.to_json()
    assert steps_taken == [3, 3]
    other = Run(shutil.copytree(run.path, tmp_path / "other", ignore=shutil.ignore_patterns("transfer")))
    table = run.segmentation(voc, other, seeds=2, **FAST)
    assert len(steps_taken) == 2 + 4
    assert [row.name for row in table.rows] == ["run", "other", "random weights"]
    assert table.rows[0].to_json() == {**table.rows[1].to_json(), "name": "run"}
    assert len(list((run.path / "transfer").glob("*.json"))) == 2
    assert not list(run.path.glob("transfer/**/*.pt"))


def test_random_weights_of_another_encoder_are_named(run, voc, tmp_path):
    """Its difference to random weights would be one of encoders, too."""
    images = make_images(tmp_path / "images", count=8)
    wide = selftaught.pretrain(images, out=tmp_path / "wide", width=6, **TINY)
    table = run.segmentation(voc, wide, seeds=1, **FAST)
    (note,) = [note for note in table.notes if "Random weights are" in note]
    assert note.startswith("Random weights are those of the encoder of run. The encoder of wide is another one")
    assert not any("Random weights" in note for note in run.segmentation(voc, seeds=1, **FAST).notes)
    alone = run.segmentation(voc, wide, seeds=1, random_weights=False, **FAST)
    assert not any("Random weights" in note for note in alone.notes)


@pytest.mark.parametrize("kind", ["detection", "segmentation"])
def test_an_interrupted_training_continues_to_the_same_result(run, voc, steps_taken, monkeypatch, tmp_path, kind):
    settings = DETECT if kind == "detection" else FAST
    other = Run(shutil.copytree(run.path, tmp_path / "other" / "run"))
    expected = getattr(other, kind)(voc, seeds=1, **settings)
    steps_taken.clear()
    stop, step = Stop(), best.Trainer.step

    def interrupted(self, *arguments):
        if steps_taken == [1]:
            stop.request()
        return step(self, *arguments)

    monkeypatch.setattr(best.Trainer, "step", interrupted)
    assert getattr(run, kind)(voc, seeds=1, stop=stop, **settings) is None
    assert steps_taken == [2]
    assert not list((run.path / "transfer").glob("*.json"))
    found = getattr(run, kind)(voc, seeds=1, **settings)
    assert steps_taken == [2, 1, 3]
    assert found.to_json() == expected.to_json()
    weights = [load_file(next(each.path.glob("transfer/*/seed-0/model.safetensors"))) for each in (run, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_frozen_weights_are_those_of_the_run_with_statistics_of_the_new_images(run, voc):
    run.detection(voc, seeds=1, freeze_until="layer3", random_weights=False, **DETECT)
    (path,) = run.path.glob("transfer/*/seed-0/model.safetensors")
    kept, before = load_file(path), load_encoder(run.folder).state_dict()
    for name, value in before.items():
        if "running" not in name and "tracked" not in name:
            assert torch.equal(kept[f"encoder.{name}"], value), name
    assert not torch.equal(kept["encoder.blocks.layer1.2.running_mean"], before["blocks.layer1.2.running_mean"])


def made(name: str, values: list[float], resampled: np.ndarray) -> Row:
    return Row(name, tuple(Repetition({"ap": value}, 0.5, 0.1, 1, {}, resampled) for value in values))


def test_differences_are_paired_by_image():
    """Two encoders whose metrics vary together over samples: only the variation of the difference counts."""
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0.5, 0.1, 500), rng.normal(0, 0.01, 500)
    rows = made("a", [0.52], shared + own + 0.02), made("b", [0.5], shared)
    table = TransferTable("detection", {"ap": "AP"}, "d", 1, 1, 1, (), 64, 1, {"batch_size": 4}, rows)
    (difference,) = table.differences()
    assert difference["value"] == pytest.approx(0.02)
    assert difference["high"] - difference["value"] == pytest.approx(1.96 * own.std(ddof=1), rel=0.01)
    seeds = made("a", [0.6, 0.5], shared), made("b", [0.5, 0.5], shared)
    table = TransferTable("detection", {"ap": "AP"}, "d", 1, 1, 1, (), 64, 1, {"batch_size": 4}, seeds)
    # Only seeds vary: the interval of Student's t with one degree of freedom, 12.706 standard errors.
    assert table.differences()[0]["high"] == pytest.approx(0.05 + 12.706 * 0.0707107 / 2**0.5, abs=1e-3)


@pytest.mark.parametrize("kind", ["detection", "segmentation"])
def test_the_report_and_the_comparison_show_metrics_classes_and_predictions(run, voc, kind):
    settings = DETECT if kind == "detection" else FAST
    table = getattr(run, kind)(voc, seeds=2, **settings)
    assert list(table.by_class) == ["run", "random weights"]
    present = [value for value in table.by_class["run"] if value is not None]
    first = next(iter(table.metrics))
    mean = table.to_json()["rows"][0]["metrics"][first]["mean"]
    assert np.mean(present) == pytest.approx(mean, abs=1e-6)
    page = run.report().read_text()
    assert f"<h2>{kind.capitalize()} on {voc}</h2>" in page
    assert all(f'<th class="number">{heading}</th>' in page for heading in (*table.metrics.values(), "95 % interval"))
    assert 'annotations and predictions"' in page
    assert all(f'<td class="name">{name}</td>' in page for name in ("random weights", "blue", "red"))
    assert "random weights" in page
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(compare([run.path]))
    shown = console.export_text()
    assert f"{kind.capitalize()} on discs, from run" in shown
    assert "mean ± standard deviation over 2 seeds" in shown
    assert ("is better than" in shown) or ("is worse than" in shown) or ("Not decided: run and random" in shown)


def test_samples_have_as_many_images_as_there_are():
    counts = sample_counts(20)
    assert (counts.sum(1) == 20).all()
    assert counts.mean() == pytest.approx(1)


def test_the_command_prints_one_object(run, voc, capsys):
    fast = ["--steps", "2", "--seeds", "1", "--learning-rates", "0.01", "--device", "cpu", "--size", "32", "--json"]
    for command in (["detection", "--detector", "fpn", "--head-width", "16"], ["segmentation"]):
        capsys.readouterr()
        assert main([command[0], str(run.path), "--data", str(voc), *command[1:], *fast, "--no-random-weights"]) == 0
        table = json.loads(capsys.readouterr().out)
        assert table["transfer"] == command[0]
        assert [row["name"] for row in table["rows"]] == ["run"]


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("detection", ("--detector", "yolo"), "there is no detector called 'yolo'"),
        ("detection", ("--head-width", "1"), "--head-width must be from 8"),
        ("detection", ("--seeds", "0"), "--seeds must be from 1"),
        ("detection", ("--evaluations", "0"), "--evaluations must be from 1"),
        ("detection", ("--batch-size", "0"), "--batch-size must be from 1"),
        ("detection", ("--learning-rates", "-1"), "--learning-rates must be above 0"),
        ("detection", ("--freeze-until", "layer9"), "no layer of this encoder called 'layer9'"),
        ("segmentation", ("--freeze-until", "layer9"), "no layer of this encoder called 'layer9'"),
        ("segmentation", ("--steps", "2", "--epochs", "1"), "exactly one of --minutes, --epochs and --steps"),
        ("segmentation", ("--size", "5000"), "--size must be from 1 to 4,096"),
        ("segmentation", ("--size", "4"), "cannot process views of 4 pixels"),
    ],
)
def test_a_mistake_is_one_sentence(run, voc, capsys, command, arguments, message):
    assert main([command, str(run.path), "--data", str(voc), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in " ".join(error.split())
    assert "Traceback" not in error
    assert not list((run.path / "transfer").glob("*"))


def test_tampered_weights_a_run_given_twice_and_no_run_are_refused(run, voc, capsys):
    assert main(["detection", "--data", str(voc)]) == 2
    assert main(["detection", str(run.path), str(run.path), "--data", str(voc)]) == 2
    assert "a run is given twice" in capsys.readouterr().err
    path = run.path / "encoder.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert main(["detection", str(run.path), "--data", str(voc)]) == 2
    assert "digest mismatch" in capsys.readouterr().err


def test_a_damaged_result_is_an_error(run, voc):
    run.segmentation(voc, seeds=1, random_weights=False, **FAST)
    (path,) = run.path.glob("transfer/*/seed-0/result.npz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="damaged: remove it and repeat the command"):
        run.segmentation(voc, seeds=1, random_weights=False, **FAST)


def test_a_learning_rate_that_diverges_is_not_chosen(run, voc):
    table = run.segmentation(voc, seeds=1, random_weights=False, **{**FAST, "learning_rates": (0.01, 1e30)})
    assert table.rows[0].repetitions[0].learning_rate == 0.01
