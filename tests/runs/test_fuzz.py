"""Every value of every file of a run, replaced by every wrong one: a `UserError` or a valid result, nothing else."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from valid_run import make_images, make_run

from selftaught.config.build import _saved_settings, load_encoder
from selftaught.errors import UserError
from selftaught.report.compare import rows
from selftaught.report.page import render
from selftaught.report.record import read_records
from selftaught.runs.folder import RunFolder

FILES = (
    "config.yaml",
    "run.json",
    "log.jsonl",
    "encoder.json",
    "probes/toy.json",
    "audit/toy.json",
    "invariance/toy.json",
    "pictures/toy.json",
)
WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 0.5, 2, 1e308, 2**63 - 1, 10**30, float("nan"), float("inf"), "", "x", "5", "\0", "\ud800",
    "\x1b[2J", "$_{", [],
    [None], [[]], [1, 1], {}, {"": None}, {"a": {"b": []}},
)  # fmt: skip
GONE = object()
MUTANTS = 40


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("valid"), make_images(tmp_path_factory.mktemp("images")))


@pytest.fixture
def run(valid, tmp_path) -> Path:
    return Path(shutil.copytree(valid, tmp_path / "run"))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values can be replaced: all of a mapping's, the first two of a list's."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for name, item in inner:
        yield from places(item, (*path, name))


def changed(value: Any, path: tuple[Any, ...], wrong: Any) -> Any:
    """The value with another one at a place, or without it, or with it twice."""
    if not path:
        return None if wrong is GONE else wrong
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and wrong is GONE:
        del copy[path[0]]
    else:
        copy[path[0]] = changed(value[path[0]], path[1:], wrong)
    return copy


def variants(text: str, kind: str) -> list[str]:
    """A file with one value changed, one for each place and each wrong value."""
    value = yaml.safe_load(text) if kind == ".yaml" else json.loads(text.splitlines()[0] if kind == ".jsonl" else text)
    found = [changed(value, path, wrong) for path in places(value) for wrong in (*WRONG, GONE)]
    return [json.dumps(item) for item in found]  # which is YAML, too


def refusal(read: Callable[[], object]) -> str:
    """The sentence with which something is refused, if it is."""
    try:
        read()
    except UserError as error:
        return str(error)
    return ""


def survives(run: Path, name: str) -> bool:
    """Read a changed file as the commands do; whether the report could be made."""
    readers = {"config.yaml": (_saved_settings, RunFolder.identity), "encoder.json": (load_encoder,)}
    for read in readers.get(name, ()):
        assert len(refusal(lambda read=read: read(RunFolder(run)))) < 2000
    if said := refusal(lambda: read_records([run])):
        assert len(said) < 1000
        assert said.isprintable()
        return False
    for row in rows(read_records([run])):
        assert all(cell.isprintable() for cell in row.cells())
    return True


@pytest.mark.parametrize("name", FILES)
def test_every_wrong_value_is_refused_or_harmless(name, run):
    path = run / name
    mutants = variants(path.read_text(), path.suffix)
    random.Random(0).shuffle(mutants)
    accepted = []
    for mutant in mutants[:MUTANTS]:
        path.write_text(mutant)
        if survives(run, name):
            accepted.append(mutant)
    assert len(accepted) < MUTANTS or name == "log.jsonl"  # where a damaged line ends the log
    for mutant in accepted[:1]:
        path.write_text(mutant)
        render(read_records([run]))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_wrong_value_of_all_is_refused_or_harmless(name, run):
    path = run / name
    for mutant in variants(path.read_text(), path.suffix):
        path.write_text(mutant)
        if survives(run, name):
            render(read_records([run]))


@pytest.mark.parametrize("name", FILES)
def test_every_damaged_byte_is_refused_or_harmless(name, run):
    path, draw = run / name, random.Random(0)
    content = path.read_bytes()
    for _ in range(MUTANTS):
        at, kind = draw.randrange(len(content)), draw.choice(("cut", "set", "insert"))
        piece = bytes([draw.choice(b'\0\x1b\x80\xff{}[]",:-0e9&*!%\n ')])
        path.write_bytes(content[:at] if kind == "cut" else content[:at] + piece + content[at + (kind == "set") :])
        survives(run, name)


@pytest.mark.parametrize(
    "damage",
    [
        lambda probe: {**probe, "layers": probe["layers"] * 2},
        lambda probe: {**probe, "layers": []},
        lambda probe: {**probe, "layers": [{"layer": "a", "accuracy": True}]},
        lambda probe: {**probe, "layers": [{"layer": "a", "accuracy": "0.5"}]},
        lambda probe: {**probe, "layers": [{"layer": "a", "accuracy": 1.5}]},
        lambda probe: {**probe, "layers": [{"accuracy": 0.5}]},
        lambda probe: {**probe, "test": -1},
        lambda probe: {**probe, "data": 5},
        lambda probe: [],
    ],
)
def test_a_malformed_probe_is_refused(run, damage):
    path = run / "probes" / "toy.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=r"toy\.json"):
        RunFolder(run).read_probes()


def test_unknown_fields_are_kept(run):
    path = run / "probes" / "toy.json"
    probe = {**json.loads(path.read_text()), "best": {"layer": "layer1"}, "overlap": 17, "gain_interval": [0.1, 0.2]}
    path.write_text(json.dumps(probe))
    assert RunFolder(run).read_probes() == [probe]
