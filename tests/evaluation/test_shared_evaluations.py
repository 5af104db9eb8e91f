"""Probes and fine-tuning on two processes give the results of one."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import selftaught
from processes import finish, fork
from selftaught import cli
from selftaught.evaluation.probes import SGDProbe

EXACT = ("ridge", "knn")
"""Probes on features that each process computes in the batches in which one process does."""
FINETUNING = {"draws": 1, "labels_per_class": (6,), "steps": 2, "learning_rates": (1e-3,)}


def evaluate(run: selftaught.Run, data: str) -> dict[str, Any]:
    """Everything that is compared; the same code in one process and in two."""
    found: dict[str, Any] = {}
    for name in EXACT:
        found[name] = run.probe(data, probe=name, device="cpu", dimensions=64, baselines=("pca",)).to_json()
    found["sgd"] = run.probe(data, probe=SGDProbe(epochs=1), device="cpu", dimensions=64, baselines=()).to_json()
    for frozen in (False, True):
        found[f"frozen {frozen}"] = run.finetune(data, frozen=frozen, device="cpu", **FINETUNING).to_json()
    return found


def evaluate_and_probe(run: str, data: str) -> None:
    """Print the evaluation as JSON; then the command `probe`, with and without labels."""
    print("FOUND" + json.dumps(evaluate(selftaught.Run(run), data)))
    for path in (data, f"{data}/0"):
        # With the default baselines, whose estimated time is that of the first process.
        print("CODE", cli.main(["probe", run, "--data", path, "--dimensions", "64", "--json"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labeled set of 96 images in 3 classes that differ in color, and a run trained on it."""
    root = tmp_path_factory.mktemp("shared")
    rng = np.random.default_rng(0)
    for number in range(96):
        pixels = rng.integers(0, 256, (16, 16, 3))
        pixels[..., number % 3] = pixels[..., number % 3] // 2 + 90
        (root / "set" / f"{number % 3}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(root / "set" / f"{number % 3}" / f"{number}.png")
    options = {"task": "rotation", "width": 8, "steps": 3, "batch_size": 16, "device": "cpu", "precision": "32"}
    selftaught.pretrain(root / "set", out=root / "alone", **options)
    shutil.copytree(root / "alone", root / "pair")
    return root


@pytest.fixture(scope="module")
def outputs(folder: Path) -> list[str]:
    """What each of two processes prints."""
    run, data = str(folder / "pair"), str(folder / "set")
    children = fork(2, evaluate_and_probe, run, data, SELFTAUGHT_CACHE=str(folder / "other cache"))
    finished = finish(children, 600)
    assert [code for code, _ in finished] == [0, 0], finished
    return [output for _, output in finished]


@pytest.fixture(scope="module")
def results(folder: Path, outputs: list[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Results of one process, and those that each of two processes returned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFTAUGHT_CACHE", str(folder / "cache"))
        alone = json.loads(json.dumps(evaluate(selftaught.Run(folder / "alone"), str(folder / "set"))))
    lines = [next(line for line in output.splitlines() if line.startswith("FOUND")) for output in outputs]
    return alone, [json.loads(line.removeprefix("FOUND")) for line in lines]


@pytest.mark.parametrize("name", [*EXACT, "frozen False", "frozen True"])
def test_two_processes_give_the_results_of_one(name: str, results: tuple[dict, list[dict]]) -> None:
    alone, pair = results
    assert pair[0][name] == pair[1][name] == alone[name]


def test_probes_trained_by_sgd_are_equal_to_rounding(results: tuple[dict, list[dict]]) -> None:
    alone, pair = results
    assert pair[0]["sgd"] == pair[1]["sgd"]
    for own, other in zip(alone["sgd"]["layers"], pair[0]["sgd"]["layers"], strict=True):
        assert abs(own["accuracy"] - other["accuracy"]) <= 1 / alone["sgd"]["test"]  # one image at most


def test_the_first_process_writes_the_same_files(folder: Path, results: object) -> None:
    def files(run: str) -> set[str]:
        kinds = ("probes", "finetune")
        return {str(path.relative_to(folder / run)) for kind in kinds for path in (folder / run / kind).rglob("*")}

    assert files("alone") <= files("pair")
    for path in (folder / "alone" / "probes").glob("*.npz"):
        with np.load(path) as own, np.load(folder / "pair" / "probes" / path.name) as other:
            assert "sgd" in path.name or all(np.array_equal(own[name], other[name]) for name in own)


def test_the_command_prints_once_and_an_error_is_one_sentence(outputs: list[str]) -> None:
    lines = [line for output in outputs for line in output.splitlines()]
    (printed,) = (line for line in lines if line.startswith("{"))
    assert json.loads(printed)["train"] > 50
    assert sorted(line for line in lines if line.startswith("CODE")) == ["CODE 0", "CODE 0", "CODE 2", "CODE 2"]
    (message,) = (line for line in lines if line.startswith("selftaught:"))
    assert "neither a test part nor labels" in message
