"""Whatever a stranger puts into the folder of a study: one sentence or success; nothing outside is read or written."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from runs.hostile import ESCAPE, SECRET, Outside, bomb, edit, link, pipe, replace, require_harmless, watched
from runs.valid_run import make_images
from selftaught import cli
from selftaught.studies import planning
from selftaught.training.plan import Plan

STUDY = {
    "question": "Is one angle per image as good as all?",
    "paper": "Gidaris et al., ICLR 2018",
    "finding": "All angles are better.",
    "settings": {"task": "rotation", "size": 16, "steps": 1, "batch_size": 8, "precision": "32",
                 "encoder": {"name": "convnet", "width": 8}},
    "variants": {"all": {}, "one": {"task": {"copies": "one"}}},
    "comparison": {"variant": "all", "against": "one", "layer": "layer2"},
    "seeds": 1,
}  # fmt: skip
Hazard = Callable[[Path, Outside], object]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A finished study, its definition and its images."""
    root = tmp_path_factory.mktemp("study")
    images = make_images(root / "images")
    (root / "tiny.yaml").write_text(yaml.safe_dump({**STUDY, "source": str(images)}))
    measure = planning.measure
    planning.measure = lambda built, minutes, device, precision: Plan(1, "cpu", "32", False, 0.1, 0.0)
    try:
        assert cli.main(["study", str(root / "tiny.yaml"), "--out", str(root / "valid")]) == 0
    finally:
        planning.measure = measure
    return root


def result(study: Path) -> Path:
    return sorted((study / "results").glob("*.npz"))[0]


def cell(study: Path) -> Path:
    return sorted((study / "runs").iterdir())[0]


def edited(study: Path, change: Callable[[dict], object]) -> None:
    """Change the table of a result; its arrays stay as they are."""
    with np.load(result(study)) as arrays:
        content = dict(arrays)
    facts = json.loads(str(content.pop("facts")))
    changed = change(facts)
    np.savez(result(study), facts=np.array(json.dumps(facts if changed is None else changed)), **content)


def arrays(study: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with np.load(result(study)) as file:
        content = dict(file)
    np.savez(result(study), **{name: value if name == "facts" else change(value) for name, value in content.items()})


def unfinished(study: Path) -> Path:
    """Remove the results, so that runs are evaluated again."""
    shutil.rmtree(study / "results")
    return study


FILES = ("study.json", "results/RESULT", "README.md", "outcome.json", "layers-1.svg", "runs/CELL/config.yaml",
         "runs/CELL/run.json", "runs/CELL/encoder.safetensors", "runs/CELL/probes/PROBE")  # fmt: skip
FOLDERS = ("results", "runs", "runs/CELL", "runs/CELL/probes")


def path_of(study: Path, name: str) -> Path:
    name = name.replace("RESULT", result(study).name).replace("CELL", cell(study).name)
    return study / name.replace("PROBE", sorted((cell(study) / "probes").glob("*.json"))[0].name)


HAZARDS: dict[str, Hazard] = {
    **{f"link {name}": lambda study, out, name=name: link(path_of(study, name), out.secret) for name in FILES},
    **{
        f"link {name}/": lambda study, out, name=name: link(path_of(study, name), out.folder / "private")
        for name in FOLDERS
    },
    **{f"pipe {name}": lambda study, out, name=name: pipe(path_of(study, name)) for name in FILES},
    "linked runs to do": lambda study, out: link(unfinished(study) / "runs", out.folder / "private"),
    "linked results to do": lambda study, out: (unfinished(study), link(study / "results", out.folder / "private")),
    "linked run to do": lambda study, out: link(cell(unfinished(study)), out.folder / "private"),
    "linked log": lambda study, out: link(unfinished(study) / "worker-1.log", out.secret),
    "piped log": lambda study, out: pipe(unfinished(study) / "worker-1.log"),
    "damaged state": lambda study, out: replace(study / "study.json", "{"),
    "other state": lambda study, out: replace(study / "study.json", "[]"),
    "huge state": lambda study, out: replace(study / "study.json", '{"name": "' + "x" * 2**23 + '"}'),
    "deep state": lambda study, out: replace(study / "study.json", "[" * 900 + "]" * 900),
    "many threads": lambda study, out: edit(study / "study.json", threads=10**9),
    "escapes in state": lambda study, out: edit(study / "study.json", name=ESCAPE, data=[ESCAPE]),
    "escapes in a failure": lambda study, out: replace(
        unfinished(study) / "results" / f"{cell(study).name}-failed.txt", ESCAPE
    ),
    "linked failure": lambda study, out: link(
        unfinished(study) / "results" / f"{cell(study).name}-failed.txt", out.secret
    ),
    "not an archive": lambda study, out: replace(result(study), b"\xff\xfe"),
    "bomb": lambda study, out: replace(result(study), bomb()),
    "no table": lambda study, out: np.savez(result(study), a=np.zeros((1, 3), bool)),
    "pickled table": lambda study, out: np.savez(result(study), facts=np.array([{"a": 1}], dtype=object)),
    "list": lambda study, out: edited(study, lambda facts: []),
    "no layers": lambda study, out: edited(study, lambda facts: facts.update(layers=[])),
    "other layers": lambda study, out: edited(study, lambda facts: facts["layers"][0].update(layer="x")),
    "escapes in layers": lambda study, out: edited(study, lambda facts: facts["layers"][0].update(layer=ESCAPE)),
    "escapes in data": lambda study, out: edited(study, lambda facts: facts.update(data=ESCAPE)),
    "text for a number": lambda study, out: edited(study, lambda facts: facts.update(pixels="x")),
    "no chance": lambda study, out: edited(study, lambda facts: facts.pop("chance") and None),
    "infinite": lambda study, out: edited(study, lambda facts: facts["layers"][0].update(held_out=float("inf"))),
    "no images": lambda study, out: arrays(study, lambda array: array[:, :0]),
    "other images": lambda study, out: arrays(study, lambda array: array[:, :-1]),
    "one dimension": lambda study, out: arrays(study, lambda array: array[0]),
    "numbers": lambda study, out: arrays(study, lambda array: array.astype(float)),
    "text": lambda study, out: arrays(study, lambda array: array.astype(str)),
    "download": lambda study, out: replace(
        cell(unfinished(study)) / "config.yaml",
        (cell(study) / "config.yaml").read_text().replace("task:", "data: [food101]\ntask:", 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("hazard", HAZARDS)
def test_no_hazard_does_harm(hazard, place, tmp_path, capsys, monkeypatch):
    outside = Outside(tmp_path / "outside")
    monkeypatch.setenv("PATH", f"{outside.programs}:/usr/bin:/bin")
    monkeypatch.setattr(
        planning, "measure", lambda built, minutes, device, precision: Plan(1, "cpu", "32", False, 0.1, 0.0)
    )
    study = Path(shutil.copytree(place / "valid", tmp_path / "study"))
    HAZARDS[hazard](study, outside)
    jobs = ["--jobs", "2"] if "log" in hazard else []
    before = signal.signal(signal.SIGALRM, _stop)
    signal.alarm(120)
    capsys.readouterr()
    try:
        with watched() as opened:
            code = cli.main(["study", str(place / "tiny.yaml"), "--out", str(study), *jobs])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    said = capsys.readouterr()
    require_harmless(code, said, outside, opened)
    pages = [path for path in (study / "README.md", study / "outcome.json") if path.is_file() and not path.is_symlink()]
    assert not any(SECRET in page.read_text() or "\x1b" in page.read_text() for page in pages)


def _stop(number, frame):
    raise TimeoutError("the command hangs")


def test_the_valid_study_is_continued(place, tmp_path, monkeypatch):
    """Else the tests above would prove nothing."""
    monkeypatch.setattr(
        planning, "measure", lambda built, minutes, device, precision: Plan(1, "cpu", "32", False, 0.1, 0.0)
    )
    study = Path(shutil.copytree(place / "valid", tmp_path / "study"))
    unfinished(study)
    assert cli.main(["study", str(place / "tiny.yaml"), "--out", str(study)]) == 0
    assert result(study).is_file()
