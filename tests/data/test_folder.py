"""Folders: which files belong, in which order, with which labels and splits."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import encoded, noise

from selftaught.data.folder import folder_splits
from selftaught.data.reader import Files, Listed, Reader, natural_key, readable, split_of
from selftaught.errors import UserError

PNG = encoded(noise(4, 4))


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PNG)
    return root


def titles(reader: Reader) -> list[str]:
    return [reader.title(index) for index in range(len(reader))]


def named(reader: Reader) -> list[str]:
    assert reader.labels is not None
    assert reader.classes is not None
    return [reader.classes[label] for label in reader.labels]


def test_files_are_in_natural_order(tmp_path: Path) -> None:
    fill(tmp_path, "b10.png", "b9.png", "a.jpg", "B1.png", "sub/1.png")
    assert titles(folder_splits(tmp_path)["all"]) == ["B1.png", "a.jpg", "b9.png", "b10.png", "sub/1.png"]


def test_natural_order_is_total() -> None:
    names = ["a1", "a01", "a", "1", "10", "9", "", "1a", "²", "٣", "a1b2", "a1b10", "사진2", "사진10"]
    assert sorted(names, key=natural_key) == sorted([*names[7:], *names[:7]], key=natural_key)
    assert len({str(natural_key(name)) for name in names}) == len(names)


def test_hidden_and_other_files_are_not_images(tmp_path: Path) -> None:
    fill(
        tmp_path, "a.PNG", ".hidden.png", ".git/b.png", "__MACOSX/c.png", "notes.txt", "x.csv", "Thumbs.db", ".DS_Store"
    )
    assert titles(folder_splits(tmp_path)["all"]) == ["a.PNG"]


def test_class_folders_are_labels(tmp_path: Path) -> None:
    fill(tmp_path, "dog/1.png", "cat/deep/er/1.png", "cat/2.png")
    reader = folder_splits(tmp_path)["all"]
    assert reader.classes == ("cat", "dog")
    assert named(reader) == ["cat", "cat", "dog"]


def test_class_folders_may_be_inside_one_folder(tmp_path: Path) -> None:
    fill(tmp_path, "data/flowers/rose/1.png", "data/flowers/tulip/1.png")
    assert named(folder_splits(tmp_path)["all"]) == ["rose", "tulip"]


@pytest.mark.parametrize(
    "names",
    [("1.png", "2.png", "3.png", "cat/1.png", "dog/1.png"), ("cat/1.png", "cat/2.png"), ("1.png", "2.png")],
)
def test_images_without_class_folders_have_no_labels(tmp_path: Path, names: tuple[str, ...]) -> None:
    reader = folder_splits(fill(tmp_path, *names))["all"]
    assert reader.labels is None
    assert reader.classes is None


def test_split_folders(tmp_path: Path) -> None:
    fill(tmp_path, "train/cat/1.png", "train/dog/1.png", "Val/cat/2.png", "Val/owl/2.png")
    splits = folder_splits(tmp_path)
    assert set(splits) == {"all", "train", "validation"}
    assert titles(splits["train"]) == ["train/cat/1.png", "train/dog/1.png"]
    assert named(splits["validation"]) == ["cat", "owl"]
    assert splits["train"].classes == splits["validation"].classes == ("cat", "dog", "owl")
    assert sorted(named(splits["all"])) == ["cat", "cat", "dog", "owl"]


def test_split_folders_without_classes(tmp_path: Path) -> None:
    splits = folder_splits(fill(tmp_path, "train/1.png", "test/2.png"))
    assert titles(splits["test"]) == ["test/2.png"]
    assert splits["train"].labels is None


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    splits = folder_splits(fill(tmp_path, "train/1.png", "bus/1.png"))
    assert set(splits) == {"all"}
    assert splits["all"].classes == ("bus", "train")


@pytest.mark.parametrize(
    ("word", "split"),
    [("train-00000-of-00003", "train"), ("TEST", "test"), ("val", "validation"), ("dev.1", "validation"),
     ("trainer", None), ("testament", None), ("", None)],
)  # fmt: skip
def test_split_names_are_recognized(word: str, split: str | None) -> None:
    assert split_of(word) == split


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root, elsewhere = fill(tmp_path / "root", "a/1.png"), fill(tmp_path / "elsewhere", "2.png")
    (root / "a" / "up").symlink_to(root, target_is_directory=True)
    (root / "b").symlink_to(elsewhere, target_is_directory=True)
    (root / "c").symlink_to(elsewhere, target_is_directory=True)
    assert titles(folder_splits(root)["all"]) == ["a/1.png", "b/2.png"]


def test_file_names_in_any_script_work(tmp_path: Path) -> None:
    names = [
        "사진.png",
        "two\nlines.png",
        "tab\t.png",
        "emoji🌸.png",
        b"bad\xff.png".decode("utf-8", "surrogateescape"),
    ]
    reader = folder_splits(fill(tmp_path, *names))["all"]
    assert sorted(titles(reader)) == sorted(names)
    assert len(reader.fingerprint()) == 32
    assert readable("two\nlines.png") == "two\\nlines.png"
    assert readable("사진 é.png") == "사진 é.png"
    assert readable(names[-1]).encode() == b"bad\\udcff.png"


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"expected image files \(\.jpg.*got other types \(1 \.txt\)"):
        folder_splits(tmp_path)


def test_fingerprints_depend_on_content_names_and_order_but_not_on_times(tmp_path: Path) -> None:
    def fingerprint(content: bytes = b"one", name: str = "a.png", folder: str = "here") -> str:
        root = tmp_path / folder
        fill(root, "b.png")
        (root / name).write_bytes(content)
        fingerprint = folder_splits(root)["all"].fingerprint()
        (root / name).unlink()
        return fingerprint

    first = fingerprint()
    assert fingerprint() == first  # written anew, so with another time
    assert fingerprint(folder="there") == first
    assert fingerprint(content=b"two") != first
    assert fingerprint(name="c.png") != first


def test_fingerprints_of_large_folders_use_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftaught.data.reader.CONTENT_LIMIT", 0)
    reader = folder_splits(fill(tmp_path, "a.png"))["all"]
    os.utime(tmp_path / "a.png", ns=(1, 10**18))
    first = reader.fingerprint()
    assert reader.fingerprint() == first
    os.utime(tmp_path / "a.png", ns=(1, 10**18 + 1000))
    assert reader.fingerprint() != first


def test_fingerprints_of_many_files_include_times_and_a_sample_of_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = folder_splits(fill(tmp_path, *(f"{number}.png" for number in range(9))))["all"]
    assert isinstance(reader, Files)
    assert opened_files(reader, monkeypatch) == list(range(9))  # below the cap

    monkeypatch.setattr("selftaught.data.reader.COUNT_LIMIT", 8)
    monkeypatch.setattr("selftaught.data.reader.CONTENT_SAMPLE", 3)
    monkeypatch.setattr("selftaught.data.reader.SAMPLE_BYTES", 2)
    first = reader.fingerprint()
    assert reader.fingerprint() == first
    assert opened_files(reader, monkeypatch) == [0, 3, 6]
    start, end = b"x" + PNG[1:], PNG[:-1] + b"x"
    changed = {
        (index, content) for index in range(9) for content in (start, end) if after(reader, index, content) != first
    }
    assert changed == {(0, start), (3, start), (6, start)}
    assert after(reader, 4, end, seconds=1) != first
    assert after(reader, 4, PNG + b"x") != first


def opened_files(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the files that a fingerprint reads."""
    opened: list[int] = []

    def spy(path: str, *rest: Any, **named: Any) -> Any:
        opened.append(int(Path(path).stem))
        return open(path, *rest, **named)  # noqa: PTH123

    with monkeypatch.context() as patched:
        patched.setattr("selftaught.data.reader.open", spy, raising=False)
        reader.fingerprint()
    return opened


def after(reader: Files, index: int, content: bytes, seconds: int = 0) -> str:
    """The fingerprint while a file has other content, modified `seconds` later."""
    path = reader.root / reader.titles[index]
    before, time = path.read_bytes(), path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(time, time + seconds * 10**9))
    fingerprint = reader.fingerprint()
    path.write_bytes(before)
    os.utime(path, ns=(time, time))
    return fingerprint


def test_listed_arrays_yield_the_requested_images(tmp_path: Path) -> None:
    arrays = [noise(4, 4, seed) for seed in range(5)]
    reader = Listed("toys", None, None, arrays, [str(number) for number in range(5)])
    for image, expected in zip(reader.stream(np.array([1, 4])), (1, 4), strict=True):
        assert image is arrays[expected]
    changed = Listed("toys", None, None, [*arrays[:4], arrays[4] ^ 1], reader.titles)
    assert changed.fingerprint() != reader.fingerprint()
