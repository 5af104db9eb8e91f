"""Every flag of every command with extremes, wrong types and too many values: success, or exit code 2 and one sentence.

The flags are those that the commands have, so a new one is tested unasked; a new command needs an entry in `Place`.
"""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest

from bounds import bounded
from drawn import draw_voc
from runs.valid_run import make_images, make_run
from selftaught.cli import main
from selftaught.cli.app import application
from selftaught.evaluation.probes import PROBES

REFUSED = ("-1", "nan", "1e30", "x")
"""Extremes that hardly any flag takes, so they are tested in milliseconds."""
NUMBERS = (*REFUSED, "0", "inf", "1e-30", "1000000000", "1" * 5000, "")
TEXT = ("", "\x1b[2J", "\udcff", "--", "/", "x" * 300)
LONG = {"steps", "scenes"}
"""What may be a billion: it takes long, as one would expect."""
ENTRIES = [
    "pretrain", *(f"probe {name}" for name in PROBES), "evaluate", "detection", "segmentation", "baseline",
    "invariance", "quality", "audit", "attention", "neighbors", "filters", "stylize", "compare", "report", "study",
    "render", "shard", "demo", "list",
]  # fmt: skip
"""Commands; those whose flags depend on a value with it."""


def words_of(entry: str) -> list[str]:
    command, *kind = entry.split()
    return [command, *(["--probe", *kind] if kind else [])]


def arguments_of(entry: str) -> list[Any]:
    words = [*words_of(entry), "x"]
    return [a for a in application(words)[words[0]].assemble_argument_collection() if a.name.startswith("--")]


@cache
def cases() -> list[Any]:
    found = []
    for entry in ENTRIES:
        shared = {a.name for a in arguments_of("probe ridge")} if entry.startswith("probe ") else set()
        for argument in arguments_of(entry):
            if entry != "probe ridge" and argument.name in shared:
                continue  # of every probe
            found.append(pytest.param(entry, argument, id=f"{entry} {argument.name}"))
    return found


class Place:
    """Images, a run and what each command needs to end in a second."""

    def __init__(self, root: Path) -> None:
        self.root, self.images = root, make_images(root / "images")
        self.run = make_run(root, self.images)
        self.voc, self.new = draw_voc(root / "voc"), 0
        self.photo = str(next(self.images.rglob("*.png")))

    def base(self, entry: str) -> list[str]:
        self.new += 1
        run, images, out = str(self.run), ["--data", str(self.images)], ["--out", str(self.root / f"new{self.new}")]
        tiny = ["--steps", "1", "--size", "16", "--batch-size", "4"]
        trained = ["--data", str(self.voc), "--steps", "1", "--size", "32", "--seeds", "1", "--learning-rates", "1e-3"]
        few = ["--images", "8"]
        bases = {
            "pretrain": [str(self.images), *out, *tiny, "--width", "8", "--precision", "32", "--threads", "1"],
            "evaluate": [run, *images, "--finetune", *tiny, "--seeds", "1", "--learning-rates", "1e-3"],
            "detection": [run, *trained, "--head-width", "8", "--evaluations", "1"],
            "segmentation": [run, *trained, "--evaluations", "1"],
            "baseline": ["random", str(self.images), *out, "--size", "16"],
            "compare": [run], "report": [run], "filters": [run], "list": ["tasks"],
            "invariance": [run, *images, *few], "quality": [run, *images, *few], "audit": [run, *few],
            "attention": [run, *images, "--images", "1"],
            "neighbors": [run, *images, *few, "--queries", "1", "--k", "1"],
            "stylize": [run, "--content", self.photo, "--style", self.photo, "--steps", "1", "--size", "16"],
            "study": ["rotation-angles", "--plan"],
            "render": [*out, "--scenes", "1", "--size", "16", "--workers", "1"],
            "shard": [str(self.images), *out],
            "demo": [*out, "--minutes", "0.001"],
        }  # fmt: skip
        kind = entry.split()[0]
        if kind == "probe":
            trained = entry.split()[1] in ("sgd", "mlp", "conv")
            return [*words_of(entry)[:1], run, *images, *words_of(entry)[1:], *(["--epochs", "1"] if trained else [])]
        return [kind, *bases[kind]]

    def words(self, entry: str, flag: str, values: tuple[str, ...]) -> list[str]:
        """The command with a flag set to some values, in the place of what it was."""
        words = self.base(entry)
        if flag in words:
            place = words.index(flag)
            del words[place : place + 2]
        if flag in ("--minutes", "--epochs") and "--steps" in words:  # only one of them is allowed
            del words[words.index("--steps") : words.index("--steps") + 2]
        return [*words, *([f"{flag}={values[0]}"] if len(values) == 1 else [flag, *values])]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("place")
    before = Path.cwd()
    os.chdir(root)
    yield Place(root)
    os.chdir(before)


def values_of(argument: Any) -> list[tuple[str, ...]]:
    count, many = argument.token_count()
    kinds = {argument.hint, *get_args(argument.hint)}
    for kind in list(kinds):
        kinds |= {get_origin(kind), *get_args(kind)}
    if not count:
        return [("x",)]
    if not {int, float} & kinds:
        return [(word,) for word in TEXT]
    words = [word for word in NUMBERS if argument.name.strip("-") not in LONG or word != "1000000000"]
    return [(word, *["1"] * (count - 1)) for word in words] + ([] if many else [("1",) * (count + 1)])


@pytest.mark.parametrize(("entry", "argument"), cases())
def test_what_a_flag_does_not_take_is_one_sentence(entry, argument, place, capsys, monkeypatch):
    values = [values for values in values_of(argument) if values[0] in REFUSED or len(values) > 1]
    survive(entry, argument, values, place, capsys, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("entry", "argument"), cases())
def test_a_flag_at_its_limits(entry, argument, place, capsys, monkeypatch):
    survive(entry, argument, values_of(argument), place, capsys, monkeypatch)


def survive(entry: str, argument: Any, tried: list[tuple[str, ...]], place: Place, capsys, monkeypatch) -> None:
    monkeypatch.setenv("SELFTAUGHT_DATA", str(place.root / "none"))
    wrong = []
    for values in tried:
        words = place.words(entry, argument.name, values)
        capsys.readouterr()
        with bounded(60):
            try:
                code = main(words)
            except Exception as error:
                wrong.append(f"{values}: {type(error).__name__} {str(error)[:200]}"[:400])
                continue
        said = capsys.readouterr().err
        sentences = [line for line in said.splitlines() if line.startswith("selftaught: ")]
        if code not in (0, 2) or "Traceback" in said or len(sentences) != (code == 2) or len(said) > 3000:
            wrong.append(f"{values}: {code} {said[:300]}"[:400])
        elif any(not line.isprintable() for line in sentences) or "out of memory" in said:
            wrong.append(f"{values}: {said!r}"[:400])
        elif (
            argument.token_count()[0]
            and len(values) == argument.token_count()[0] + 1
            and f"got {len(values)}" not in said
        ):
            wrong.append(f"{values}: the number of values is not named: {said[:200]!r}")
    assert not wrong, "\n".join(wrong)


def test_every_command_is_tested():
    assert {entry.split()[0] for entry in ENTRIES} == {name for name in application([]) if not name.startswith("-")}
