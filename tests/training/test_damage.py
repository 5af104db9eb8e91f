"""Whatever is wrong with a run folder or its disk is one sentence with exit code 2; nothing in it is ever executed."""

import errno
import json
import os
import shutil
from pathlib import Path
from pickle import PicklingError, dumps

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from crash import files, in_child, limit_files
from selftaught import cli
from selftaught.api.run import Run
from selftaught.errors import UserError
from selftaught.runs.checkpoint import Checkpoints
from selftaught.runs.folder import RunFolder
from selftaught.runs.log import read_log
from selftaught.runs.weights import read_weights, weights_bytes

# The fork below happens while torch's threads sleep; see `in_child`.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

TINY = ["--size", "16", "--batch-size", "8", "--precision", "32", "--steps", "6"]
PAYLOAD = """!!python/object/apply:os.system ["touch {bomb}"]"""


@pytest.fixture(scope="module")
def runs(images, tmp_path_factory) -> Path:
    """Two finished runs that differ in their seed alone, and one with a wider encoder."""
    root = tmp_path_factory.mktemp("runs")
    for name, seed, width in (("mine", "0", "8"), ("other", "1", "8"), ("wide", "0", "16")):
        given = [*TINY, "--seed", seed, "--width", width]
        assert cli.main(["pretrain", str(images), "--out", str(root / name), *given]) == 0
    return root


@pytest.fixture
def run(runs, tmp_path) -> Path:
    """A copy of the first to be damaged."""
    return Path(shutil.copytree(runs / "mine", tmp_path / "run"))


def resume(run: Path) -> int:
    return cli.main(["pretrain", "--resume", "--out", str(run)])


def mistake(capsys, run: Path) -> str:
    """The one sentence that going on with a run says."""
    capsys.readouterr()
    assert resume(run) == 2
    return sentence(capsys)


def sentence(capsys) -> str:
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    lines = [line for line in said.err.splitlines() if line.startswith("selftaught: ")]
    assert len(lines) == 1, said.err
    assert lines[0].endswith(".")
    return lines[0]


def flipped(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


class Bomb:
    """Unpickled by a loader that runs code, makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return (os.system, (f"touch {self.file}",))


# Checkpoints


def test_no_flipped_byte_of_a_checkpoint_goes_unnoticed(tmp_path):
    """At every place of a small one: the state is refused, or it is the one that was saved."""
    checkpoints, state = Checkpoints(tmp_path), {"step": 7, "weight": torch.arange(60.0)}
    checkpoints.save(state)
    whole, refused = checkpoints.last.read_bytes(), 0
    for at in range(len(whole)):
        checkpoints.last.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            found = checkpoints.load()
        except UserError:
            refused += 1
        else:
            assert found["step"] == 7
            assert torch.equal(found["weight"], state["weight"])
    assert refused > 60 * 4  # every byte of the weight at least


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "folder", "dangling", "other", "wide"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(run, runs, damage, capsys):
    last, previous = (run / "checkpoint" / name for name in ("last.pt", "previous.pt"))
    expected, weights = files(run)["encoder.safetensors"], run / "encoder.safetensors"
    shutil.copy(last, previous)
    if damage == "cut":
        os.truncate(last, last.stat().st_size // 2)
    elif damage == "flipped":
        flipped(last, last.stat().st_size // 2)
    elif damage == "empty":
        last.write_bytes(b"")
    elif damage == "folder":
        last.unlink()
        last.mkdir()
    elif damage == "dangling":
        last.unlink()
        last.symlink_to(run / "nowhere")
    else:  # of another run: whole, and of the right shapes in one case, but not ours
        shutil.copy(runs / damage / "checkpoint" / "last.pt", last)
    weights.unlink()
    assert resume(run) == 0
    assert weights.read_bytes() == expected
    previous.unlink()
    before = files(run)
    assert "1 damaged or from another run" in mistake(capsys, run)
    after = files(run)
    assert json.loads(after.pop("run.json"))["status"] == "failed"
    assert after == {name: before[name] for name in after}  # nothing else was touched


def test_a_checkpoint_with_code_is_refused_and_nothing_runs(run, tmp_path, capsys):
    bomb = tmp_path / "bomb"
    (run / "checkpoint" / "previous.pt").unlink(missing_ok=True)
    last, bad = run / "checkpoint" / "last.pt", {"step": 3, "weights": Bomb(bomb)}
    ways = {
        "ours, digest and all": lambda: Checkpoints(last.parent, RunFolder(run).identity()).save(bad),
        "torch's": lambda: torch.save(bad, last),
        "a bare pickle": lambda: last.write_bytes(dumps(bad)),
    }
    for way in ways.values():
        last.unlink()
        way()
        assert "1 damaged" in mistake(capsys, run)
        assert not bomb.exists()
    torch.save(bad, last)
    torch.load(last, weights_only=False)  # what another loader would have done
    assert bomb.exists()


@pytest.mark.parametrize("wrong", ["shape", "missing", "optimizer", "memory", "kind"])
def test_a_checkpoint_that_does_not_fit_is_one_sentence(run, wrong, capsys):
    """Made by somebody who knows the format: every checksum holds."""
    checkpoints = Checkpoints(run / "checkpoint", RunFolder(run).identity())
    state = checkpoints.load()
    name = next(iter(state["encoder"]))
    if wrong == "shape":
        state["encoder"][name] = torch.zeros(1, 2, 3)
    elif wrong == "missing":
        del state["encoder"][name]
    elif wrong == "optimizer":
        state["optimizers"] = []
    elif wrong == "memory":
        state["optimizers"][0]["state"][0]["exp_avg"] = torch.zeros(5)
    else:
        state["encoder"] = 5
    checkpoints.save(state)
    checkpoints.previous.unlink()
    before = files(run)["encoder.safetensors"]
    assert "does not match" in mistake(capsys, run)
    assert files(run)["encoder.safetensors"] == before


# Weights


def test_no_flipped_byte_of_the_weights_goes_unnoticed(tmp_path):
    weights = {"first": torch.arange(30.0), "second": torch.arange(4), "none": torch.zeros(0), "one": torch.tensor(1.0)}
    path = tmp_path / "encoder.safetensors"
    whole = weights_bytes(weights)
    path.write_bytes(whole)
    assert read_weights(path).keys() == weights.keys()
    unnoticed = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            found = read_weights(path)
        except UserError:
            continue
        assert all(torch.equal(found[name], weights[name]) for name in weights)
        unnoticed += 1
    assert unnoticed <= len("blake2b") + 8  # its own name, without which there is no digest to look at; padding


@pytest.mark.parametrize("damage", ["cut", "flipped", "shape", "missing", "text", "folder"])
def test_damaged_weights_are_one_sentence(run, images, damage, capsys):
    path = run / "encoder.safetensors"
    weights = load_file(path)
    name = next(name for name, weight in weights.items() if weight.ndim == 4)
    if damage == "cut":
        os.truncate(path, path.stat().st_size - 3)
    elif damage == "flipped":
        flipped(path, path.stat().st_size - 3)
    elif damage == "shape":
        save_file({**weights, name: torch.zeros(2)}, path)
    elif damage == "missing":
        save_file({other: weights[other] for other in weights if other != name}, path)
    elif damage == "text":
        path.write_text("weights")
    else:
        path.unlink()
        path.mkdir()
    with pytest.raises(UserError, match=r"^(cannot read|the weights in .* do not match)") as caught:
        Run(run).encoder  # noqa: B018
    assert str(path) in str(caught.value)
    capsys.readouterr()
    assert cli.main(["probe", str(run), "--data", str(images)]) == 2
    assert str(path) in sentence(capsys)


def test_weights_of_other_programs_are_read(tmp_path):
    save_file({"a": torch.arange(3.0)}, tmp_path / "plain.safetensors")
    assert torch.equal(read_weights(tmp_path / "plain.safetensors")["a"], torch.arange(3.0))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"name": "convnet"}', "\0", '{"name": 3, "options": {}, "size": 1, "layers": {}}'],
)
def test_a_damaged_description_is_one_sentence(run, text):
    (run / "encoder.json").write_text(text)
    with pytest.raises(UserError, match=r"encoder.json"):
        Run(run).encoder  # noqa: B018


@pytest.mark.parametrize("change", [{"name": "covnet"}, {"options": {"widht": 3}}, {"options": {"width": "wide"}}])
def test_a_description_that_describes_no_encoder_is_one_sentence(run, change):
    path = run / "encoder.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError):
        Run(run).encoder  # noqa: B018


# The rest of the folder


@pytest.mark.parametrize("text", ["", "- 1", "task: rotation\n", "data: 5\n", "\0\1\2", PAYLOAD, "data: []\nsteps: x"])
def test_a_damaged_config_is_one_sentence_and_nothing_runs(run, text, tmp_path, capsys):
    (run / "config.yaml").write_text(text.format(bomb=tmp_path / "bomb"))
    mistake(capsys, run)
    assert not (tmp_path / "bomb").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "\0"])
def test_a_damaged_status_is_one_sentence(run, text, capsys):
    (run / "run.json").write_text(text)
    assert "run.json" in mistake(capsys, run)


def test_settings_that_were_changed_by_hand_are_another_run(run, capsys):
    config = run / "config.yaml"
    text = config.read_text()
    assert "learning_rate: 0.003" in text
    config.write_text(text.replace("learning_rate: 0.003", "learning_rate: 0.1"))
    (run / "checkpoint" / "previous.pt").unlink(missing_ok=True)
    assert "from another run" in mistake(capsys, run)


def test_images_that_moved_are_still_the_same(run, images, tmp_path):
    moved = Path(shutil.copytree(images, tmp_path / "moved"))
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(images), str(moved)))
    assert resume(run) == 0


def test_changed_images_end_a_resumed_run_with_one_sentence(images, tmp_path, capsys):
    mine = Path(shutil.copytree(images, tmp_path / "images"))
    assert cli.main(["pretrain", str(mine), "--out", str(tmp_path / "run"), "--width", "8", *TINY]) == 0
    before = files(tmp_path / "run")
    Image.new("RGB", (20, 20), "red").save(mine / "3.png")
    assert "are not those that the run started with" in mistake(capsys, tmp_path / "run")
    assert files(tmp_path / "run") == before


@pytest.mark.parametrize("tail", [b'{"step": 7, "lo', b"\0\0", b"\xff\xfe\n", b"[]\n", b"3\n", b'{"step": "x"}\n'])
def test_a_log_with_rubbish_at_its_end_is_the_log_before_it(run, tail):
    path = run / "log.jsonl"
    sound = read_log(path)
    path.write_bytes(path.read_bytes() + tail)
    assert read_log(path) == sound
    assert resume(run) == 0
    assert [json.loads(line) for line in path.read_text().splitlines()] == sound


# A full disk


def test_a_disk_that_fills_up_while_saving_keeps_the_state_before(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"step": 1})

    def fill() -> None:
        limit_files(50_000)
        checkpoints.save({"step": 2, "weight": torch.zeros(100_000)})

    ended, said = in_child(fill)
    assert ended == 2
    assert "File too large" in said
    assert "the previous one is kept. Free some space, then continue with --resume" in said
    assert checkpoints.load() == {"step": 1}
    assert set(files(tmp_path)) == {"last.pt"}  # what was written of the other takes no room


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("victim", ["last.pt", "log.jsonl", "views.png", "encoder.safetensors", "encoder.json"])
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_room(
    images, runs, tmp_path, monkeypatch, victim, capsys
):
    """The disk is full from the first write of one file on; with room again, the run ends as if nothing had been."""
    run, opened, full = tmp_path / "run", os.open, []

    def limited(path, flags, *rest, **more):
        if os.path.basename(path).removesuffix(".part") == victim and flags & os.O_WRONLY:  # noqa: PTH119
            full.append(path)
        if full and flags & os.O_WRONLY:
            raise FULL
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", limited)
    assert cli.main(["pretrain", str(images), "--out", str(run), "--seed", "0", "--width", "8", *TINY]) == 2
    assert full
    said = sentence(capsys)
    assert "no space left on device" in said.lower()
    assert "--resume" in said
    assert not Run(run).finished
    monkeypatch.undo()
    assert resume(run) == 0
    assert files(run)["encoder.safetensors"] == files(runs / "mine")["encoder.safetensors"]
    assert files(run).keys() == files(runs / "mine").keys()


def test_a_bug_while_saving_is_not_called_a_full_disk(tmp_path):
    with pytest.raises((AttributeError, PicklingError)):
        Checkpoints(tmp_path).save({"step": 1, "function": lambda: 0})  # which no pickle can hold
    assert files(tmp_path) == {}
