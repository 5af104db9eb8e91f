"""Recipes train every run once, and their tables match the probe results of the runs."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from recipes import orders, recalibration, rotation, scenes, tasks, verdicts
from recipes.experiment import T95, interval, profile, spread
from scipy import stats

import selftaught
from selftaught.config.settings import Settings
from selftaught.encoders import make_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes, bright and dark, with 16 noisy training and 16 test images each."""
    made, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, level in (("bright", 190), ("dark", 60)):
        for number in range(32):
            (place := made / ("train" if number % 2 else "test") / name).mkdir(parents=True, exist_ok=True)
            pixels = (level + random.integers(-50, 50, (32, 32, 3))).astype("uint8")
            Image.fromarray(pixels).save(place / f"{number}.png")
    return made


def test_intervals_equal_those_of_students_t():
    assert {freedom: round(stats.t.ppf(0.975, freedom), 3) for freedom in T95} == T95
    values = [0.01, 0.02, 0.06]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert interval(values) == f"{np.mean(values):+.3f} ± {(high - low) / 2:.3f}"
    assert "no interval" in interval([0.1])
    assert spread([0.5, 0.7]) == f"0.600 ± {np.std([0.5, 0.7], ddof=1):.3f}"


def test_rotation_trains_missing_runs_only_and_pairs_differences_by_seed(folder, tmp_path, monkeypatch, capsys):
    arguments = f"--data {folder} --steps 1 --seeds 2 --threads 1 --out {tmp_path} --only".split()
    variants = [rotation.FOUR_ANGLES, "mlp head"]
    monkeypatch.setattr(rotation, "VIEWS", 16)
    monkeypatch.setattr("sys.argv", ["rotation", *arguments, *variants])
    rotation.main()
    first = capsys.readouterr().out
    runs = sorted(path.name for path in tmp_path.iterdir())
    assert runs == sorted(
        f"{name}-{seed}" for name in ("four-angles-all-in-the-batch-linear-head", "mlp-head") for seed in (0, 1)
    )
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("encoder.safetensors")}
    rotation.main()
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert capsys.readouterr().out == first
    accuracies = {}
    for run in tmp_path.iterdir():
        (probe,) = (run / "probes").glob("*.json")
        layers = json.loads(probe.read_text())["layers"]
        accuracies[run.name] = next(one["accuracy"] for one in layers if one["layer"] == rotation.LAYER)
    differences = [
        accuracies[f"mlp-head-{s}"] - accuracies[f"four-angles-all-in-the-batch-linear-head-{s}"] for s in (0, 1)
    ]
    assert (
        f"| mlp head | {spread([accuracies['mlp-head-0'], accuracies['mlp-head-1']])} | {interval(differences)} |  |"
        in first
    )


def test_tasks_saves_one_entry_per_task_and_duration(folder, tmp_path, monkeypatch, capsys):
    results = tmp_path / "tasks.json"
    arguments = (
        f"--data {folder} --steps 2 --seeds 1 --threads 1 --out {tmp_path} --results {results} --only rotation".split()
    )
    monkeypatch.setitem(tasks.TASKS, "rotation", {"batch_size": 4})
    monkeypatch.setattr("sys.argv", ["tasks", *arguments])
    tasks.main()
    tasks.main()
    short, long = json.loads(results.read_text())
    assert (short["minutes"], short["steps"], long["minutes"], long["steps"]) == (3, 2, 15, 10)
    assert short["seeds"] == 1
    assert {"layer", "accuracy", "std", "each", "random", "held_out", "random_held_out"} == set(short["layers"][0])
    lines = (tmp_path / folder.stem / "rotation-0" / "log.jsonl").read_text().splitlines()
    assert short["solved"]["accuracy"] == {"reached": json.loads(lines[-1])["accuracy"], "chance": 0.25}
    best = max(long["layers"], key=lambda layer: layer["held_out"])["accuracy"]
    random = max(long["layers"], key=lambda layer: layer["random_held_out"])["random"]
    assert f"| **{best - random:+.3f}** |" in capsys.readouterr().out


@pytest.mark.parametrize("name", verdicts.QUESTIONS)
def test_every_question_has_valid_settings_and_an_existing_layer(name):
    question = verdicts.QUESTIONS[name]
    for changes in question.variants.values():
        settings = Settings.of(**{"task": question.task, **question.settings, **changes})
        encoder = make_encoder(settings.general.encoder, **settings.encoder)
        assert question.layer in encoder.layers


def test_profile_averages_over_seeds():
    rows = {
        (name, seed): {layer: {"accuracy": base + seed / 10, "random": 0.1} for layer in ("one", "two")}
        for name, base in (("a", 0.2), ("b", 0.5))
        for seed in (0, 2)
    }
    lines = profile(rows).splitlines()
    assert lines[0] == "| | one | two |"
    assert lines[2] == "| a | 0.300 ± 0.141 | 0.300 ± 0.141 |"
    assert lines[-1] == "| random weights | 0.100 | 0.100 |"


def test_orders_pairs_differences_by_seed():
    accuracies = {
        "rotation": {"layer1": [0.5, 0.6], "layer2": [0.7, 0.65], "layer3": [0.6, 0.66]},
        "jigsaw": {"layer1": [0.5, 0.5], "layer2": [0.5, 0.5], "layer3": [0.4, 0.4]},
    }
    lines = orders.lines(accuracies)
    assert lines[0] == f"| rotation: best earlier layer minus the last | {interval([0.1, -0.01])} |"
    assert lines[2] == f"| rotation above jigsaw at layer2 | {interval([0.2, 0.15])} |"
    assert len(lines) == 3


def test_verdicts_compares_every_variant_with_the_first(folder, tmp_path, monkeypatch, capsys):
    questions = {"negatives": verdicts.QUESTIONS["negatives"]}
    monkeypatch.setattr(verdicts, "QUESTIONS", questions)
    monkeypatch.setattr(
        "sys.argv", f"verdicts --data {folder} --steps 1 --seeds 1 --threads 1 --out {tmp_path}".split()
    )
    verdicts.main()
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    names = list(questions["negatives"].variants)
    assert [row.split(" | ")[0][2:] for row in rows[1:]] == [
        *names,
        "",
        *names,
        "random weights",
    ]  # the table of differences, then the profile
    (probe,) = (tmp_path / "negatives" / "64-negatives-0" / "probes").glob("*.json")
    accuracy = next(one for one in json.loads(probe.read_text())["layers"] if one["layer"] == "layer3")["accuracy"]
    assert f"| 64 negatives | {accuracy:.3f} |" in printed


def test_recalibration_compares_both_batch_statistics_for_every_layer(folder, tmp_path, monkeypatch, capsys):
    options = {"task": "jigsaw", "permutations": 4, "batch_size": 8, "steps": 3, "threads": 1}
    paths = [tmp_path / f"jigsaw-{seed}" for seed in (0, 1)]
    tables = [
        selftaught.pretrain(folder, out=path, seed=seed, **options).probe(folder) for seed, path in enumerate(paths)
    ]
    monkeypatch.setattr("sys.argv", ["recalibration", *map(str, paths), "--data", str(folder)])
    recalibration.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| layer")]
    assert [row[0] for row in rows] == ["| layer1", "| layer2", "| layer3"]
    assert [row[1] for row in rows] == [spread([table.layers[n].accuracy for table in tables]) for n in range(3)]


def test_the_contact_sheet_shows_every_picture_of_every_scene():
    depth = torch.tensor([[[[0.0, 1.0], [10.0, 100.0]]]]).repeat(3, 1, 1, 1)
    normals = torch.zeros(3, 3, 2, 2)
    normals[:, 2, 0] = 1
    images = torch.rand(3, 3, 2, 2)
    sheet = scenes.draw(images, {"depth": depth, "normals": normals, "contours": torch.ones(3, 1, 2, 2)}, columns=2)
    assert sheet.shape == (3, 4, 16)
    assert torch.equal(sheet[:, 2:, :2], images[2])
    assert torch.allclose(sheet[0, :2, 2:4], torch.tensor([[0.0, 1.0], [0.575, 0.15]]))
    assert torch.equal(sheet[:, 0, 4], torch.tensor([0.5, 0.5, 1.0]))
    assert (sheet[:, 1, 4:6] == 0).all()
    assert (sheet[:, :, 6:8] == 1).all()
