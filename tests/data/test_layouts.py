"""Layouts of image folders: labels, splits and what is left out, in folders made as their publishers make them."""

import os
from pathlib import Path

import pytest
from corpus import encoded, noise

from selftaught.data.folder import folder_splits
from selftaught.data.reader import Files, split_folder
from selftaught.data.sources import open_source, open_splits
from selftaught.display import progress
from selftaught.errors import UserError

CACHED: dict[int, bytes] = {}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(progress, "_announced", set())


def fill(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(CACHED.setdefault(number, encoded(noise(4, 4, number))))
    return root


def read(root: Path) -> dict[str, dict[str, str | None]]:
    """Split -> title -> class."""
    splits = {}
    for split, reader in folder_splits(root).items():
        assert isinstance(reader, Files)
        names = [None] * len(reader) if reader.classes is None else [*reader.classes, None]
        labels = range(len(reader)) if reader.labels is None else reader.labels
        splits[split] = {title: names[label] for title, label in zip(reader.titles, labels, strict=True)}
    return splits


def notes(root: Path) -> str:
    reader = folder_splits(root)["all"]
    assert isinstance(reader, Files)
    return "; ".join([reader.layout, *reader.notes])


def tiny_imagenet(root: Path) -> Path:
    """As unpacked: 3 classes of 4 training images, 6 validation images with annotations, 9 test images without."""
    for name in ("n01", "n02", "n03"):
        fill(root, *(f"train/{name}/images/{name}_{number}.JPEG" for number in range(4)))
        (root / f"train/{name}/{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t3\t3\n")
    fill(root, *(f"val/images/val_{number}.JPEG" for number in range(6)))
    fill(root, *(f"test/images/test_{number}.JPEG" for number in range(9)))
    rows = [f"val_{number}.JPEG\tn0{number % 3 + 1}\t0\t0\t62\t62\n" for number in range(6)]
    (root / "val/val_annotations.txt").write_text("".join(rows))
    (root / "wnids.txt").write_text("n01\nn02\nn03\n")
    return root


def test_tiny_imagenet_uses_its_validation_part_for_tests(tmp_path: Path, capsys) -> None:
    root = tiny_imagenet(tmp_path / "tiny")
    splits = read(root)
    assert splits["train"]["train/n02/images/n02_3.JPEG"] == "n02"
    assert splits["validation"] == {f"val/images/val_{number}.JPEG": f"n0{number % 3 + 1}" for number in range(6)}
    assert set(splits["test"].values()) == {None}
    train, test = open_splits(root)
    assert (len(train), len(test)) == (12, 6)
    assert train.classes == test.classes == ("n01", "n02", "n03")
    assert test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    open_splits(root)
    (line,) = capsys.readouterr().err.splitlines()
    assert "Tiny-ImageNet, 3 classes, 12 training and 6 test images (the validation part)" in line
    assert "9 images (test/images/test_0.JPEG, test/images/test_1.JPEG, ...) of the test part without a label" in line


def test_unlabeled_test_parts_are_not_used(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", *(f"train/{name}/{n}.png" for name in "ab" for n in range(20)), "test/1.png")
    train, test = open_splits(root)
    assert len(train) + len(test) == 40
    assert test.name == f"{root} (train) (test, about 20 % of the images)"


def test_parts_without_a_common_class_are_refused(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", "train/cat/1.png", "train/dog/1.png", "test/Cat/1.png", "test/Dog/1.png")
    with pytest.raises(UserError, match=r"no class in common \(training: cat, dog; test: Cat, Dog\): use the same"):
        open_splits(root)


def test_one_image_per_class_is_refused_with_advice(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", *(f"class{number}/1.png" for number in range(20)))
    with pytest.raises(
        UserError, match=r"no class of .* has both .* \(20 images, 20 classes\).*several images of each"
    ):
        open_splits(root)


def test_classes_without_test_images_are_named(tmp_path: Path, capsys) -> None:
    fill(tmp_path / "set", "train/cat/1.png", "train/dog/1.png", "train/owl/1.png", "test/cat/1.png", "test/emu/1.png")
    open_splits(tmp_path / "set")
    message = capsys.readouterr().err
    assert "no test images for 2 of 4 classes (dog, owl)" in message
    assert "no training images for 1 of 4 classes (emu)" in message


def voc(root: Path, *mixed: int) -> Path:
    fill(root, *(f"JPEGImages/{number:03}.jpg" for number in range(8)), "SegmentationClass/001.png")
    for number in range(8):
        objects = ["cat", "dog"] if number in mixed else [("cat", "dog")[number % 2]] * 2
        parts = "".join(f"<object><name>{name}</name><part><name>head</name></part></object>" for name in objects)
        (root / "Annotations").mkdir(exist_ok=True)
        (root / f"Annotations/{number:03}.xml").write_text(f"<annotation>{parts}</annotation>")
    (root / "ImageSets/Main").mkdir(parents=True)
    for split, numbers in {"train": (0, 1, 2), "val": (3, 4, 5), "trainval": range(6)}.items():
        (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{number:03}\n" for number in numbers))
    (root / "ImageSets/Main/cat_train.txt").write_text("000  1\n001 -1\n")
    return root


def test_voc_has_its_lists_and_the_labels_of_images_with_one_kind_of_object(tmp_path: Path) -> None:
    splits = read(voc(tmp_path / "VOCdevkit/VOC2012", 2))
    train = {"JPEGImages/000.jpg": "cat", "JPEGImages/001.jpg": "dog", "JPEGImages/002.jpg": None}
    assert splits["train"] == train
    assert list(splits["validation"].values()) == ["dog", "cat", "dog"]
    assert len(splits["all"]) == 8
    assert "1 image (SegmentationClass/001.png) left out" in notes(tmp_path / "VOCdevkit/VOC2012")
    assert len(read(tmp_path)["train"]) == 3


def test_voc_has_no_labels_where_most_images_show_several_classes(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc", 1, 2, 3, 5, 7)
    assert set(read(root)["train"].values()) == {None}
    assert "no labels, because most images show objects of several classes" in notes(root)


def test_oxford_pets(tmp_path: Path) -> None:
    names = [f"{name}_{number}" for name in ("Abyssinian", "great_pyrenees") for number in (1, 2, 10)]
    root = fill(tmp_path / "pets", *(f"images/{name}.jpg" for name in names), "annotations/trimaps/Abyssinian_1.png")
    rows = {name: f"{name} {1 + number // 3} 1 1\n" for number, name in enumerate(names)}
    (root / "annotations/trainval.txt").write_text("#Image CLASS-ID SPECIES BREED ID\n" + "".join(
        rows[name] for name in names if not name.endswith("10")))  # fmt: skip
    (root / "annotations/test.txt").write_text("".join(rows[name] for name in names if name.endswith("10")))
    splits = read(root)
    assert splits["test"] == {
        "images/Abyssinian_10.jpg": "Abyssinian",
        "images/great_pyrenees_10.jpg": "great_pyrenees",
    }
    assert len(splits["train"]) == 4
    assert len(splits["all"]) == 6


def test_one_csv_next_to_a_flat_folder_gives_labels(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", *(f"images/{number}.png" for number in range(5)))
    (root / "labels.csv").write_text("path,label\n0.png,a\n1.png,b\nimages/2.png,a\n3.png,b\n")
    assert list(read(root)["all"].values()) == ["a", "b", "a", "b", None]
    assert "labels from labels.csv; 1 image (images/4.png) without a label" in notes(root)
    (root / "labels.csv").write_text("who,when\nme,now\n")
    assert set(read(root)["all"].values()) == {None}
    assert "labels.csv not used: it has no columns path and label" in notes(root)


def test_split_folders_next_to_others_are_not_classes(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", "train/1.png", "val/2.png", "test/3.png", "other/4.png")
    splits = read(root)
    assert {split: list(titles) for split, titles in splits.items()} == {
        "all": ["test/3.png", "train/1.png", "val/2.png"],
        "train": ["train/1.png"],
        "validation": ["val/2.png"],
        "test": ["test/3.png"],
    }
    assert "1 image (other/4.png) left out" in notes(root)


def test_split_folders_with_common_classes_win_over_other_folders(tmp_path: Path) -> None:
    names = [f"{split}/{name}/1.png" for split in ("train", "test") for name in ("cat", "dog")]
    splits = read(fill(tmp_path, *names, "extra/1.png", "drafts/1.png", "old/cat/1.png"))
    assert splits["test"] == {"test/cat/1.png": "cat", "test/dog/1.png": "dog"}


@pytest.mark.parametrize(
    "names",
    [("train", "test_tube"), ("train", "bus"), ("train", "test", "bus", "car"), ("validator", "tester"), ("val", "a")],
)
def test_classes_whose_names_look_like_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    splits = read(fill(tmp_path, *(f"{name}/1.png" for name in names)))
    assert set(splits) == {"all"}
    assert sorted(str(name) for name in splits["all"].values()) == sorted(names)


def test_split_folders_without_a_training_part_are_not_classes(tmp_path: Path) -> None:
    splits = read(fill(tmp_path, "val/cat/1.png", "val/dog/1.png", "test/cat/1.png"))
    assert sorted(str(name) for name in splits["all"].values()) == ["cat", "cat", "dog"]


@pytest.mark.parametrize(
    ("word", "split"),
    [("train", "train"), ("Val", "validation"), ("training_set", "train"), ("test2017", "test"), ("test_tube", None),
     ("trainer", None), ("test_", None), ("train1", None), ("valid-images", "validation"), ("", None)],
)  # fmt: skip
def test_split_names_must_match_completely(word: str, split: str | None) -> None:
    assert split_folder(word) == split


def test_images_next_to_class_folders_are_unlabeled(tmp_path: Path) -> None:
    names = [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(2)]
    root = fill(tmp_path, *names, "logo.png", "overview.png")
    splits = read(root)["all"]
    assert [splits[title] for title in ("cat/0.png", "dog/1.png", "logo.png")] == ["cat", "dog", None]
    assert "2 images (logo.png, overview.png) without a label" in notes(root)


def test_image_folders_inside_splits_are_supported(tmp_path: Path) -> None:
    names = ("train/images/cat/1.png", "train/images/dog/1.png", "val/cat/1.png", "val/dog/sub/1.png", "val/x.png")
    assert list(read(fill(tmp_path, *names))["validation"].values()) == ["cat", "dog", None]


def test_parts_of_flat_images_have_no_labels(tmp_path: Path) -> None:
    splits = read(fill(tmp_path, "train/images/1.png", "train/images/2.png", "val/images/1.png"))
    assert len(splits["train"]) == 2
    assert set(splits["all"].values()) == {None}


def test_error_for_no_images_lists_other_files(tmp_path: Path) -> None:
    for name in ("a.npy", "b.npy", "c/d.NPY", "readme.txt", "none"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError) as caught:
        open_source(tmp_path)
    message = str(caught.value)
    assert ".png" in message
    assert ".parquet" in message
    assert "(3 .npy, 1 without a suffix, 1 .txt)" in message
    assert "Check the path" not in message


def test_pipes_instead_of_annotation_files_are_not_opened(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path / "tiny")
    (root / "val/val_annotations.txt").unlink()
    os.mkfifo(root / "val/val_annotations.txt")
    assert set(read(root)["validation"].values()) == {None}


def test_class_names_may_contain_any_characters(tmp_path: Path) -> None:
    """Upper-case suffixes, line breaks, bytes that are no UTF-8, and what systems leave in folders."""
    odd = ["train/a/1.JPG", "train/b/two\nlines.png", "test/a/\udcff.png", "test/b/1.PnG"]
    left = [".DS_Store", "train/Thumbs.db", "__MACOSX/train/a/1.jpg", "train/.hidden/1.png", "train/a/._1.JPG"]
    splits = read(fill(tmp_path, *odd, *left))
    assert set(splits["all"]) == set(odd)
    assert list(splits["test"].values()) == ["a", "b"]
    open_splits(tmp_path)
