"""Writes go through new files of their own and never through what lies there; reads never leave the folder."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from selftaught.errors import UserError, readable
from selftaught.runs import parse
from selftaught.runs.atomic import append_text, atomic_write, write_error, write_text
from selftaught.runs.files import MAX_ENTRIES, list_folder, open_regular, read_limited, remove_tree
from selftaught.runs.parse import parse_json, parse_yaml
from selftaught.runs.validated import TrainingPlan, read_typed


@pytest.fixture
def outside(tmp_path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "private").write_text("private")
    return tmp_path / "outside"


@pytest.fixture
def run(tmp_path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_a_link_at_the_place_of_the_temporary_file_is_not_followed(run, outside):
    (run / "a.part").symlink_to(outside / "private")
    write_text(run / "a", "new", run)
    assert (run / "a").read_text() == "new"
    assert not (run / "a").is_symlink()
    assert (outside / "private").read_text() == "private"
    assert sorted(path.name for path in run.iterdir()) == ["a"]


@pytest.mark.parametrize("place", ["a", "folder/a"])
def test_links_are_neither_written_nor_read(run, outside, place):
    if place == "a":
        (run / "a").symlink_to(outside / "private")
    else:
        (run / "folder").symlink_to(outside)
    for use in (
        lambda: write_text(run / place, "new", run),
        lambda: read_limited(run / place, run, 100),
        lambda: list_folder((run / place).parent, run) if place != "a" else read_limited(run / "a", run, 9),
    ):
        with pytest.raises(UserError, match="symbolic link"):
            use()
    assert [path.name for path in outside.iterdir()] == ["private"]
    assert (outside / "private").read_text() == "private"


def test_an_appended_line_follows_no_link(run, outside):
    (run / "log").symlink_to(outside / "private")
    with pytest.raises(UserError, match="symbolic link"):
        append_text(run / "log", "line\n")
    assert (outside / "private").read_text() == "private"


def test_the_run_folder_itself_may_be_reached_through_links(run, tmp_path):
    (tmp_path / "alias").symlink_to(run)
    write_text(tmp_path / "alias" / "a", "new", tmp_path / "alias")
    assert read_limited(tmp_path / "alias" / "a", tmp_path / "alias", 3) == b"new"


def test_another_name_of_a_file_keeps_its_contents(run, outside):
    os.link(outside / "private", run / "a")
    assert read_limited(run / "a", run, 100) == b"private"
    write_text(run / "a", "new", run)
    assert (outside / "private").read_text() == "private"


def test_a_file_that_another_process_writes_too_is_not_put_in_place_half_written(run):
    def write() -> None:
        with atomic_write(run / "a") as file:
            file.write(b"mine")
            (run / "a.part").unlink()
            (run / "a.part").write_text("half of an")

    with pytest.raises(OSError, match="another process"):
        write()
    assert not (run / "a").exists()


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_only_regular_files_are_opened(run, kind):
    path = Path("/dev/null") if kind == "device" else run / "a"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(UserError, match="not a regular file"):
        open_regular(path, path.parent)


def test_sizes_and_numbers_of_files_are_limited(run):
    (run / "a").write_bytes(bytes(101))
    assert len(read_limited(run / "a", run, 101)) == 101
    with pytest.raises(UserError, match="larger than the 100 bytes"):
        read_limited(run / "a", run, 100)
    (run / "many").mkdir()
    for number in range(MAX_ENTRIES + 1):
        (run / "many" / str(number)).touch()
    with pytest.raises(UserError, match="holds more than"):
        list_folder(run / "many", run)


@pytest.mark.parametrize(
    "text",
    [
        b"a: &x [1]\nb: *x", b"a: &x 1", b"a: .nan", b"a: .inf", b"a: 1.0e+400", b'a: "\\0"', b'a: "\\ud800"', b"\xff",
        b"\0", b"[" * 5000, b"- " * 5000, b"a: 2020-01-01", b"1: 2", b"? [a]\n: b", b"!!set {a}", b'!!int ""',
        b"!!python/name:os", b"a: 99999999999999999999999", b"a: " + b"9" * 5000,
        b"!!bool x", b"!!float x", b"!!timestamp x",
        b"a: !!binary x",
    ],
)  # fmt: skip
def test_yaml_is_plain_values_or_refused(text):
    with pytest.raises(ValueError, match=r".") as caught:
        parse_yaml(text)
    assert len(str(caught.value)) < 5000


def test_yaml_of_plain_values_is_read():
    found = parse_yaml("a: 1\nb: [x, 2.5, null, true]\nc: {d: é}\nf: 'a: b'\n".encode())
    assert found == {"a": 1, "b": ["x", 2.5, None, True], "c": {"d": "é"}, "f": "a: b"}


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff", b"[" * 10**5, b"[" * 40 + b"]" * 40, b"9" * 400, b"1" * 20, b'"\0"']
)
def test_damaged_json_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_strings_of_json_obey_no_terminal():
    assert parse_json(rb'{"\u001b[2J": ["\u202e", "\u009b", "a\nb", "\ud800"]}') == {
        r"\x1b[2J": [r"\u202e", r"\x9b", r"a\nb", r"\ud800"]
    }
    assert readable("Ein Bild, 회전, é") == "Ein Bild, 회전, é"


def test_a_link_to_a_folder_elsewhere_is_not_emptied(tmp_path):
    (outside := tmp_path / "outside" / "checkpoint").mkdir(parents=True)
    (outside / "last.pt").write_text("precious")
    (run := tmp_path / "run").mkdir()
    (run / "rate-1").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="is a symbolic link"):
        remove_tree(run / "rate-1" / "checkpoint", run)
    (run / "rate-2").mkdir()
    (run / "rate-2" / "best").symlink_to(outside)
    with pytest.raises(UserError, match="is a symbolic link"):
        remove_tree(run / "rate-2" / "best", run)
    assert (outside / "last.pt").read_text() == "precious"
    (own := run / "rate-3" / "best").mkdir(parents=True)
    (own / "link").symlink_to(outside)
    remove_tree(own, run)
    assert not own.exists()
    assert (outside / "last.pt").exists()


def test_arrays_that_unpack_to_too_much_are_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(2**16, np.uint8))
    content = (tmp_path / "a.npz").read_bytes()
    assert parse.parse_arrays(content)["a"].shape == (2**16,)
    monkeypatch.setattr(parse, "MAX_UNPACKED", 2**15)
    with pytest.raises(ValueError, match="unpacks to more"):
        parse.parse_arrays(content)


@pytest.mark.parametrize(
    "content", ["{}", '{"steps": 0, "precision": "32"}', '{"steps": 1, "precision": "8"}', "[", "9"]
)
def test_a_damaged_plan_is_one_sentence(content, tmp_path):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(UserError, match="is damaged: remove it"):
        read_typed(tmp_path / "plan.json", tmp_path, TrainingPlan)


def test_a_folder_that_is_not_writable_is_told_to_commands_without_out():
    """`probe`, `evaluate` and others write to the run itself and have no --out."""
    error = write_error(Path("run/probes"), PermissionError(errno.EACCES, "Permission denied"))
    assert str(error) == (
        "the folder run/probes is not writable (permission denied): change its permissions, or use another folder."
    )
