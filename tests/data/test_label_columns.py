"""CSV files with several classes per image: columns of 0 and 1, or a column of names separated by "|"."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from selftaught.data import open_splits
from selftaught.data.label_columns import class_sets
from selftaught.data.sources import open_source
from selftaught.errors import UserError


def write_images(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(np.full((8, 8, 3), 9 * number, np.uint8)).save(folder / f"{number}.png")
    return folder


def opened(tmp_path: Path, text: str, count: int = 4):
    write_images(tmp_path / "set", count)
    (tmp_path / "labels.csv").write_text(text)
    return open_source(tmp_path / "set", split="all", labels=tmp_path / "labels.csv", keep_unlabeled=True)


COLUMNS = """path,age,edema,mass,follow-up
0.png,41,1,0,2
1.png,52,1.0,1,0
2.png,7,0,0.0,1
3.png,60,,,0
"""
NAMES = """Image Index,Finding Labels,Patient Age
0.png,edema,41
1.png,mass|edema,52
2.png,No Finding,7
3.png,,60
"""


@pytest.mark.parametrize("text", [COLUMNS, NAMES], ids=["columns", "names"])
def test_images_have_several_classes_or_none_and_may_be_unlabeled(tmp_path, text):
    source = opened(tmp_path, text)
    assert source.classes == ("edema", "mass")
    assert source.targets == {"multilabel"}
    assert source.labels.dtype == torch.int8
    assert source.labels.tolist() == [[1, 0], [1, 1], [0, 0], [-1, -1]]
    batch = source.batch(torch.tensor([1, 3]), torch.device("cpu"))
    assert batch.targets["multilabel"].tolist() == [[1, 1], [-1, -1]]
    known = open_source(tmp_path / "set", split="all", labels=tmp_path / "labels.csv")
    assert known.labels.tolist() == [[1, 0], [1, 1], [0, 0]]
    assert known.fingerprint != source.fingerprint


def test_columns_that_are_no_classes_are_named(tmp_path, capsys):
    opened(tmp_path, COLUMNS)
    printed = capsys.readouterr().err
    assert "2 classes, several per image" in " ".join(printed.split())
    assert "columns without 0 and 1 are not classes: age, follow-up" in " ".join(printed.split())


def test_a_column_of_names_has_one_class_without_a_separator():
    assert class_sets(["a", "b", ""]) == ([frozenset("a"), frozenset("b"), frozenset()], False)
    assert class_sets(["a|b", "b", ""]) == ([frozenset("ab"), frozenset("b"), frozenset()], True)
    assert class_sets([" b || a ", "a|a", "no finding|a"])[0] == [frozenset("ab"), frozenset("a"), frozenset("a")]


def test_the_same_classes_in_another_order_are_no_conflict(tmp_path):
    source = opened(tmp_path, "path,label\n0.png,a|b\n0.png,b|a\n1.png,b\n")
    assert source.labels[0].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,a,b\n0.png,1,0\n1.png,-1,1\n", "the column 'a' of .* has '-1' in line 3, expected 0 or 1: decide it"),
        ("path,a,b\n0.png,1,0\n1.png,,1\n", "the column 'a' of .* has '' in line 3, expected 0 or 1"),
        ("path,a,a\n0.png,1,0\n1.png,0,1\n", "the column 'a' occurs twice"),
        ("path,a,b\n0.png,1,0\n0.png,0,1\n", "two labels for '0.png' in .*: 'a' and 'b'"),
        ("path,a,b\n0.png,1,0\n0.png,,\n1.png,0,1\n", "two labels for '0.png'"),
        ("path,a,b\n0.png,1,2\n1.png,0,3\n", "the columns path and label, or path and several columns of 0 and 1"),
        ("path,label\n0.png,a|b\n0.png,a\n1.png,b\n", r"two labels for '0.png' in .*: 'a\|b' and 'a'"),
        ("path,label\n0.png,a|a\n1.png,a\n", "at least two different labels, got 1"),
        ("a,b\n1,0\n0,1\n", "the columns path and label"),
        ("path,a,b\nx.png,1,0\ny.png,0,1\n", "match no single image"),
    ],
)
def test_undecided_or_contradictory_labels_are_an_error(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        opened(tmp_path, text)


def test_a_file_next_to_the_images_and_split_folders(tmp_path, capsys):
    lines = ["path,red,blue"]
    for part in ("train", "test"):
        write_images(tmp_path / "set" / part, 4)
        lines += [f"{part}/{number}.png,{number % 2},{number // 2}" for number in range(4)]
    (tmp_path / "set" / "labels.csv").write_text("\n".join(lines))
    train, test = open_splits(tmp_path / "set")
    for source in (train, test):
        assert source.classes == ("red", "blue")
        assert source.labels.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_parts_without_a_common_class_are_refused_and_missing_classes_are_named(tmp_path, capsys):
    for part in ("train", "test"):
        write_images(tmp_path / "set" / part, 2)
    rows = ["path,a,b,c,d", "train/0.png,1,0,0,0", "train/1.png,0,1,0,0", "test/0.png,1,0,0,1", "test/1.png,0,0,0,0"]
    (tmp_path / "labels.csv").write_text("\n".join([*rows, "test/1.png,0,0,0,0"]))
    open_splits(tmp_path / "set", labels=tmp_path / "labels.csv")
    printed = " ".join(capsys.readouterr().err.split())
    assert "no test images for 1 of 3 classes (b)" in printed
    assert "no training images for 1 of 3 classes (d)" in printed
    (tmp_path / "labels.csv").write_text("\n".join([*rows[:3], "test/0.png,0,0,1,1", "test/1.png,0,0,0,1"]))
    with pytest.raises(UserError, match="have no class in common"):
        open_splits(tmp_path / "set", labels=tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("rows", "zero"),
    [("0.png,0,0,4\n1.png,0,0,5\n", "edema, mass"), ("0.png,1,0,4\n1.png,0,0,5\n", "mass")],
)
def test_columns_without_a_1_are_named_instead_of_the_header(tmp_path, rows, zero):
    with pytest.raises(UserError, match=f"two or more classes of .* need an image, but the columns {zero} have no 1"):
        opened(tmp_path, f"path,edema,mass,age\n{rows}")
