"""Killed at every moment there is, a run is in its last good state: before, or after, and never between.

Operation by operation for the files of a run; at random moments, by SIGKILL from outside, for a run as a whole.
"""

import functools
import io
import json
import math
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from test_loop import same

from crash import die_before, files, in_child
from forks import server
from selftaught.runs.atomic import write_text
from selftaught.runs.checkpoint import Checkpoints
from selftaught.runs.folder import RunFolder
from selftaught.runs.log import read_log
from selftaught.runs.weights import read_weights
from selftaught.training.log import Log

# The forks below happen while torch's threads sleep; see `in_child`.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

STATES = [{"step": step, "weight": torch.full((1000,), float(step))} for step in (1, 2, 3)]


def every_moment(folder: Path, work: Callable[[Path], object], check: Callable[[Path], object]) -> int:
    """Do the work in a child that dies before its first, second, ... operation until it lives; check each time."""
    for number in range(1000):
        place = folder / str(number)
        place.mkdir()
        end, _ = in_child(lambda number=number, place=place: (die_before(number), work(place)))
        assert end in (0, -9), end
        check(place)
        if end == 0:
            return number
    raise AssertionError("the work never ended")


@pytest.fixture
def saving(tmp_path) -> Callable[[Path], object]:
    """Saves three states; says in a file of its own which `save` has returned."""

    def work(folder: Path) -> None:
        checkpoints = Checkpoints(folder / "checkpoint", "mine")
        for state in STATES:
            checkpoints.save(state)
            os.write(returned := os.open(folder / "returned", os.O_CREAT | os.O_WRONLY), str(state["step"]).encode())
            os.close(returned)

    return work


def test_a_kill_while_saving_costs_nothing_that_was_saved_and_saving_goes_on(tmp_path, saving):
    found = []

    def check(folder: Path) -> None:
        saved = Checkpoints(folder / "checkpoint", "mine").load()
        returned = int((folder / "returned").read_text() or 0) if (folder / "returned").exists() else 0
        step = 0 if saved is None else saved["step"]
        assert returned <= step <= returned + 1
        if saved is not None:
            assert torch.equal(saved["weight"], STATES[step - 1]["weight"])
        found.append(step)
        saving(folder)
        assert set(files(folder / "checkpoint")) == {"last.pt", "previous.pt"}  # nothing is left behind
        assert Checkpoints(folder / "checkpoint", "mine").load()["step"] == 3

    assert every_moment(tmp_path, saving, check) > 15
    assert set(found) == {0, 1, 2, 3}
    assert found == sorted(found)  # a later death never knows less


def test_weights_are_old_or_new_and_never_without_their_description(tmp_path):
    old, new = ({"filters": torch.full((64, 3), value)} for value in (0.0, 1.0))
    described = {"name": "convnet", "options": {}, "size": 32, "layers": {}}

    def begun(folder: Path) -> RunFolder:
        run = RunFolder(folder)
        run.write_config({"data": []})
        return run

    def check(folder: Path, known: tuple[float, ...]) -> None:
        run = RunFolder(folder)
        if known == (0.0, 1.0) or run.weights.exists():
            weights, description = run.read_encoder()
            assert description == described
            assert weights["filters"].unique().tolist() in [[value] for value in known]

    def first(folder: Path) -> None:
        begun(folder).write_encoder(new, described)

    def second(folder: Path) -> None:
        RunFolder(folder).write_encoder(new, described)

    (tmp_path / "first").mkdir()
    every_moment(tmp_path / "first", first, lambda folder: check(folder, (1.0,)))
    (tmp_path / "second").mkdir()
    for number in range(1000):
        place = tmp_path / "second" / str(number)
        place.mkdir()
        begun(place).write_encoder(old, described)
        end, _ = in_child(lambda number=number, place=place: (die_before(number), second(place)))
        check(place, (0.0, 1.0))
        if end == 0:
            break
    assert read_weights(RunFolder(place).weights)["filters"].unique().tolist() == [1.0]


def test_a_small_file_is_old_or_new(tmp_path):
    status = tmp_path / "run.json"
    for number in range(100):
        write_text(status, "old")
        end, _ = in_child(lambda number=number: (die_before(number), write_text(status, "new")))
        assert status.read_text() in ("old", "new")
        if end == 0:
            break
    assert status.read_text() == "new"


def test_a_log_is_whole_up_to_its_last_line_whenever_its_writer_dies(tmp_path):
    def work(folder: Path) -> None:
        log = Log(folder / "log.jsonl", 5, 8, {}, 1, Console(file=io.StringIO()))
        log.begin(0)
        for step in range(1, 6):
            log.write(step, {"loss": torch.tensor(float(step))}, 0.1)

    def check(folder: Path) -> None:
        lines = read_log(folder / "log.jsonl")
        assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
        assert [line["loss"] for line in lines] == [line["step"] for line in lines]

    every_moment(tmp_path, work, check)


def test_a_folder_that_was_only_asked_for_can_be_asked_for_again(tmp_path):
    def work(folder: Path) -> None:
        run = RunFolder(folder)
        run.claim()
        with run.locked():
            write_text(run.skipped, "a.png: is empty\n")
            run.update_status(status="running", step=0)
            run.write_config({"data": []})

    def check(folder: Path) -> None:
        run = RunFolder(folder)
        if not run.config.exists():  # else it is a run, and --resume goes on with it
            run.claim()

    every_moment(tmp_path, work, check)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="contains other files"):  # without our lock the name alone says nothing
        RunFolder(tmp_path / "mine").claim()


# A run as a whole. Its processes are those of `forks.py`.

SETTINGS = ["--size", "16", "--batch-size", "8", "--width", "8", "--precision", "32", "--threads", "1", "--seed", "5"]


def carry_out(arguments: list[str], cache: str, often: bool) -> None:
    """A command in a process of its own, saving at every step if it is to be killed."""
    os.environ["SELFTAUGHT_CACHE"] = cache
    from selftaught import cli
    from selftaught.api import session
    from selftaught.training import loop

    if often:
        loop.SAVING = math.inf
        session.train = functools.partial(session.train, save_seconds=-1)
    os._exit(cli.main(arguments))


def pictures(folder: Path) -> list[str]:
    """Forty small pictures, and a damaged one, which is skipped whatever happens."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for number in range(40):
        pixels = torch.randint(256, (20, 20, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    (folder / "damaged.png").write_bytes(b"\x89PNG")
    return [str(folder)]


def photo(folder: Path) -> list[str]:
    """A photo to be cut into crops."""
    folder.mkdir()
    pixels = torch.randint(256, (60, 80, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).resize((160, 120)).save(folder / "photo.png")
    return [str(folder / "photo.png"), "--num-crops", "300"]


def killed_and_resumed(arguments: list[str], out: Path, cache: Path, kills: int, seed: int) -> dict[str, int]:
    """Run to the end, killed on the way; where the kills fell.

    Half of them come after a random time, half at the next moment when a checkpoint is being written.
    """
    draw, context, fell = random.Random(seed), server(), {"before the run": 0, "inside a save": 0, "elsewhere": 0}
    part = out / "checkpoint" / "last.pt.part"
    while True:
        begun = (out / "config.yaml").exists()
        command = ["pretrain", "--resume", "--out", str(out)] if begun else ["pretrain", *arguments, "--out", str(out)]
        done = sum(fell.values())
        process = context.Process(target=carry_out, args=(command, str(cache), done < kills))
        process.start()
        if done < kills:
            logged = (out / "log.jsonl").stat().st_size if (out / "log.jsonl").exists() else 0
            while done and process.is_alive() and not progressed(out / "log.jsonl", logged):
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.5))
            end = time.monotonic() + 2
            while done % 2 and process.is_alive() and not part.exists() and time.monotonic() < end:
                pass
            process.kill()
        process.join(120)
        if process.exitcode == 0:
            return fell
        assert process.exitcode == -9, process.exitcode
        where = "inside a save" if part.exists() else "elsewhere"
        fell[where if (out / "config.yaml").exists() else "before the run"] += 1


def progressed(log: Path, size: int) -> bool:
    """Whether a process has rewritten the log of the one before and added to it, or dropped what came too late."""
    return log.exists() and log.stat().st_size != size


def losses(out: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


def status(out: Path) -> dict[str, object]:
    found = json.loads((out / "run.json").read_text())
    return {name: value for name, value in found.items() if name not in ("began", "seconds")}


def assert_the_same_run(one: Path, other: Path) -> None:
    first, second = (
        {name: text for name, text in files(out).items() if "previous" not in name} for out in (one, other)
    )
    assert first.keys() == second.keys()  # no leftovers, no missing grid
    timeless = [name for name in first if name not in ("log.jsonl", "run.json") and not name.endswith(".pt")]
    assert [name for name in timeless if first[name] != second[name]] == []
    states = [torch.load(out / "checkpoint" / "last.pt", weights_only=True) for out in (one, other)]
    for state in states:
        del state["seconds"]
    assert same(*states)  # though their pickles need not have the same bytes
    assert losses(one) == losses(other)
    assert status(one) == status(other)
    assert status(one)["status"] == "finished"


def run_killed(tmp_path: Path, source: Callable[[Path], list[str]], steps: int, kills: int) -> dict[str, int]:
    arguments = [*source(tmp_path / "images"), *SETTINGS, "--steps", str(steps)]
    killed_and_resumed(arguments, tmp_path / "whole", tmp_path / "cache", 0, 0)
    fell = killed_and_resumed(arguments, tmp_path / "parts", tmp_path / "cache", kills, 1)
    assert_the_same_run(tmp_path / "whole", tmp_path / "parts")
    return fell


@pytest.mark.slow  # operation by operation above, and in test_loop.py without a signal
def test_a_run_killed_twice_ends_as_if_nothing_had_happened(tmp_path):
    assert sum(run_killed(tmp_path, pictures, 24, 2).values()) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("source", [pictures, photo])
def test_a_run_killed_twenty_times_ends_as_if_nothing_had_happened(tmp_path, source, record_property):
    begun = time.monotonic()
    fell = run_killed(tmp_path, source, 1500, 20)
    record_property("kills", fell)
    print(f"{fell}, {time.monotonic() - begun:.0f} s")
    assert sum(fell.values()) == 20
