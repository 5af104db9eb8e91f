"""Options: whatever is typed, a command begins or says in one sentence what is wrong, and leaves no trace."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from selftaught.api import pretrain as pretraining
from selftaught.cli import main
from selftaught.config.settings import Settings, offered
from selftaught.errors import UserError
from selftaught.runs.sections import nest

MANY = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FEW = settings(MANY, max_examples=12)
SETTINGS = {setting.name: setting for setting in offered("rotation", "convnet")}
BUDGETS = ("minutes", "epochs", "steps")

WORDS = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "nan",
            "inf",
            "-inf",
            "1e400",
            "-0",
            "0",
            "1",
            "-1",
            "0.5",
            "None",
            "null",
            "true",
            "[]",
            "{}",
            "0x10",
        ]
    ),
    st.sampled_from(["9" * 5000, "1" + "0" * 400, str(2**31), str(2**63), str(-(2**64)), "1_000", "1,000", "٣", "½"]),
    st.sampled_from(
        ["auto", "cpu", "cuda:99", "meta", "xla", "all", "one", "--", "-", "../..", "~nobody/x", "%s", "{x}"]
    ),
    st.integers(-5, 40).map(str),
    st.floats().map(str),
    st.text(max_size=12).filter(lambda text: not text.startswith("-")),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 40),
        st.sampled_from([2**31, 2**63, 10**400, -(2**70), math.nan, math.inf, -math.inf, 1e308]),
        st.floats(),
        st.text(max_size=8),
        st.dates(),
        st.binary(max_size=4),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)


class Begun(BaseException):
    """What a run raises here where it would begin to train: all that was given had been accepted."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


@pytest.fixture(autouse=True)
def _begin_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)  # what has a default --out begins to write there

    def begin(*_: object) -> None:
        raise Begun

    monkeypatch.setattr(pretraining, "_begin", begin)
    return


def one_sentence(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command says that ends in a mistake; nothing where it would begin or only shows a help."""
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except Begun:
        return ""
    said = capsys.readouterr()
    if code == 0:
        assert {"--help", "-h", "--version"} & set(map(str, arguments)), said
        return ""
    assert code == 2
    assert said.out == ""
    (line,) = said.err.strip().split("\n")
    assert line.startswith("selftaught: ")
    assert "Traceback" not in line
    assert len(line) < 7000  # what was given is said again, and it may be long
    return line


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@MANY
@given(name=st.sampled_from(sorted(SETTINGS)), words=st.lists(WORDS, min_size=1, max_size=3))
def test_any_word_for_any_setting(name: str, words: list[str], folder: Path, capsys) -> None:
    budget = () if name in BUDGETS else ("--steps", 1)
    out = folder.parent / "run"
    one_sentence(
        capsys, "pretrain", folder, "--out", out, *budget, *(part for word in words for part in (flag(name), word))
    )
    if out.exists():
        (out / ".lock").unlink(missing_ok=True)
        out.rmdir()  # nothing else was written


@MANY
@given(name=st.sampled_from(sorted(SETTINGS)), value=VALUES)
def test_any_value_from_python_or_a_config(name: str, value: object) -> None:
    try:
        chosen = Settings.of(**{name: value})
        _ = chosen.general.budget
    except UserError as error:
        said = str(error)
        assert said.isprintable()
        return
    flat = chosen.values()
    assert Settings.of(**flat) == chosen
    assert Settings.of(**nest(flat)) == chosen
    items = np.atleast_1d(np.array(flat[SETTINGS[name].key], dtype=object))
    numbers = [item for item in items if isinstance(item, float)]
    assert all(map(math.isfinite, numbers))


@FEW
@given(
    content=st.dictionaries(
        st.one_of(st.sampled_from([*SETTINGS, "data", "out", "labels"]), st.text(max_size=5)), VALUES
    )
)
def test_any_config(content: dict[str, object], folder: Path, capsys) -> None:
    path = folder.parent / "config.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    one_sentence(capsys, "pretrain", folder, "--config", path, "--out", folder.parent / "never")


@pytest.mark.parametrize(
    "text",
    [
        "", "- 1", "a: b: c", "steps: 2020-13-45", "1: 2", "? [a, b]\n: c", "[" * 1000,
        "steps: !!python/object:os.system {}",
        "steps: &a [*a]", "data: 5", "data: {a: 1}", "data: [null]", "data: ['']", "data: [\"a\\0b\"]", "task: [1]",
        "encoder: {}", "task: ''", "encoder: 'timm:'", "\ufeffsteps: 1\nsteps: many", "labels: 7",
        "resume: 9", "out: [1]",
    ],
)  # fmt: skip
def test_configs_of_the_wrong_kind(text: str, folder: Path, capsys) -> None:
    path = folder.parent / "config.yaml"
    path.write_text(text, encoding="utf-8")
    said = one_sentence(capsys, "pretrain", "--config", path, "--out", folder.parent / "never")
    assert said
    assert not (folder.parent / "never").exists()


ARGUMENTS = {
    "probe": [
        "--data",
        "--seeds",
        "--size",
        "--limit",
        "--labels",
        "--device",
        "--probe",
        "--k",
        "--pooling",
        "--dimensions",
        "--json",
    ],
    "compare": ["--out"],
    "report": ["--out"],
    "list": ["--json"],
    "demo": ["--minutes"],
}


@FEW
@given(command=st.sampled_from(sorted(ARGUMENTS)), data=st.data())
def test_any_argument_of_the_other_commands(command: str, data: st.DataObject, folder: Path, capsys) -> None:
    run = data.draw(st.one_of(WORDS, st.just(str(folder)), st.just(str(folder / "0.png"))))
    flags = data.draw(st.lists(st.sampled_from(ARGUMENTS[command]), max_size=3))
    given_ = [part for each in flags for part in ((each,) if each == "--json" else (each, data.draw(WORDS)))]
    assert not Path("tasks").exists()
    one_sentence(capsys, command, *([] if command == "demo" else [run]), *given_)


@FEW
@given(encoder=st.sampled_from(["alexnet", "nin", "timm:resnet18"]), data=st.data())
def test_any_value_for_other_encoders(encoder: str, data: st.DataObject) -> None:
    own = [setting for setting in offered("rotation", encoder) if setting.owner.startswith("Encoder")]
    name = data.draw(st.sampled_from([setting.name for setting in own]))
    try:
        Settings.of(encoder=encoder, **{name: data.draw(VALUES)})
    except UserError as error:
        said = str(error)
        assert said.isprintable()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("--crop-shear", "nan"), "--crop-shear expects a finite number, got nan"),
        (("--learning-rate", "inf"), "--learning-rate expects a finite number, got inf"),
        (("--crop-rotation", "inf"), "--crop-rotation expects a finite number"),
        (("--size", 99_999), "--size must be from 1 to 4,096, got 99,999"),
        (("--seed", -1), "--seed must be from 0 to"),
        (("--width", 0), "--width of convnet must be from 1 to 1,024, got 0"),
        (("--width", 10**12), "--width of convnet must be from 1 to 1,024"),
        (("--crop-flip", 7), "--crop-flip must be from 0 to 1, got 7"),
        (("--limit", 10**30), "--limit expects an integer of at most 18 digits"),
        (("--steps", 10**400), "steps expects"),
        (("--device", "meta"), "--device expects a device"),
        (("--out", "n" * 300), "too long"),
        (("--labels", "n" * 300), "too long"),
        (("--encoder", "alexnet", "--form", "large", "--size", 30), "--size of at least 31"),
        (("--flip", "maybe"), "several sources must all be image files"),
        (("--task", ""), "no pretext task called ''"),
        (("--encoder", "timm:"), "no timm model called ''"),
    ],
)
def test_slips_of_the_hand(wrong: tuple[object, ...], words: str, folder: Path, capsys) -> None:
    budget = () if "--steps" in wrong else ("--steps", 1)
    out = () if "--out" in wrong else ("--out", folder.parent / "run")
    assert words in one_sentence(capsys, "pretrain", folder, *budget, *out, *wrong)
    assert not (folder.parent / "run").exists()


def test_an_empty_source_is_not_this_folder(folder: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert "got ''" in one_sentence(capsys, "pretrain", "", "--steps", 1)
    assert "null characters" in one_sentence(capsys, "pretrain", "a\0b", "--steps", 1)
    assert sorted(path.name for path in folder.iterdir()) == ["0.png", "1.png", "2.png"]
