"""Probes of images with several classes from the command line: result, report, comparison, and what cannot use them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import selftaught
from selftaught.api.run import Run
from selftaught.cli import main
from selftaught.errors import UserError
from selftaught.report import compare
from selftaught.report.groups import group_results, sentences
from selftaught.report.record import read_records
from test_run import TINY

CLASSES = ("bright", "red", "striped")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Images of which each has any of three properties, and their CSV file."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("x") / "images"
    lines = [",".join(["path", *CLASSES])]
    for part in ("train", "test"):
        (folder / part).mkdir(parents=True)
        for number in range(60):
            bright, red, striped = own = rng.random(3) < (0.5, 0.4, 0.2)
            pixels = 60 + 60 * bright + rng.integers(0, 60, (16, 16, 3))
            pixels[..., 0] += 50 * red
            pixels[::4] += 40 * striped
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / part / f"{number}.png")
            lines.append(",".join([f"{part}/{number}.png", *map(str, own.astype(int))]))
    (folder.parent / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def labels(images) -> Path:
    return images.parent / "labels.csv"


@pytest.fixture(scope="module")
def runs(images, labels, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    made = [
        selftaught.pretrain(images, out=folder / f"run{seed}", width=width, seed=seed, **TINY).path
        for seed, width in ((0, 8), (1, 8), (2, 2))
    ]
    for path in made:
        Run(path).probe(images, labels=labels, device="cpu")
    return made


def test_the_command_prints_map_and_the_classes(runs, images, labels, capsys):
    arguments = ["probe", str(runs[0]), "--data", str(images), "--labels", str(labels), "--device", "cpu"]
    capsys.readouterr()
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "mAP (ridge probe) on 60 test images" in printed
    assert all(name in printed for name in (*CLASSES, "average precision", "ROC AUC"))
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metric"] == "map"
    assert result["gain"]["value"] == pytest.approx(
        max(row["map"] for row in result["layers"] if row["layer"] == result["gain"]["layer"])
        - next(row["random"] for row in result["layers"] if row["layer"] == result["gain"]["random_layer"])
    )


def test_the_report_shows_map_by_layer_and_by_class(runs):
    page = Run(runs[0]).report().read_text()
    assert "mAP over random weights" in page
    assert "Average precision by class at the best layer (3 classes)" in page
    assert all(f">{name}<" in page for name in CLASSES)
    assert "mean over classes of the average precision" in page
    assert "Top-1" not in page


def test_groups_of_seeds_are_compared_by_a_bootstrap_interval(runs):
    groups = group_results(read_records(runs))
    assert [len(group.own.values) for group in groups] == [2, 1]
    both, other = groups
    arrays = [np.load(next((run / "probes").glob("*.npz"))) for run in runs[:2]]
    place = arrays[0]["layers"].tolist().index(both.layer)
    assert both.own.values == pytest.approx([found["trained_values"][0, place] for found in arrays])
    value, low, high = both.own.minus(other.own)
    difference = np.mean([found["trained"][0, place] for found in arrays], 0) - other.own.observations[0]
    between = both.own.values.std(ddof=1) ** 2 / 2
    assert (low + high) / 2 == pytest.approx(value)
    assert (high - low) / 2 >= 1.96 * np.sqrt(difference.var(ddof=1) + between)
    (sentence,) = sentences(groups)
    assert " mAP " in sentence
    assert "top-1" not in sentence
    assert compare(runs) is not None


def test_what_needs_one_class_per_image_says_so(runs, images, labels, tmp_path, capsys):
    data = ["--data", str(images), "--labels", str(labels)]
    small = ["--steps", "2", "--size", "16"]
    (images / "labels.csv").write_text(labels.read_text())
    try:
        for arguments, message in (
            (["evaluate", str(runs[0]), *data, "--finetune"], "fine-tuning or a probe with few labels needs one class"),
            (["evaluate", str(runs[0]), *data, "--labels-per-class", "5"], "few labels needs one class per image"),
            (
                ["pretrain", str(images), "--labels", str(labels), "--task", "supervised", *small],
                "supervised requires one class per image, but",
            ),
            (["pretrain", str(images), *small, "--monitor", str(images)], "--monitor needs one class per image, but"),
            (["shard", str(images), "--labels", str(labels)], "shards contain one label per image, but"),
        ):
            out = ["--out", str(tmp_path / "new")] if arguments[0] in ("pretrain", "shard") else []
            assert main([*arguments, *out]) == 2, arguments
            error = " ".join(capsys.readouterr().err.split())
            assert message in error
            assert "Traceback" not in error
            assert not (tmp_path / "new").exists()
    finally:
        (images / "labels.csv").unlink()


def test_a_task_without_labels_is_pretrained_on_images_with_several_classes(images, labels, tmp_path):
    settings = {**TINY, "task": "deepcluster", "steps": 1}
    assert selftaught.pretrain(images, labels=labels, out=tmp_path / "run", width=4, **settings).finished


def test_damaged_values_are_an_error(runs, tmp_path):
    run = shutil.copytree(runs[0], tmp_path / "run0")
    (path,) = (run / "probes").glob("*.npz")
    with np.load(path) as kept:
        arrays = {name: kept[name] for name in kept.files}
    np.savez(path, **{**arrays, "trained": arrays["trained"] > 0.5})
    with pytest.raises(UserError, match="mAP must be float64"):
        group_results(read_records([run]))
