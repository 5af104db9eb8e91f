"""Hostile results of evaluations in a run folder: refused in one sentence, or harmless; nothing outside is touched.

The files are those that the commands write, found by pattern, so that none is forgotten when their content changes.
"""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import ESCAPE, POSTSCRIPT, SECRET, Outside, bomb, link, pipe, remove, replace, watched
from valid_run import make_images, make_run

from drawn import draw_voc
from selftaught import cli

TRAINED = ["--steps", "1", "--learning-rates", "1e-3", "--seeds", "1"]
VOC = ["--size", "32", "--batch-size", "2", "--evaluations", "1"]
COMMANDS = {
    "quality": ["quality", "RUN", "--data", "IMAGES", "--images", "8"],
    "finetune": ["evaluate", "RUN", "--data", "IMAGES", "--finetune", *TRAINED, "--size", "16", "--batch-size", "4"],
    "few": ["evaluate", "RUN", "--data", "IMAGES", "--labels-per-class", "2", "--draws", "1", "--no-from-scratch"],
    "detection": ["detection", "RUN", "--data", "VOC", *TRAINED, *VOC, "--head-width", "8"],
    "segmentation": ["segmentation", "RUN", "--data", "VOC", *TRAINED, *VOC],
    "attention": ["attention", "RUN", "--data", "IMAGES", "--images", "1"],
    "report": ["report", "RUN"],
}
QUICK = [("finetune/*/2-per-class/probe-0/result.npz", "few", False)]
"""Files (the first one of a pattern), the command that reads them, and whether its trainings are repeated."""
SLOW = [
    ("quality", "quality", False), ("quality/*.json", "report", False), ("quality/*.svg", "quality", False),
    ("finetune", "few", False), ("finetune/*.json", "report", False), ("finetune/*.npz", "few", False),
    ("finetune/*/all", "finetune", False), ("finetune/*/all/fine-tuned-0", "finetune", False),
    ("finetune/*/all/fine-tuned-0/result.npz", "finetune", False),
    *[(f"finetune/*/all/{name}", "finetune", True) for name in (
        "plan.json", "fine-tuned-0/rate-*", "fine-tuned-0/rate-*/log.jsonl", "fine-tuned-0/rate-*/validation.json",
        "fine-tuned-0/model.safetensors",
    )],
    ("transfer", "segmentation", False), ("transfer/*segmentation*.json", "segmentation", False),
    ("transfer/*segmentation*.npz", "segmentation", False), ("transfer/*segmentation-*/seed-0", "segmentation", False),
    *[(f"transfer/*{kind}-*/seed-0/result.npz", kind, False) for kind in ("detection", "segmentation")],
    *[(f"transfer/*segmentation-*/{name}", "segmentation", True) for name in (
        "plan.json", "seed-0/rate-*", "seed-0/rate-*/best", "seed-0/rate-*/checkpoint", "seed-0/rate-*/log.jsonl",
        "seed-0/rate-*/validation.json", "seed-0/model.safetensors",
    )],
    ("pictures", "attention", False), ("pictures/attention*.json", "report", False),
    ("pictures/attention*.png", "report", False), ("probes/*.npz", "report", False),
]  # fmt: skip


def put(value: Any, wrong: object, *kinds: type) -> Any:
    """The value with another one in the place of each of certain types."""
    if isinstance(value, dict):
        return {name: put(item, wrong, *kinds) for name, item in value.items()}
    if isinstance(value, list):
        return [put(item, wrong, *kinds) for item in value]
    return wrong if isinstance(value, kinds) and not isinstance(value, bool) else value


def edit_json(path: Path, wrong: object, *kinds: type) -> None:
    """Change values of a JSON file, or of the first line of a log."""
    text = path.read_text()
    replace(path, json.dumps(put(json.loads(text.splitlines()[0] if path.suffix == ".jsonl" else text), wrong, *kinds)))


def edit_arrays(path: Path, change: Callable[[str, np.ndarray], np.ndarray]) -> None:
    with np.load(path) as file:
        content = {name: change(name, file[name]) for name in file.files}
    path.unlink()
    np.savez(path, **content)


def edit_facts(path: Path, wrong: object, *kinds: type) -> None:
    edit_arrays(path, lambda name, array: np.array(json.dumps(put(json.loads(str(array)), wrong, *kinds)))
                if name == "facts" else array)  # fmt: skip


def hazards(path: Path, outside: Outside) -> dict[str, Callable[[Path], object]]:
    """What may be in the place of a file or a folder."""
    if path.is_dir():
        return {
            "link": lambda path: link(path, outside.folder / "private"),
            "file": lambda path: replace(path, "x"),
            "pipe": pipe,
        }
    found: dict[str, Callable[[Path], object]] = {
        "link": lambda path: link(path, outside.secret),
        "pipe": pipe,
        "bytes": lambda path: replace(path, b"\xff\xfe\0"),
        "empty": lambda path: replace(path, b""),
        "folder": lambda path: (remove(path), path.mkdir()),
    }
    if path.suffix in (".json", ".jsonl"):
        found |= {
            "list": lambda path: replace(path, "[]"),
            "nothing": lambda path: replace(path, "{}"),
            "deep": lambda path: replace(path, "[" * 900 + "]" * 900),
            "huge": lambda path: replace(path, '{"a": "' + "x" * 2**24 + '"}'),
            "escapes": lambda path: edit_json(path, ESCAPE, str),
            "numbers": lambda path: edit_json(path, 1e308, int, float),
        }
    if path.suffix == ".npz":
        found |= {
            "bomb": lambda path: replace(path, bomb()),
            "pickle": lambda path: np.savez(path, facts=np.array([{}], dtype=object)),
            "no arrays": lambda path: np.savez(path),
            "short": lambda path: edit_arrays(path, lambda name, array: array[..., :1] if array.ndim else array),
            "scalars": lambda path: edit_arrays(path, lambda name, array: array.ravel()[0] if array.size else array),
            "text": lambda path: edit_arrays(path, lambda name, array: array.astype(str)),
            "numbers": lambda path: edit_arrays(path, lambda name, array: array * 1.5 if name != "facts" else array),
        }
        if path.name == "result.npz":
            found |= {
                "escapes": lambda path: edit_facts(path, ESCAPE, str),
                "text for numbers": lambda path: edit_facts(path, ESCAPE, int, float),
                "large numbers": lambda path: edit_facts(path, 1e308, int, float),
            }
    if path.suffix == ".png":
        found |= {"postscript": lambda path: replace(path, POSTSCRIPT)}
    return found


class Evaluated:
    """A run with the results of every command."""

    def __init__(self, root: Path, commands: tuple[str, ...]) -> None:
        self.images, self.voc = make_images(root / "images"), draw_voc(root / "voc")
        self.run = make_run(root, self.images)
        for command in commands:
            assert cli.main(self.words(command, self.run)) == 0

    def words(self, command: str, run: Path) -> list[str]:
        names = {"RUN": str(run), "IMAGES": str(self.images), "VOC": str(self.voc)}
        return [names.get(word, word) for word in COMMANDS[command]]


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Evaluated:
    return Evaluated(tmp_path_factory.mktemp("few"), ("few",))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Evaluated:
    return Evaluated(tmp_path_factory.mktemp("all"), tuple(COMMANDS))


def survive(valid: Evaluated, pattern: str, command: str, again: bool, place: Path, capsys, monkeypatch) -> None:
    target = sorted(valid.run.glob(pattern))[0].relative_to(valid.run)
    for hazard, plant in hazards(valid.run / target, Outside(place / "none")).items():
        outside = Outside(place / hazard / "outside")
        plant = hazards(valid.run / target, outside)[hazard]
        monkeypatch.setenv("PATH", f"{outside.programs}:/usr/bin:/bin")
        run = Path(shutil.copytree(valid.run, place / hazard / "run"))
        for result in run.glob("*/*/**/result.npz") if again else ():
            result.unlink()
        plant(run / target)
        capsys.readouterr()
        with watched() as opened:
            code = cli.main(valid.words(command, run))
        said = capsys.readouterr()
        assert code in (0, 2), hazard
        assert "Traceback" not in said.err, hazard
        assert sum(line.startswith("selftaught: ") for line in said.err.splitlines()) == (code == 2), (hazard, said.err)
        assert not any(char in said.out + said.err for char in "\x1b\x07\x9b\u202e"), hazard
        assert SECRET not in said.out + said.err, hazard
        assert not outside.trace.exists(), hazard
        assert outside.contents() == outside.before, hazard
        assert not [path for path in opened if Path(path).is_relative_to(outside.folder)], hazard
        pages = [path for path in run.glob("report.html") if path.is_file() and not path.is_symlink()]
        assert not any(SECRET in page.read_text() or "\x1b" in page.read_text() for page in pages), hazard


@pytest.fixture(autouse=True)
def _not_for_ever():
    """A command that waits for a pipe ends the test and not the suite."""

    def stop(number, frame):
        raise TimeoutError("the command hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(600)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("pattern", "command", "again"), QUICK)
def test_results_of_a_stranger_do_no_harm(pattern, command, again, few, tmp_path, capsys, monkeypatch):
    survive(few, pattern, command, again, tmp_path, capsys, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "command", "again"), SLOW)
def test_all_results_of_a_stranger_do_no_harm(pattern, command, again, evaluated, tmp_path, capsys, monkeypatch):
    survive(evaluated, pattern, command, again, tmp_path, capsys, monkeypatch)
