"""Parquet: images and labels come back as they were written, whatever the columns claim."""

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus import encoded, noise

from selftaught.data.columns import image_columns, label_column
from selftaught.data.reader import UNLABELED, Reader
from selftaught.data.resolve import open_readers
from selftaught.errors import UserError


def cells(count: int, start: int = 0) -> list[dict[str, object]]:
    return [{"bytes": f"image {number}".encode(), "path": f"{number}.png"} for number in range(start, start + count)]


def write(path: Path, columns: dict[str, object], features: object = None, group: int = 3) -> Path:
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path


def declared(*names: str) -> dict[str, object]:
    return {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(names)}}


def splits_of(path: Path) -> dict[str, Reader]:
    return open_readers(path)


def contents(reader: Reader, indices: list[int] | None = None) -> list[object]:
    return list(reader.stream(np.arange(len(reader)) if indices is None else np.array(indices)))


def test_hugging_face_layout(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.parquet", {"image": cells(8), "label": [0, 1, 2, 0, 1, 2, 0, 1]}, declared("x", "y", "z")
    )
    reader = splits_of(file)["all"]
    assert reader.classes == ("x", "y", "z")
    assert reader.labels is not None
    assert reader.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert contents(reader) == [f"image {number}".encode() for number in range(8)]
    assert reader.title(5) == "a.parquet:5"


@pytest.mark.parametrize("indices", [[0], [7], [2, 3], [0, 5, 7], [1, 2, 3, 4, 5, 6], []])
def test_streams_exactly_what_is_asked(tmp_path: Path, indices: list[int]) -> None:
    write(tmp_path / "train-00000-of-00002.parquet", {"image": cells(5)}, group=2)
    write(tmp_path / "train-00001-of-00002.parquet", {"image": cells(3, 5)}, group=2)
    assert contents(splits_of(tmp_path)["all"], indices) == [f"image {number}".encode() for number in indices]


def test_long_row_groups_are_read_in_pieces(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", {"image": cells(500)}, group=500)
    assert contents(splits_of(file)["all"], [0, 63, 64, 200, 499]) == [
        f"image {number}".encode() for number in (0, 63, 64, 200, 499)
    ]


def test_shards_in_order_and_splits_by_name(tmp_path: Path) -> None:
    for name, start in [("train-10", 4), ("train-9", 0), ("test-0", 8), ("validation", 12)]:
        write(tmp_path / f"{name}.parquet", {"image": cells(4, start), "label": [0, 1, 0, 1]}, declared("x", "y"))
    splits = splits_of(tmp_path)
    assert set(splits) == {"all", "train", "test", "validation"}
    assert contents(splits["train"]) == [f"image {number}".encode() for number in range(8)]
    assert splits["train"].title(4) == "train-10.parquet:0"
    assert len(splits["all"]) == 16


def test_splits_by_folder(tmp_path: Path) -> None:
    write(tmp_path / "train" / "0000.parquet", {"image": cells(2)})
    write(tmp_path / "test" / "0000.parquet", {"image": cells(3)})
    write(tmp_path / ".cache" / "train" / "0001.parquet", {"image": cells(9)})
    assert {split: len(reader) for split, reader in splits_of(tmp_path).items()} == {"all": 5, "train": 2, "test": 3}


def test_a_single_split_name_is_ignored(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", {"image": cells(2)})
    assert set(splits_of(tmp_path)) == {"all"}


def test_labels_without_names_are_called_by_their_values_over_all_files(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", {"image": cells(3), "label": [10, 2, 10]})
    write(tmp_path / "test.parquet", {"image": cells(2), "label": [7, -1]})
    splits = splits_of(tmp_path)
    assert splits["train"].classes == ("2", "7", "10")
    assert splits["train"].labels is not None
    assert splits["test"].labels is not None
    assert splits["train"].labels.tolist() == [2, 0, 2]
    assert splits["test"].labels.tolist() == [1, UNLABELED]


@pytest.mark.parametrize("dictionary", [False, True])
def test_text_labels_are_classes(tmp_path: Path, dictionary: bool) -> None:
    words = pa.array(["cat", "dog", None, "cat"])
    column = words.dictionary_encode() if dictionary else words
    reader = splits_of(write(tmp_path / "a.parquet", {"img": cells(4), "category": column}))["all"]
    assert reader.classes == ("cat", "dog")
    assert reader.labels is not None
    assert reader.labels.tolist() == [0, 1, UNLABELED, 0]


def test_labels_out_of_range_are_no_labels(tmp_path: Path) -> None:
    labels = pa.array([0, 1, 2, -1, None, 99], pa.int64())
    reader = splits_of(write(tmp_path / "a.parquet", {"image": cells(6), "label": labels}, declared("x", "y")))["all"]
    assert reader.labels is not None
    assert reader.labels.tolist() == [0, 1, UNLABELED, UNLABELED, UNLABELED, UNLABELED]


@pytest.mark.parametrize("labels", [[-1, -1], [None, None]])
def test_no_label_at_all_is_an_unlabeled_source(tmp_path: Path, labels: list[int | None]) -> None:
    file = write(tmp_path / "a.parquet", {"image": cells(2), "label": pa.array(labels, pa.int64())}, declared("x", "y"))
    reader = splits_of(file)["all"]
    assert reader.labels is None
    assert reader.classes is None


def test_fine_labels_win_over_coarse_ones(tmp_path: Path) -> None:
    features = {
        "coarse_label": {"_type": "ClassLabel", "names": ["thing"]},
        "fine_label": {"_type": "ClassLabel", "names": ["cup", "pot"]},
    }
    file = write(tmp_path / "a.parquet", {"img": cells(2), "coarse_label": [0, 0], "fine_label": [1, 0]}, features)
    assert splits_of(file)["all"].classes == ("cup", "pot")


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_plain_bytes(tmp_path: Path, kind: pa.DataType) -> None:
    file = write(tmp_path / "a.parquet", {"id": [1, 2], "data": pa.array([b"one", None], kind)})
    assert contents(splits_of(file)["all"]) == [b"one", b""]


@pytest.mark.parametrize(
    "features",
    [
        {"number": {"_type": "Image"}, "label": {"_type": "ClassLabel"}},
        {"gone": {"_type": "Image"}},
        ["nonsense"],
        "nonsense",
        {"image": None},
    ],
)
def test_wrong_metadata_is_ignored(tmp_path: Path, features: object) -> None:
    file = write(tmp_path / "a.parquet", {"number": [1, 2], "image": cells(2), "label": [5, 6]}, features)
    reader = splits_of(file)["all"]
    assert contents(reader) == [b"image 0", b"image 1"]
    assert reader.classes == ("5", "6")


def test_null_rows_and_empty_bytes_are_empty(tmp_path: Path) -> None:
    rows = [None, {"bytes": None, "path": None}, {"bytes": b"", "path": ""}, {"bytes": b"x", "path": None}]
    assert contents(splits_of(write(tmp_path / "a.parquet", {"image": rows}))["all"]) == [b"", b"", b"", b"x"]


def test_paths_stay_inside_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "set"
    rows = [{"bytes": None, "path": path} for path in ("sub/1.png", "../secret.png", "/etc/hostname", "nul\0.png")]
    rows.append({"bytes": b"", "path": "x"})
    file = write(inside / "a.parquet", {"image": rows})
    assert contents(splits_of(file)["all"]) == [
        inside / "sub/1.png",
        *["has a path outside the folder of the parquet file"] * 2,
        "has an invalid path",
        inside / "x",
    ]


def test_inconsistent_files_are_rejected(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", {"picture": cells(2)})
    write(tmp_path / "test.parquet", {"image": cells(2)})
    with pytest.raises(UserError, match=r"must have images in the column 'image'.*train\.parquet"):
        splits_of(tmp_path)


def test_a_part_may_be_without_labels(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", {"image": cells(2), "label": [1, 0]}, declared("x", "y"))
    write(tmp_path / "test.parquet", {"image": cells(2)})
    splits = splits_of(tmp_path)
    assert splits["train"].labels is not None
    assert splits["train"].labels.tolist() == [1, 0]
    assert splits["train"].classes == ("x", "y")
    assert splits["test"].labels is None
    assert splits["test"].classes is None


def test_files_without_images_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no image column.*text \(string\), label \(int64\)"):
        splits_of(write(tmp_path / "a.parquet", {"text": ["a"], "label": [0]}))


def test_damaged_files_raise_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 this is none PAR1")
    with pytest.raises(UserError, match="not a valid parquet file"):
        splits_of(tmp_path / "a.parquet")
    whole = write(
        tmp_path / "b.parquet", {"image": [{"bytes": encoded(noise(32, 32, i)), "path": None} for i in range(9)]}
    )
    content = bytearray(whole.read_bytes())
    content[4:4000] = bytes(3996)
    whole.write_bytes(content)
    with pytest.raises(UserError, match="not a valid parquet file"):
        contents(splits_of(whole)["all"])


def test_fingerprint_depends_on_content_and_order(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", {"image": cells(3)})
    first = splits_of(file)["all"].fingerprint()
    assert splits_of(file)["all"].fingerprint() == first
    write(file, {"image": cells(3, 1)})
    assert splits_of(file)["all"].fingerprint() != first


def names_of(reader: Reader) -> list[str | None]:
    """The name of each image's label."""
    assert reader.labels is not None
    assert reader.classes is not None
    return [None if label == UNLABELED else reader.classes[label] for label in reader.labels.tolist()]


def test_files_with_different_class_numbers_are_matched_by_name(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", {"image": cells(3), "label": [0, 1, 2]}, declared("ant", "bee", "cat"))
    write(tmp_path / "test.parquet", {"image": cells(3), "label": [0, 1, 2]}, declared("cat", "ant", "dog"))
    splits = splits_of(tmp_path)
    assert set(splits["train"].classes or ()) == {"ant", "bee", "cat", "dog"}
    assert splits["train"].classes == splits["test"].classes
    assert names_of(splits["train"]) == ["ant", "bee", "cat"]
    assert names_of(splits["test"]) == ["cat", "ant", "dog"]


def test_files_without_class_names_use_those_of_the_others(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": cells(2), "label": [0, 1]}, declared("x", "y"))
    write(tmp_path / "b.parquet", {"image": cells(2), "label": [1, 7]})
    assert names_of(splits_of(tmp_path)["all"]) == ["x", "y", "y", None]
    write(tmp_path / "c.parquet", {"image": cells(2), "label": [1, 0]}, declared("y", "x"))
    with pytest.raises(UserError, match=r"declare different class names, and .*b\.parquet declares none"):
        splits_of(tmp_path)


@pytest.mark.parametrize(
    ("labels", "names", "classes"),
    [
        (["2", "0", "1"], ["2", "0", "1"], ("0", "1", "2")),
        (pa.array(["2", "0", "1"], pa.string_view()), ["2", "0", "1"], ("0", "1", "2")),
        ([2.0, 0.0, 1.0], ["2", "0", "1"], ("0", "1", "2")),
        ([2.0, None, float("nan")], ["2", None, None], ("0", "1", "2")),
        ([True, False, None], ["True", "False", None], ("0", "1", "2", "False", "True")),
    ],
)
def test_values_that_mean_the_same_are_one_class(
    tmp_path: Path, labels: object, names: list[str | None], classes: tuple[str, ...]
) -> None:
    write(tmp_path / "train.parquet", {"image": cells(3), "label": [0, 1, 2]})
    write(tmp_path / "test.parquet", {"image": cells(3), "label": labels})
    splits = splits_of(tmp_path)
    assert splits["test"].classes == classes
    assert names_of(splits["train"]) == ["0", "1", "2"]
    assert names_of(splits["test"]) == names


def test_numbers_as_text_follow_the_declared_names(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", {"image": cells(2), "label": [0, 1]}, declared("x", "y"))
    write(tmp_path / "test.parquet", {"image": cells(3), "label": ["1", "x", "9"]})
    assert names_of(splits_of(tmp_path)["test"]) == ["y", "x", None]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([0.5, 1.0]), "the column 'label' contains fractions"),
        (pa.array([1e300, 1.0]), "the column 'label' contains fractions"),
        (pa.array(["a", "b" * 501]), "the column 'label' contains strings of more than 500 characters"),
        (pa.array([[0], [1]]), "the column 'label' (list<element: int64>) does not have one label per image"),
        (pa.array([{"is": 1}] * 2), "the column 'label' (struct<is: int64>) does not have one label per image"),
        (pa.array([None, None], pa.int64()), "the column 'label' contains no labels"),
        (pa.array([None, None]), "the column 'label' (null) does not have one label per image"),
    ],
)
def test_labels_that_are_not_used_are_mentioned(tmp_path: Path, column: pa.Array, words: str) -> None:
    reader = splits_of(write(tmp_path / "a.parquet", {"image": cells(2), "label": column}))["all"]
    assert reader.labels is None
    (note,) = reader.notes
    assert note.startswith(words)


def test_a_file_without_the_column_of_labels_is_mentioned(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", {"image": cells(2), "label": [0, 1]}, declared("x", "y"))
    write(tmp_path / "test.parquet", {"image": cells(2)})
    assert splits_of(tmp_path)["test"].notes == ("test.parquet has no label column 'label'",)


def test_text_columns_take_precedence_over_floats(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", {"image": cells(2), "target": [0.0, 1.0], "category": ["x", "y"]})
    assert splits_of(file)["all"].classes == ("x", "y")


def test_many_columns_are_supported() -> None:
    schema = pa.schema([("image", pa.binary())] + [(f"column {number}", pa.int64()) for number in range(50_000)])
    start = time.process_time()
    assert image_columns(schema) == ["image"]
    assert label_column(schema) is None
    assert time.process_time() - start < 2
