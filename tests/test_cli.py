"""The command line as a person meets it: one sentence for a mistake, exit code 2, and nothing overwritten."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forks import Fork, run_command
from selftaught.cli import main
from selftaught.data import open_source
from selftaught.runs.folder import RunFolder

TINY = ("--size", "16", "--batch-size", "8", "--width", "8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two classes of 24 pictures: stripes this way and that way."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, axis in (("across", 0), ("down", 1)):
        (root / name).mkdir()
        for number in range(24):
            stripes = (np.arange(24) // 3 % 2 * 180 + rng.integers(0, 60, 24)).astype(np.uint8)
            picture = np.repeat(np.expand_dims(stripes, axis), 24, axis)
            Image.fromarray(np.stack([picture] * 3, -1)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["pretrain", str(folder), "--steps", "6", "--out", str(out), *TINY]) == 0
    return out


def mistake(capsys, *arguments) -> str:
    """What is said of a mistake: one line, on standard error alone."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.strip().splitlines()
    assert len(lines) == 1, lines
    assert "Traceback" not in lines[0]
    return lines[0]


def test_a_run_holds_what_the_design_says(run):
    for name in ("config.yaml", "run.json", "log.jsonl", "encoder.safetensors", "encoder.json", "shown/views.png"):
        assert (run / name).is_file(), name
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert len((run / "log.jsonl").read_text().splitlines()) == 6


def test_pictures_of_a_run_are_of_the_same_images_throughout(run):
    kept = [path.read_bytes() for path in run.glob("shown/**/views.png")]
    assert len(kept) > 2
    assert len(set(kept)) == 1  # views of rotation are the same whatever was learned


def test_probe_prints_one_object_and_nothing_else(run, folder, capsys):
    capsys.readouterr()
    assert main(["probe", str(run), "--data", str(folder), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["metric"] == "accuracy"
    labels = open_source(folder, split="test").labels
    assert table["chance"] == labels.bincount().max().item() / len(labels)
    layers = json.loads((run / "encoder.json").read_text())["layers"]
    assert [row["layer"] for row in table["layers"]] == list(layers)
    assert all(0 <= row["accuracy"] <= 1 and 0 <= row["random"] <= 1 for row in table["layers"])


def test_invariance_asks_every_layer_without_labels_and_keeps_its_figure(run, folder, capsys):
    capsys.readouterr()
    assert main(["invariance", str(run), "--data", str(folder / "across"), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    layers = json.loads((run / "encoder.json").read_text())["layers"]
    assert list(dict.fromkeys(row["layer"] for row in table["rows"])) == list(layers)
    assert all(0 <= row["nearer"] <= 1 and 0 <= row["random"] <= 1 for row in table["rows"])
    assert [path.suffix for path in sorted((run / "invariance").iterdir())] == [".json", ".svg"]


def test_an_audit_asks_the_task_again_on_images_that_training_did_not_see(run, folder, capsys, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    capsys.readouterr()
    assert main(["audit", str(run), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert (table["metric"], table["chance"], table["overlap"]) == ("accuracy", 0.25, 0)
    assert "test" in table["data"]
    assert table["rows"][0]["change"] == "as trained"
    assert [path.suffix for path in sorted((run / "audit").iterdir())] == [".json", ".svg"]
    assert main(["audit", str(run), "--data", str(folder / "across"), "--images", "8"]) == 0
    assert "as trained" in capsys.readouterr().out


def test_an_audit_says_when_images_were_seen_however_many_of_them(folder, capsys, tmp_path):
    flat, out = folder / "across", tmp_path / "run"
    assert main(["pretrain", str(flat), "--steps", "2", "--out", str(out), *TINY]) == 0
    capsys.readouterr()
    for more in ((), ("--data", str(flat), "--images", "8")):
        assert main(["audit", str(out), *more, "--json"]) == 0
        table = json.loads(capsys.readouterr().out)
        assert table["overlap"] == table["images"] > 0


def test_a_probe_says_when_its_test_images_were_among_those_of_pretraining(folder, capsys, tmp_path):
    flat = tmp_path / "flat"
    for path in sorted(folder.rglob("*.png")):
        flat.mkdir(exist_ok=True)
        Image.open(path).resize((16, 16)).save(flat / f"{path.parent.name}-{path.name}")
    (few := tmp_path / "few.csv").write_text(
        "path,label\n" + "".join(f"{path.name},{path.name.split('-')[0]}\n" for path in sorted(flat.iterdir()))
    )
    for name, more in (("all", ()), ("apart", ("--labels", str(few)))):
        out = tmp_path / name
        assert main(["pretrain", str(flat), *more, "--steps", "2", "--out", str(out), *TINY]) == 0
        capsys.readouterr()
        assert main(["probe", str(out), "--data", str(flat), "--labels", str(few), "--json"]) == 0
        table = json.loads(capsys.readouterr().out)
        assert table["overlap"] == (table["test"] if name == "all" else 0)
        assert table["test"] > 0


def test_an_audit_of_a_task_that_remembers_images_takes_those_and_no_others(folder, capsys, tmp_path):
    out = tmp_path / "run"
    task = ("--task", "npid", "--negatives", "4")
    assert main(["pretrain", str(folder), "--steps", "2", "--out", str(out), *task, *TINY]) == 0
    capsys.readouterr()
    assert main(["audit", str(out), "--images", "16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["overlap"] == 16
    assert "only on its pretraining images" in mistake(capsys, "audit", out, "--data", folder)


def test_an_audit_of_a_photo_takes_other_crops_of_it(capsys, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    out = tmp_path / "run"
    assert main(["pretrain", str(tmp_path / "photo.png"), "--steps", "2", "--out", str(out), *TINY]) == 0
    assert f"next: selftaught probe {out} --data LABELED_IMAGES" in capsys.readouterr().err
    assert main(["audit", str(out), "--images", "16", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert (table["data"], table["images"], table["overlap"]) == (
        "photo.png",
        16,
        16,
    )  # other crops, but of the same photo


def test_an_audit_needs_a_checkpoint_and_a_task_with_a_chance_level(run, folder, capsys, tmp_path):
    without = shutil.copytree(run, tmp_path / "without")
    shutil.rmtree(without / "checkpoint")
    assert "no checkpoint in" in mistake(capsys, "audit", without)
    out = tmp_path / "plain"
    assert main(["pretrain", str(folder), "--steps", "1", "--task", "autoencoder", "--out", str(out), *TINY]) == 0
    assert "but Autoencoder has none" in mistake(capsys, "audit", out)


def test_a_run_that_was_shown_tiles_is_recalibrated_and_the_probe_says_so(run, folder, tmp_path, capsys):
    described = json.loads((run / "encoder.json").read_text())
    assert described["uses_tiles"] is False
    tiled = shutil.copytree(run, tmp_path / "uses_tiles")
    (tiled / "encoder.json").write_text(json.dumps({**described, "uses_tiles": True}))
    for which, found in ((run, False), (tiled, True)):
        capsys.readouterr()
        assert main(["probe", str(which), "--data", str(folder), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["recalibrated"] is found
    for flag, found in (("--no-recalibrate", False), ("--recalibrate", True)):
        assert main(["probe", str(tiled), "--data", str(folder), "--json", flag]) == 0
        assert json.loads(capsys.readouterr().out)["recalibrated"] is found
    assert len(list((tiled / "probes").glob("*.json"))) == 3


def test_compare_and_report_name_the_run(run, tmp_path, capsys):
    assert main(["compare", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert run.name in capsys.readouterr().out
    assert "<html" in (tmp_path / "page.html").read_text()
    assert main(["report", str(run), "--out", str(tmp_path / "one.html")]) == 0


def test_compare_passes_over_pages_that_lie_between_runs(run, tmp_path, capsys):
    (page := tmp_path / "page.html").write_text("no run")
    assert main(["compare", str(page), str(run)]) == 0
    said = capsys.readouterr()
    assert run.name in said.out
    assert said.err == f"selftaught: skipped, not a run: {page}\n"
    assert main(["compare", str(page)]) == 2
    assert "is not a run folder (no config.yaml)" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["tasks", "encoders", "sources", "probes", "baselines"])
def test_lists(what, capsys):
    assert main(["list", what, "--json"]) == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)[what]]
    assert main(["list", what]) == 0
    said = capsys.readouterr().out
    assert names
    assert all(name in said for name in names)


def test_a_config_repeats_the_run(run, tmp_path):
    assert main(["pretrain", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    for name in ("encoder.safetensors", "config.yaml"):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes()


def test_what_is_given_beside_a_config_wins(run, tmp_path):
    arguments = ["pretrain", "--config", str(run / "config.yaml"), "--epochs", "0.4", "--angles", "0", "180"]
    assert main([*arguments, "--out", str(tmp_path / "other")]) == 0
    status = json.loads((tmp_path / "other" / "run.json").read_text())
    assert status["steps"] == 2
    assert status["chance"] == {"accuracy": 0.5}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_resume_ends_the_run(run, tmp_path, number):
    """Stopped by a real signal and resumed, a run has the weights of the one that was not."""
    out = tmp_path / "stopped"
    arguments = ["pretrain", "--config", str(run / "config.yaml"), "--steps", "120", "--out", str(out)]
    process = Fork(run_command, *arguments)
    while not (out / "log.jsonl").exists() or not (out / "log.jsonl").read_text():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"--resume --out {out}" in said
    status = json.loads((out / "run.json").read_text())
    assert status["status"] == "interrupted"
    assert 0 < status["step"] < 120
    assert main(["pretrain", "--resume", "--out", str(out)]) == 0
    assert main(["pretrain", *arguments[1:-1], str(tmp_path / "whole")]) == 0
    weights = [(tmp_path / name / "encoder.safetensors").read_bytes() for name in ("stopped", "whole")]
    assert weights[0] == weights[1]


def test_the_command_that_began_a_run_can_be_repeated_with_resume(folder, tmp_path, capsys):
    command = ["pretrain", str(folder), "--epochs", "1", "--precision", "auto", "--out", str(tmp_path / "run"), *TINY]
    assert main(command) == 0
    assert main([*command, "--resume"]) == 0
    command[3] = "2"
    assert "to extend a finished run, leave SOURCE out" in mistake(capsys, *command, "--resume")


def test_a_finished_run_is_extended_by_a_budget(run, tmp_path):
    """The extended run is the one that its config describes: made anew from it, it has the same weights."""
    longer = shutil.copytree(run, tmp_path / "longer")
    assert main(["pretrain", "--resume", "--out", str(longer), "--steps", "4"]) == 0
    lines = [json.loads(line) for line in (longer / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert lines[6]["learning_rate"] > lines[5]["learning_rate"]  # a new cycle
    assert main(["pretrain", "--config", str(longer / "config.yaml"), "--out", str(tmp_path / "anew")]) == 0
    weights = [(tmp_path / name / "encoder.safetensors").read_bytes() for name in ("longer", "anew")]
    assert weights[0] == weights[1]


def test_an_extension_that_is_killed_before_its_config_can_be_repeated(run, tmp_path, monkeypatch):
    longer = shutil.copytree(run, tmp_path / "longer")
    steps, command = RunFolder(run).read_config()["steps"], ["pretrain", "--resume", "--out", str(longer), "--steps"]

    def killed(self, config):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_config", killed)
        assert main([*command, "4"]) == 130
    assert main([*command, "4"]) == 0
    status = RunFolder(longer).read_status()
    assert (status["status"], status["step"]) == ("finished", steps + 4)


class TestMistakes:
    def test_names_that_do_not_exist_have_near_ones(self, folder, capsys, tmp_path):
        out = ("--steps", 1, "--out", tmp_path / "run")
        assert "did you mean rotation" in mistake(capsys, "pretrain", folder, "--task", "rotatoin", *out)
        assert "did you mean convnet?" in mistake(capsys, "pretrain", folder, "--encoder", "covnet", *out)
        assert "--angles" in mistake(capsys, "pretrain", folder, "--anlges", 0, *out)
        assert "resnet18" in mistake(capsys, "pretrain", folder, "--encoder", "timm:resnet81", *out)
        assert "cifar10" in mistake(capsys, "pretrain", "cifra10", *out)
        assert "pretrain" in mistake(capsys, "pretrian")
        assert not (tmp_path / "run").exists()

    def test_a_size_beyond_all_memory(self, run, folder, capsys):
        for size in (4097, 2**63):
            assert "--size must be from 1 to 4,096" in mistake(capsys, "probe", run, "--data", folder, "--size", size)

    def test_paths(self, run, folder, capsys, tmp_path):
        assert "missing" in mistake(capsys, "pretrain", tmp_path / "missing", "--steps", 1)
        assert "missing required argument SOURCE" in mistake(capsys, "pretrain", "--steps", 1)
        assert "missing is not a run folder" in mistake(capsys, "probe", tmp_path / "missing", "--data", folder)
        (tmp_path / "empty").mkdir()
        assert "no images in" in mistake(capsys, "pretrain", tmp_path / "empty", "--steps", 1, "--out", tmp_path / "o")

    def test_a_demo_looks_for_its_images_before_it_trains(self, capsys, tmp_path):
        assert "no source called 'nosuch'" in mistake(capsys, "demo", "--data", "nosuch", "--out", tmp_path / "demo")
        assert not (tmp_path / "demo").exists()

    def test_a_run_is_never_overwritten(self, run, folder, capsys):
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        assert "another run" in mistake(capsys, "pretrain", folder, "--steps", 1, "--out", run, *TINY)
        assert "cannot change --learning-rate" in mistake(
            capsys, "pretrain", "--resume", "--out", run, "--learning-rate", 0.5
        )
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before

    def test_no_permission_to_write(self, folder, capsys, tmp_path):
        (tmp_path / "file").write_text("")
        assert "is not writable" in mistake(
            capsys, "pretrain", folder, "--steps", 1, "--out", tmp_path / "file" / "run", *TINY
        )
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "writable" in mistake(capsys, "pretrain", folder, "--steps", 1, "--out", tmp_path / "locked" / "run")

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            (("--size", 0), "--size must be from 1 to 4,096, got 0"),
            (("--batch-size", -1), "--batch-size must be from 1 to 1,048,576, got -1"),
            (("--minutes", 0), "--minutes must be above 0"),
            (("--minutes", "soon"), "--minutes"),
            (("--epochs", 1), "exactly one of"),
            (("--angles", 0), "at least two different angles, got 0"),
            (("--angles", 0, 360), "at least two different angles"),
            (("--head", "big"), "--head"),
            (("--learning-rate", -1), "--learning-rate must be above 0"),
            (("--device", "tpu9"), "--device expects a device"),
            (("--num-crops", 10), "--num-crops applies to photos"),
            (("--crop-area", 0.2, 1), "--crop-area applies to photos, and"),
            (("--photos.crop-jitter", 0), "--crop-jitter applies to photos, and"),
            (("--limit", 0), "--limit must be from 1 to"),
            (("--labels", "nothing.csv"), "nothing.csv"),
        ],
    )
    def test_values_that_cannot_be(self, folder, capsys, tmp_path, wrong, words):
        budget = () if "--minutes" in wrong else ("--steps", 1)
        assert words in mistake(capsys, "pretrain", folder, *budget, "--out", tmp_path / "run", *wrong)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("asked", ["probe", "invariance"])
    def test_views_that_the_encoder_cannot_read(self, run, folder, capsys, asked):
        for size in (1, 2):
            said = mistake(capsys, asked, run, "--data", folder, "--size", size)
            assert f"cannot process views of {size} pixels: increase --size, or choose another" in said
        assert "--images must be from 2" in mistake(capsys, "invariance", run, "--data", folder, "--images", 1)

    def test_a_probe_needs_labels(self, run, capsys, tmp_path):
        Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
        Image.new("RGB", (20, 20), "red").save(tmp_path / "b.png")
        assert "label" in mistake(capsys, "probe", run, "--data", tmp_path)
        assert "--data" in mistake(capsys, "probe", run)
        assert "--seeds" in mistake(capsys, "probe", run, "--data", tmp_path, "--seeds", "many")

    def test_a_config_is_read_as_strictly_as_flags(self, folder, capsys, tmp_path):
        for text, words in (("head: big", "head"), ("scale: [1, 2, 3]", "scale"), ("steps: many", "steps")):
            (tmp_path / "a.yaml").write_text(f"data: [{folder}]\n{text}\n")
            assert words in mistake(capsys, "pretrain", "--config", tmp_path / "a.yaml", "--out", tmp_path / "run")

    def test_a_config_that_is_none(self, capsys, tmp_path):
        (tmp_path / "a.yaml").write_text("- 1\n- 2\n")
        assert "name: value" in mistake(capsys, "pretrain", "--config", tmp_path / "a.yaml")
        (tmp_path / "b.yaml").write_text("{{{")
        assert "YAML" in mistake(capsys, "pretrain", "--config", tmp_path / "b.yaml")
        (tmp_path / "c.yaml").write_text("task: rotation\nangels: [0, 90]\n")
        assert "did you mean angles" in mistake(capsys, "pretrain", "--config", tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("command", "arguments"), [("pretrain", "SOURCE..."), ("compare", "RUN..."), ("baseline", "NAME SOURCE...")]
)
def test_usage_names_the_positional_arguments(command, arguments, capsys):
    assert main([command, "--help"]) == 0
    assert f"Usage: selftaught {command} [OPTIONS] {arguments}\n" in capsys.readouterr().out
