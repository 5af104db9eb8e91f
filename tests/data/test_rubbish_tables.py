"""Missing, broken and inconsistent Parquet and CSV files: usable data is used, anything else is one error sentence."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus import encoded, noise, write_images

from selftaught.data import open_source, open_splits
from selftaught.data.labels import AMBIGUOUS, PathIndex
from selftaught.errors import UserError

IMAGES = [{"bytes": encoded(noise(8, 8, number)), "path": None} for number in range(6)]


def write(path: Path, features: object = None, **columns: object) -> Path:
    """A parquet file with `image` unless other columns are given, and Hugging Face's metadata, raw or as features."""
    table = pa.table(columns if "image" in columns else {"image": IMAGES, **columns})
    if features is not None:
        metadata = features if isinstance(features, str) else json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, path)
    return path


def refused(spec: object, **options: object) -> str:
    """The error message of `open_source`."""
    with pytest.raises(UserError) as caught:
        open_source(spec, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.isprintable()
    assert message.endswith((".", "?"))
    return message


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([0.0, 1.0, float("nan"), None, 2.5, 1.0]),
        pa.array([[0], [1], [0], None, [1], []]),
        pa.array([{"is": 1}] * 6),
        pa.array([None] * 6),
    ],
)
def test_invalid_labels_are_ignored(tmp_path: Path, labels: pa.Array) -> None:
    declared = {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    source = open_source(write(tmp_path / "a.parquet", declared, label=labels))
    assert (len(source), source.classes, source.skipped) == (6, None, ())


def test_booleans_are_labels(tmp_path: Path) -> None:
    declared = {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    for features, classes in ((declared, ("a", "b")), (None, ("False", "True"))):
        path = write(tmp_path / "a.parquet", features, label=[True, False, None, True, True, False])
        source = open_source(path, split="all")
        assert source.classes == classes
        assert source.labels is not None
        assert source.labels.tolist() == [1, 0, 1, 1, 0]


def test_error_states_why_labels_are_not_used(tmp_path: Path) -> None:
    assert "contains fractions" in refused(write(tmp_path / "a.parquet", label=[0.5] * 6), split="test")


@pytest.mark.parametrize(
    "metadata",
    ["", "no JSON", "[]", "null", '{"info": 5}', '{"info": {"features": 7}}', '{"info": {"features": {"label": 1}}}',
     "[" * 50_000, '{"info": {"features": {"label": {"_type": "ClassLabel", "names": []}}}}',
     '{"info": {"features": {"label": {"_type": "ClassLabel", "names": {"a": 1}}}}}',
     '{"info": {"features": {"label": {"_type": "Image"}, "image": {"_type": "ClassLabel", "names": ["x"]}}}}'],
)  # fmt: skip
def test_inconsistent_metadata(tmp_path: Path, metadata: str) -> None:
    source = open_source(write(tmp_path / "a.parquet", metadata, label=[-7, 3, -7, 3, 3, 10]), split="all")
    assert source.classes == ("3", "10", "-7")
    assert source.labels is not None
    assert source.labels.tolist() == [2, 0, 2, 0, 0, 1]


def test_negative_and_too_large_labels_are_listed(tmp_path: Path) -> None:
    declared = {"label": {"_type": "ClassLabel", "names": ["a\x1b[2J", "b"]}}
    source = open_source(write(tmp_path / "a.parquet", declared, label=[0, 1, -5, 2**40, 1, 0]), split="all")
    assert source.classes == ("a\\x1b[2J", "b")
    assert [title for title, _ in source.skipped] == ["a.parquet:2", "a.parquet:3"]


def test_cells_without_images_are_listed(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "beside.png").write_bytes(encoded(noise(8, 8)))
    cells = [*IMAGES, None, {"bytes": b"", "path": "loop.png"}, {"bytes": None, "path": "n" * 5000}]
    cells += [{"bytes": None, "path": "beside.png"}, {"bytes": b"text", "path": None}]
    source = open_source(write(tmp_path / "a.parquet", image=cells))
    assert len(source) == 7
    assert [title for title, _ in source.skipped] == [f"a.parquet:{row}" for row in (6, 7, 8, 10)]
    numbers = pa.array([{"bytes": image["bytes"], "path": 7} for image in IMAGES])
    assert len(open_source(write(tmp_path / "a.parquet", image=numbers))) == 6


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        (["a.png"] * 6, "image (string)"),
        ([{"path": "a.png"}] * 6, "image (struct<path: string>)"),
        ([[image["bytes"]] for image in IMAGES], "image (list<element: binary>)"),
        ([1.5] * 6, "image (double)"),
    ],
)
def test_no_column_of_images(tmp_path: Path, column: list[object], shown: str) -> None:
    assert shown in refused(write(tmp_path / "a.parquet", image=column))


def test_columns_with_odd_names(tmp_path: Path) -> None:
    bytes_ = [image["bytes"] for image in IMAGES]
    table = pa.table({"my.image": bytes_, "image.x": [1] * 6, "": [2] * 6, "label": list("ababab")})
    pq.write_table(table, tmp_path / "a.PARQUET")
    assert len(open_source(tmp_path / "a.PARQUET", split="all")) == 6
    twice = pa.Table.from_arrays([pa.array(bytes_), pa.array(bytes_)], names=["image", "image"])
    pq.write_table(twice, tmp_path / "a.PARQUET")
    assert "image (binary), image (binary)" in refused(tmp_path)


def test_metadata_tables_next_to_images_are_not_image_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"file": ["0.png"], "age": [7]}), tmp_path / "metadata.parquet")
    assert "has no image column" in refused(tmp_path)
    write_images(tmp_path, 3)
    assert len(open_source(tmp_path)) == 3


def test_inconsistent_files_are_rejected_or_reconciled(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", label=[0, 1] * 3)
    write(tmp_path / "val.parquet", image=[5] * 6, label=[0, 1] * 3)
    message = refused(tmp_path)
    assert "images in the column 'image', but" in message
    assert "val.parquet has image (int64)" in message
    write(tmp_path / "val.parquet", label=[["a"]] * 6)
    assert open_source(tmp_path, split="test").classes == ("0", "1")  # held out of the training part, which has labels
    write(tmp_path / "val.parquet", label=list("ababab"))
    assert open_source(tmp_path, split="train").classes == ("0", "1", "a", "b")
    write(tmp_path / "val.parquet", image=pa.array([], pa.binary()))
    assert "no images in the test part" in refused(tmp_path, split="test")


@pytest.mark.parametrize("content", [b"", b"I am a text\n" * 9, b"PAR1PAR1", None])
def test_no_parquet_at_all(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad\n.parquet"
    whole = write(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert "is not a valid parquet file" in refused(path)


def test_no_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", image=pa.array([], pa.binary()))
    assert "no images in" in refused(path)


def test_invalid_text_in_parquet_is_rejected(tmp_path: Path) -> None:
    words = pa.Array.from_buffers(pa.string(), 6, [None, pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in range(7))), pa.py_buffer(b"ab\xff\xfeab")])  # fmt: skip  # noqa: E501
    assert "is not a valid parquet file" in refused(write(tmp_path / "a.parquet", label=words))


CHILD = """
import sys
from pathlib import Path
from selftaught.data import open_source, open_splits
from selftaught.data.labels import AMBIGUOUS, PathIndex
from selftaught.errors import UserError
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        source = open_source(path, split="all", cache=Path(sys.argv[2]))
        assert len(source) + len(source.skipped) > 0
    except UserError as error:
        assert str(error).isprintable(), str(error)
        print(error)
"""


@pytest.mark.parametrize("count", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_damaged_parquet_files(tmp_path: Path, count: int) -> None:
    """In a separate process, as pyarrow may crash. All, some or none of the images of a damaged file are usable."""
    whole, draw = write(tmp_path / "whole.parquet", label=list("ababab")).read_bytes(), random.Random(0)
    (tmp_path / "files").mkdir()
    for number in range(count):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            tail = draw.random() < 0.7  # the footer, which has the offsets of everything else
            content[draw.randrange(len(content) - 900 if tail else 0, len(content) - 8)] ^= 1 << draw.randrange(8)
        (tmp_path / "files" / f"{number}.parquet").write_bytes(content)
    command = [sys.executable, "-W", "error", "-c", CHILD, str(tmp_path / "files"), str(tmp_path / "cache")]
    child = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert child.returncode == 0, child.stderr[-3000:]
    assert 0 < len(child.stdout.splitlines()) < count


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"path;label\n0.png;a\n", "separated by a comma; got 'path;label'"),
        (b"picture,label\n0.png,a\n", "got 'picture,label'"),
        (b"path,Path,label\n0.png,a\n", "the column 'path' occurs twice"),
        (b'path,label\n0.png,a\n1.png,"b\n2.png,c\n', "unclosed quote in line 3"),
        (b'path,label\n0.png,"a\n1.png,b\n2.png,"\n', "unclosed quote in line 2"),
        (b'path,label\n0.png,a\n"1".png,b\n', "as CSV: error in line 3"),
        (b"path,label\n0.png,a\n" + b",x" * 600_000, "more than 1,048,576 characters in line 3"),
        (b"path,label\n0.png,a\ngone.png,b\n", "at least two different labels, got 1 for the images matched by"),
        (b"path\tlabel\n0.png\ta\n", "got 'path\\\\tlabel'"),
        (b"path\n0.png\n", "got 'path'"),
        (b"path,label\n", "at least two different labels, got 0 in"),
        ("path,label\n0.png,é\n".encode("latin-1"), "it is not UTF-8. Save it as UTF-8"),
        ("path,label\n0.png,a\n".encode("utf-16"), "it is not UTF-8. Save it as UTF-8"),
        (b"path,label\n0.png,a\nset/0.png,b\n", ": 'a' and 'b'. Remove one."),
        (b"path,label\nx.png,a\ny.png,b\n", "set, such as 'x.png', which matches no image: write the paths"),
        (b'path,label\n0.png,"' + b"a" * 200_000 + b'"\n', "field larger than"),
        (b"\x00\x01\x02", "columns path and label"),
    ],
)
def test_invalid_label_files(tmp_path: Path, content: bytes, words: str) -> None:
    write_images(tmp_path / "set", 4)
    (tmp_path / "a.csv").write_bytes(content)
    assert words in refused(tmp_path / "set", labels=tmp_path / "a.csv")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfpath,label\r\n0.png,a\r\n1.png,b\r\n2.png,\r\n",
        b'"path","label","more"\n"0.png","a","x,y"\n"1.png","b"\n\n',
        b"path, label\n./0.png, a \n0.png,a\n1.png,b\ngone.png,b\n",
        b"label,path\na,0.png\nb,1.png,surplus\n",
        b" Filename , Class\n0.png,a\n1.png,b\n",
        b"IMAGE,Label\r0.png,a\r1.png,b\r",
        b"file_name,path,category\nx,0.png,a\ny,1.png,b\n",
        b"path,label\nC:\\data\\set\\0.png,a\nset\\1.png,b\n",
        b'path,label,caption\n0.png,a,"two\nlines"\n1.png,b,\n',
    ],
)
def test_label_files_may_cover_some_images(tmp_path: Path, content: bytes) -> None:
    write_images(tmp_path / "set", 4)
    (tmp_path / "a.csv").write_bytes(content)
    source = open_source(tmp_path / "set", labels=tmp_path / "a.csv", split="all")
    assert source.classes == ("a", "b")
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1]


def test_labels_of_the_other_part_only(tmp_path: Path) -> None:
    write_images(tmp_path / "set" / "train", 4)
    write_images(tmp_path / "set" / "test", 4)
    (tmp_path / "a.csv").write_text("path,label\ntest/0.png,a\ntest/1.png,b\n")
    assert "no image in the train part" in refused(tmp_path / "set", labels=tmp_path / "a.csv")
    assert "a folder or a pipe" in refused(tmp_path / "set", labels=tmp_path)


def test_lines_that_are_not_used_are_counted(tmp_path: Path) -> None:
    for folder in "ab":
        write_images(tmp_path / "set" / folder, 3)
    lines = ["a/0.png,x", "b/0.png,y", "a/1.png,x", "b/1.png,y", "2.png,x", "gone.png,y"]
    (tmp_path / "a.csv").write_text("\n".join(["path,label", *lines]))
    source = open_source(tmp_path / "set", labels=tmp_path / "a.csv", split="all")
    (note,) = source.notes
    assert note.startswith("2 of 6 paths in")
    assert "'gone.png', which matches no image, and '2.png', which matches several images" in note
    (tmp_path / "a.csv").write_text("\n".join(["path,label", *lines[:4]]))
    assert open_source(tmp_path / "set", labels=tmp_path / "a.csv", split="all").notes == ()


def test_a_name_in_both_parts_labels_neither(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        write_images(tmp_path / "set" / folder, 4)
    lines = [f"{part}/{n}.png,{'ab'[n % 2]}\n" for part in ("train", "test") for n in range(3)]
    (tmp_path / "a.csv").write_text("path,label\n" + "".join(lines) + "3.png,a\n")
    train, test = open_splits(tmp_path / "set", labels=tmp_path / "a.csv")
    assert (len(train), len(test)) == (3, 3)
    assert train.notes[0].startswith("1 of 7 paths in")


def test_one_class_is_not_probed(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        write_images(tmp_path / "set" / folder, 4)
    lines = [f"train/{n}.png,a\n" for n in range(4)] + [f"test/{n}.png,{'ab'[n % 2]}\n" for n in range(4)]
    (tmp_path / "a.csv").write_text("path,label\n" + "".join(lines))
    with pytest.raises(UserError, match="two or more classes, but all training images"):
        open_splits(tmp_path / "set", labels=tmp_path / "a.csv")


def test_time_does_not_grow_with_images_of_one_name() -> None:
    index = PathIndex([f"{number}/frame.png" for number in range(100_000)])
    start = time.process_time()
    assert index.find("frame.png") == [AMBIGUOUS]
    assert all(index.find(f"/data/{number}/frame.png") == [number] for number in range(10_000))
    assert index.find("a/" * 200_000 + "7/frame.png") == [7]
    assert time.process_time() - start < 2
