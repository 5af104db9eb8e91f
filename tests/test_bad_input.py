"""Bad labels, annotations and weights on the command line: one sentence, exit code 2, and nothing loaded runs code."""

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from pickle import dumps

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import selftaught
from drawn import draw_coco, draw_voc, voc_xml
from selftaught.api import best
from selftaught.api.run import Run
from selftaught.cli import main
from selftaught.training.interruption import Stop
from test_run import TINY, make_images

FAST = ["--steps", "2", "--learning-rates", "0.01", "--device", "cpu"]
TRANSFER = ["--size", "32", "--seeds", "1", *FAST]


class Marker:
    """Unpickled by a loader that runs code, makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp("a") / "images", count=6)


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    return selftaught.pretrain(images, out=tmp_path_factory.mktemp("runs") / "run", width=4, **TINY).path


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def refused(capsys, *words: object) -> str:
    """The one line that is printed about bad input."""
    capsys.readouterr()
    assert main(list(map(str, words))) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("selftaught: ")]
    assert len(lines) == 1, error
    assert "Traceback" not in error
    assert lines[0].endswith((".", "?"))
    return lines[0].removeprefix("selftaught: ")


def unlabeled(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number in range(12):
        Image.effect_noise((16, 16), 50).convert("RGB").save(folder / f"{number}.png")
    return folder


EVALUATIONS = {
    "probe": ["probe"],
    "fine-tuning": ["evaluate", "--finetune", *FAST],
    "few labels": ["evaluate", "--labels-per-class", "2", *FAST],
}


@pytest.mark.parametrize("command", EVALUATIONS.values(), ids=EVALUATIONS)
def test_labels(command, run, images, tmp_path, capsys):
    def said(data: Path) -> str:
        return refused(capsys, command[0], run, "--data", data, *command[1:])

    assert "has neither a test part nor labels" in said(unlabeled(tmp_path / "bare"))
    for part in ("train", "test"):
        unlabeled(tmp_path / "split" / part)
    assert "needs labels, but" in said(tmp_path / "split")
    one = shutil.copytree(images, tmp_path / "one")
    for part in ("train", "test"):
        shutil.rmtree(one / part / "dark")
    assert "use a --data folder with one subfolder per class, at least two, or" in said(one)
    shutil.copytree(images / "test" / "dark", one / "test" / "dark")
    assert "no image in the train part of" in said(one)
    other = shutil.copytree(images, tmp_path / "other")
    for name in ("bright", "dark"):
        (other / "test" / name).rename(other / "test" / name.upper())
    assert "have no class in common (training: bright, dark; test: BRIGHT, DARK)" in said(other)
    assert not (run / "probes").exists()
    assert not list(run.glob("finetune/**/*.json"))


def test_fewer_images_than_shots(run, images, capsys):
    for way in ([], ["--finetune"]):
        message = refused(capsys, "evaluate", run, "--data", images, "--labels-per-class", "2", "100", *way, *FAST)
        assert message == (
            "--labels-per-class 100 is too large: the smallest class, 'bright', has 6 labeled training images (2 of "
            "2 classes have too few). Give a smaller number, or label more images."
        )


def test_classes_that_differ_from_those_of_the_pretraining(images, tmp_path, capsys):
    """A supervised run that is resumed: its classifier has the old classes. A probe does not use it."""
    data = Path(shutil.copytree(images, tmp_path / "data"))
    settings = {**TINY, "task": "supervised", "steps": 2}
    path = selftaught.pretrain(data, out=tmp_path / "run", width=4, **settings).path
    for part in ("train", "test"):
        (data / part / "bright").rename(data / part / "light")
    message = refused(capsys, "pretrain", "--resume", "--out", path, "--steps", "2")
    assert "changed" in message or "differ" in message
    assert main(["probe", str(path), "--data", str(data), "--device", "cpu"]) == 0


def change_coco(root: Path, change: Callable[[dict], object]) -> None:
    file = root / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_annotations(run, tmp_path, capsys):
    voc, coco = draw_voc(tmp_path / "voc"), draw_coco(tmp_path / "coco")
    (voc / "Annotations/000.xml").write_text(voc_xml([("red", (5, 5, 70, 20))]))
    assert refused(capsys, "detection", run, "--data", voc, *TRANSFER) == (
        "box 1 of 000.xml (x 5 to 70, y 5 to 20) is outside of its image of 64 x 48 pixels: correct or remove it."
    )
    change_coco(coco, lambda content: content["annotations"][0].update(bbox=[60, 2, 10, 5]))
    assert "is outside of its image of 64 x 48 pixels" in refused(capsys, "detection", run, "--data", coco, *TRANSFER)
    (voc / "Annotations/000.xml").write_text("")
    assert "000.xml is empty: an image without objects needs an annotation without objects." in refused(
        capsys, "detection", run, "--data", voc, *TRANSFER
    )
    (coco / "annotations/instances_train2017.json").write_text("")
    assert "is empty: it must list images, annotations and categories." in refused(
        capsys, "detection", run, "--data", coco, *TRANSFER
    )
    (voc / "Annotations/008.xml").write_text(voc_xml([("Red", (5, 5, 10, 20))]))
    (voc / "Annotations/000.xml").write_text(voc_xml([]))
    assert "have the class 'Red', which no training image has" in refused(
        capsys, "detection", run, "--data", voc, *TRANSFER
    )
    Image.fromarray(np.zeros((47, 64), np.uint8)).save(voc / "SegmentationClass/000.png")
    assert "has 64 x 47 pixels, but its image has 64 x 48" in refused(
        capsys, "segmentation", run, "--data", voc, *TRANSFER
    )
    assert not list(run.glob("transfer/**/*.json"))


def test_weights_that_were_tampered_with(run, images, tmp_path, capsys):
    voc, trace = draw_voc(tmp_path / "voc"), tmp_path / "trace"
    commands = [
        ["probe", run, "--data", images],
        ["quality", run, "--data", images, "--images", "4"],
        ["evaluate", run, "--data", images, "--finetune", *FAST],
        ["evaluate", run, "--data", images, "--labels-per-class", "3", *FAST],
        ["detection", run, "--data", voc, *TRANSFER],
        ["segmentation", run, "--data", voc, *TRANSFER],
    ]
    weights = run / "encoder.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    assert all("digest mismatch" in refused(capsys, *command) for command in commands)
    weights.write_bytes(content[:-7])
    assert all(str(weights) in refused(capsys, *command) for command in commands)
    weights.write_bytes(dumps(Marker(trace)))
    assert all(str(weights) in refused(capsys, *command) for command in commands)
    assert not trace.exists()


def test_weights_that_are_not_finite_or_of_other_shapes(run, images, tmp_path, capsys):
    voc, file = draw_voc(tmp_path / "voc"), run / "encoder.safetensors"
    commands = [
        ["probe", run, "--data", images],
        ["evaluate", run, "--data", images, "--finetune", *FAST],
        ["detection", run, "--data", voc, *TRANSFER],
        ["segmentation", run, "--data", voc, *TRANSFER],
    ]
    weights = load_file(file)
    name = next(name for name, value in weights.items() if value.is_floating_point())
    save_file({**weights, name: torch.full_like(weights[name], torch.nan)}, file)
    for command in commands:
        assert f"{file} contain infinity or NaN: restore the file" in refused(capsys, *command)
    save_file({**weights, name: torch.zeros(3)}, file)
    for command in commands:
        assert f"{file} do not match encoder.json: restore" in refused(capsys, *command)


def test_a_checkpoint_that_is_a_pickle_is_not_loaded(run, tmp_path, capsys):
    trace = tmp_path / "trace"
    for path in (run / "checkpoint").glob("*.pt"):
        path.write_bytes(dumps(Marker(trace)))
    message = refused(capsys, "pretrain", "--resume", "--out", run, "--steps", "4")
    assert "no valid checkpoint in" in message
    assert not trace.exists()


def test_files_of_an_interrupted_evaluation_that_are_pickles_are_not_loaded(run, images, tmp_path, capsys, monkeypatch):
    """Checkpoint, best weights and result of a fine-tuning."""
    trace, stop, step, taken = tmp_path / "trace", Stop(), best.Trainer.step, []

    def interrupted(self, *arguments):
        taken.append(1)
        if len(taken) == 2:
            stop.request()
        return step(self, *arguments)

    settings = {"steps": 4, "seeds": 1, "learning_rates": (0.01,), "batch_size": 4, "device": "cpu"}
    words = ["evaluate", run, "--data", images, "--finetune", "--steps", "4", "--seeds", "1", "--learning-rates",
             "0.01", "--batch-size", "4", "--device", "cpu"]  # fmt: skip
    monkeypatch.setattr(best.Trainer, "step", interrupted)
    assert Run(run).finetune(images, stop=stop, **settings) is None
    monkeypatch.setattr(best.Trainer, "step", step)
    saved = list(run.glob("finetune/**/*.pt"))
    assert {path.parent.name for path in saved} == {"checkpoint", "best"}
    for path in saved:
        path.write_bytes(dumps(Marker(trace)))
    assert "no valid checkpoint in" in refused(capsys, *words)
    for path in saved:
        path.unlink()
    assert Run(run).finetune(images, **settings) is not None
    (result,) = run.glob("finetune/**/fine-tuned-0/result.npz")
    file = io.BytesIO()
    np.savez(file, correct=np.array([Marker(trace)], object), facts=np.array("{}"))
    result.write_bytes(file.getvalue())
    assert "result.npz is damaged: remove it and repeat the command." in refused(capsys, *words)
    assert not trace.exists()
