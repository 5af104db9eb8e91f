"""Sources by name and path, their splits and limits, and the errors for sources that do not exist."""

import os
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import encoded, noise, write_broken, write_images
from PIL import Image

from selftaught.data import Stored, is_photos, list_sources, open_source, open_splits, photos
from selftaught.data.named import DATASETS, PHOTOS
from selftaught.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """30 cats and 20 dogs, 8 px."""
    write_images(tmp_path / "pets" / "cat", 30, seed=1)
    write_images(tmp_path / "pets" / "dog", 20, seed=2)
    return tmp_path / "pets"


def images(source: Stored) -> np.ndarray:
    return source.batch(torch.arange(len(source)), CPU).images.numpy()


def keys(source: Stored) -> set[bytes]:
    return {image.tobytes() for image in images(source)}


def test_images_of_a_folder_are_opened(pets: Path) -> None:
    source = open_source(str(pets), split="all")
    assert len(source) == 50
    assert source.classes == ("cat", "dog")
    assert source.side == 8
    assert source.skipped == ()
    expected = [noise(8, 8, 1000 + number).transpose(2, 0, 1) for number in range(30)]
    assert np.array_equal(images(source)[:30], expected)
    assert source.batch(torch.tensor([0, 29, 30, 49]), CPU).targets["label"].tolist() == [0, 0, 1, 1]


def test_images_that_an_evaluation_skips_are_named(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, broken in (("train", ("a", "b", "c")), ("test", ("d",))):
        for kind in ("cat", "dog"):
            write_images(pets.parent / "split" / part / kind, 6, seed=3)
        for name in broken:
            (pets.parent / "split" / part / "cat" / f"{name}.png").write_text("no image")
    train, test = open_splits(str(pets.parent / "split"))
    said = capsys.readouterr().err.splitlines()
    assert (len(train), len(test)) == (12, 12)
    assert len([line for line in said if "skipped" in line]) == 2
    assert any("3 of 15 images skipped" in line and "a.png" in line and "and 1 more" in line for line in said)
    assert any("1 of 13 images skipped" in line and "d.png" in line and "more" not in line for line in said)


def test_labeled_images_without_a_split_are_split(pets: Path) -> None:
    train, test = open_splits(str(pets))
    everything = open_source(str(pets), split="all")
    assert len(train) + len(test) == 50
    assert 4 <= len(test) <= 17  # three standard deviations of a fraction of 20 %
    assert not keys(train) & keys(test)
    assert keys(train) | keys(test) == keys(everything)
    assert train.name == f"{pets} (train, about 80 % of the images)"
    assert test.name == f"{pets} (test, about 20 % of the images)"


def test_the_split_is_always_the_same(pets: Path) -> None:
    test = open_splits(str(pets), seed=0)[1]
    assert open_source(str(pets), split="test", seed=5).fingerprint == test.fingerprint
    assert not keys(open_source(str(pets), split="train", limit=12, seed=5)) & keys(test)


def test_parts_of_one_array_are_resident_once(pets: Path) -> None:
    train, test = open_splits(str(pets))
    assert train._pixels is test._pixels


def test_split_folders_are_used(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        write_images(tmp_path / "set" / split / "a", count, seed=count)
        write_images(tmp_path / "set" / split / "b", count, seed=count + 10)
    train, test = open_splits(tmp_path / "set")
    assert (len(train), len(test)) == (8, 4)
    assert train.name.endswith("(train)")
    assert len(open_source(tmp_path / "set", split="all")) == 12


def test_unlabeled_images_are_all_for_training(tmp_path: Path) -> None:
    write_images(tmp_path / "set", 5)
    assert len(open_source(tmp_path / "set")) == 5
    with pytest.raises(UserError, match=r"neither a test part nor labels.*pass --labels"):
        open_source(tmp_path / "set", split="test")


@pytest.mark.parametrize(("side", "stored"), [(None, 24), (12, 12), (24, 24), (500, 24)])
def test_images_are_never_stored_larger_than_they_are(tmp_path: Path, side: int | None, stored: int) -> None:
    write_images(tmp_path / "set", 3, side=24)
    assert open_source(tmp_path / "set", side=side).side == stored


def test_large_images_are_stored_at_160(tmp_path: Path) -> None:
    write_images(tmp_path / "set", 2, side=200)
    assert open_source(tmp_path / "set").side == 160
    assert open_source(tmp_path / "set", side=180).side == 180


def test_a_limit_takes_a_seeded_part_and_decodes_no_more(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selftaught.data import parallel

    decode, seen = parallel.decode_with_id, []

    def counted(raw: object, *options: object) -> object:
        seen.append(raw)
        return decode(raw, *options)  # type: ignore[arg-type]

    monkeypatch.setattr(parallel, "decode_with_id", counted)
    first = open_source(pets, split="all", limit=7, seed=1)
    assert len(first) == len(seen) == 7
    assert seen == sorted(seen, key=lambda path: (path.parent.name, int(path.stem)))
    assert open_source(pets, split="all", limit=7, seed=1).fingerprint == first.fingerprint
    assert len(seen) == 7
    assert keys(open_source(pets, split="all", limit=7, seed=2)) != keys(first)
    assert len(open_source(pets, split="all", limit=1000)) == 50
    assert keys(open_source(pets, limit=7, seed=1)) <= keys(open_source(pets))
    with pytest.raises(UserError, match="--limit must be from 1 to"):
        open_source(pets, limit=0)


def test_broken_images_are_listed(pets: Path) -> None:
    expected = write_broken(pets / "cat")
    source = open_source(pets, split="all")
    assert len(source) == 50
    assert source.labels is not None
    assert source.labels.bincount().tolist() == [30, 20]
    assert {Path(name).name for name, _ in source.skipped} == set(expected)
    assert all(expected[Path(name).name] in reason for name, reason in source.skipped)
    train, test = open_splits(pets)
    assert len(train) + len(test) == 50
    assert sorted(train.skipped + test.skipped) == sorted(source.skipped)


@pytest.mark.parametrize(("sound", "fine"), [(8, True), (7, False), (0, False)])
def test_more_than_half_broken_is_an_error(tmp_path: Path, sound: int, fine: bool) -> None:
    assert len(write_broken(tmp_path / "set")) == 8
    write_images(tmp_path / "set", sound)
    if fine:
        assert len(open_source(tmp_path / "set")) == sound
    else:
        with pytest.raises(UserError, match=rf"only {sound} of {sound + 8} .*'dangling.png' does not exist"):
            open_source(tmp_path / "set")


def test_labels_from_a_file(tmp_path: Path) -> None:
    write_images(tmp_path / "set" / "deep", 10)
    (tmp_path / "labels.csv").write_text(
        "\ufeffpath,label,who\n"
        + "".join(f"deep/{number}.png,{'odd' if number % 2 else 'even'},me\n" for number in range(6))
        + f"{tmp_path}/set/deep/6.png,even,me\nset/deep/7.png,odd,me\n8.png,even,me\ngone.png,odd,me\n9.png,,me\n"
    )
    source = open_source(tmp_path / "set", split="all", labels=tmp_path / "labels.csv")
    assert source.classes == ("even", "odd")
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert source.skipped == ()
    train, test = open_splits(tmp_path / "set", labels=tmp_path / "labels.csv")
    assert len(train) + len(test) == 9
    assert len(test) > 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("0.png,cat\n1.png,dog\n", "a header that has the columns path and label"),
        ("", "got an empty file"),
        ("path,label\n0.png,cat\n0.png,dog\n", "two labels for '0.png' in .*: 'cat' and 'dog'"),
        ("path,label\n0.png,cat\n1.png,cat\n", "at least two different labels, got 1 in"),
        (
            "path,label\n0.png,cat\na.png,dog\nb.png,dog\n",
            "2 of 3 paths in .* match no single image .*, such as 'a.png'",
        ),
        ("path,label\n\udcff,cat\n", "it is not UTF-8. Save it as UTF-8"),
        (None, "No such file"),
    ],
)
def test_invalid_label_files(tmp_path: Path, content: str | None, words: str) -> None:
    write_images(tmp_path / "set", 3)
    if content is not None:
        (tmp_path / "labels.csv").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=words):
        open_source(tmp_path / "set", labels=tmp_path / "labels.csv")


def test_an_ambiguous_path_matches_no_image(tmp_path: Path) -> None:
    for folder in "ab":
        write_images(tmp_path / "set" / folder, 2, seed=ord(folder))
    (tmp_path / "labels.csv").write_text("path,label\n0.png,x\na/0.png,x\nb/0.png,y\nb/1.png,y\n")
    source = open_source(tmp_path / "set", split="all", labels=tmp_path / "labels.csv")
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 1]


def test_unlabeled_images_are_never_test_images(tmp_path: Path) -> None:
    write_images(tmp_path / "set", 40)
    (few := tmp_path / "few.csv").write_text("path,label\n" + "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(20)))
    learned = open_source(tmp_path / "set", labels=few, keep_unlabeled=True)
    named = open_source(tmp_path / "set", labels=few)
    tested = open_source(tmp_path / "set", labels=few, split="test", keep_unlabeled=True)
    assert len(named) + len(tested) == 20
    assert learned.labels.tolist().count(-1) == len(learned) - len(named)
    everything = open_source(tmp_path / "set", split="all")
    (more := tmp_path / "all.csv").write_text("path,label\n" + "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(40)))
    assert keys(everything) - keys(learned) == keys(open_source(tmp_path / "set", split="test", labels=more))
    assert learned.skipped == ()
    assert -1 not in tested.labels.tolist()
    assert keys(named) < keys(learned)
    assert not keys(tested) & keys(learned)
    train, test = open_splits(tmp_path / "set", labels=few)
    assert (keys(train), keys(test)) == (keys(named), keys(tested))


def test_parquet_with_labels_out_of_range(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    metadata = '{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["x", "y"]}}}}'
    cells = [{"bytes": encoded(noise(8, 8, number)), "path": None} for number in range(6)]

    def write(labels: list[int | None]) -> Path:
        table = pa.table({"image": cells, "label": pa.array(labels, pa.int64())})
        pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), tmp_path / "a.parquet")
        return tmp_path / "a.parquet"

    source = open_source(write([0, 1, 2, 1, None, 0]), split="all")
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 1, 0]
    assert source.skipped == tuple((f"a.parquet:{row}", "has no label or an invalid one") for row in (2, 4))
    with pytest.raises(UserError, match="only 2 of 6"):
        open_source(write([0, 1, 2, 3, 4, 5]), split="all")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("cifar1", r"no source called 'cifar1': did you mean cifar10"),
        ("zzz", "no source called 'zzz': choose one of"),
        ("./pictures", "no such file or folder: './pictures'"),
        ("some/where", "no such file or folder: 'some/where'"),
        ("gone.parquet", "no such file or folder: 'gone.parquet'"),
        ("hf:someone/something", "hf download --repo-type dataset someone/something"),
        ("china", r"1 photo\(s\).*--num-crops"),
        (["a.jpg", "b.png"], r"2 photo\(s\).*--num-crops"),
        (["cifar10", "cifar100"], "several paths must all be photos"),
        ([], "the source is empty"),
    ],
)
def test_invalid_sources_raise_a_user_error(
    spec: str | list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        open_source(spec)


def test_similar_paths_are_suggested(pets: Path) -> None:
    with pytest.raises(UserError, match=rf"no such file or folder: .*pest'; did you mean '{pets}'\?"):
        open_source(pets.with_name("pest"))


def test_invalid_arguments(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"zip")
    with pytest.raises(UserError, match="unpack an archive into a folder"):
        open_source(tmp_path / "a.zip")
    with pytest.raises(UserError, match="no split called 'tset': did you mean test"):
        open_source(pets, split="tset")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="side of stored images must be at least 1"):
        open_source(pets, side=0)


def test_folders_take_precedence_over_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "cifar10", 3)
    monkeypatch.chdir(tmp_path)
    assert len(open_source("cifar10")) == 3


def test_photos_at_full_resolution(tmp_path: Path) -> None:
    stored, exif = noise(30, 50), Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned.png").write_bytes(encoded(stored, exif=exif))
    (tmp_path / "plain.png").write_bytes(encoded(noise(9, 5)))
    spec = [str(tmp_path / "turned.png"), tmp_path / "plain.png"]
    assert is_photos(spec)
    assert is_photos("china")
    assert not is_photos(tmp_path)
    assert not is_photos("cifar10")
    first, second = photos(spec)
    assert np.array_equal(first.image.permute(1, 2, 0).numpy(), np.rot90(stored, -1))
    assert np.array_equal(second.image.permute(1, 2, 0).numpy(), noise(9, 5))
    assert second.name == "plain.png"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("gone.jpg", "cannot read the photo: 'gone.jpg' does not exist"),
        ("chna", "did you mean china"),
        (".", "image files, got '.'"),
    ],
)
def test_invalid_photos_are_rejected(spec: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        photos(spec)


@pytest.mark.parametrize("name", list(PHOTOS))
def test_bundled_photos_are_in_their_packages(name: str) -> None:
    pytest.importorskip(PHOTOS[name][0])
    (photo,) = photos(name)
    assert photo.name == name
    assert photo.image.dtype == torch.uint8
    assert min(photo.image.shape[1:]) > 160
    assert photo.image.float().std() > 10  # it shows something


def test_bundled_digits_are_opened() -> None:
    expected = pytest.importorskip("sklearn.datasets").load_digits()
    source = open_source("digits", split="all")
    assert source.labels is not None
    assert np.array_equal(source.labels, expected.target)
    for channel in range(3):
        assert np.array_equal(images(source)[:, channel], np.rint(expected.images / 16 * 255))


def test_every_named_data_set_is_a_torchvision_class_and_listed() -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    rows = {row.name: row for row in list_sources()}
    assert set(rows) == {"digits", *PHOTOS, *DATASETS}
    assert all(hasattr(datasets, dataset.class_name) for dataset in DATASETS.values())
    assert {rows[name].origin for name in DATASETS} == {"downloaded"}


def test_downloads_without_a_network_raise_a_user_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(UserError, match=r"cannot download 'cifar10' to .*no route to host.*pass a folder"):
        open_source("cifar10")


class FakeCIFAR:
    """As torchvision's: pixels in memory, there only after a download."""

    downloaded = False

    def __init__(self, root: str, train: bool, download: bool = False) -> None:
        FakeCIFAR.downloaded |= download
        if not FakeCIFAR.downloaded:
            raise RuntimeError("Dataset not result or corrupted.")
        assert Path(root).is_dir()
        self.classes = ["a", "b", ("c", "d")]
        self.data = np.stack([noise(32, 32, seed + 100 * train) for seed in range(20 if train else 10)])
        self.targets = [number % 3 for number in range(len(self.data))]


def test_known_names_come_through_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.CIFAR10", FakeCIFAR)
    train, test = open_splits("cifar10")
    assert (len(train), len(test), train.side) == (20, 10, 32)
    assert train.classes == ("a", "b", "c, d")
    assert np.array_equal(images(train)[3], noise(32, 32, 103).transpose(2, 0, 1))
    assert np.array_equal(images(test)[3], noise(32, 32, 3).transpose(2, 0, 1))
    assert len(open_source("cifar10", split="all")) == 30


@pytest.mark.parametrize(("name", "first"), [("cifar10", ["airplane", "automobile"]), ("imagenette160", ["tench"])])
def test_real_images(name: str, first: list[str]) -> None:
    default = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("SELFTAUGHT_DATA", default)) / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set SELFTAUGHT_DATA")
    train, test = (open_source(folder, split=split, limit=64) for split in ("train", "test"))
    assert train.classes is not None
    assert list(train.classes[: len(first)]) == first
    assert train.classes == test.classes
    assert (len(train), len(test), train.skipped) == (64, 64, ())
    assert not keys(train) & keys(test)
