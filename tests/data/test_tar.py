"""Tar files in WebDataset's layout as sources, well-formed and hostile."""

import gzip
import io
import json
import os
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import broken_files, encoded, noise, write_images

import selftaught
from selftaught.data import Stored, open_source, open_splits
from selftaught.data.cache import cache_folder
from selftaught.data.decode import decode
from selftaught.data.tar_index import INDEX
from selftaught.errors import UserError

CPU = torch.device("cpu")
Members = list[tuple[str, bytes]]


def png(seed: int) -> bytes:
    return encoded(noise(8, 8, seed))


def write_tar(path: Path, members: Members, kind: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


SAMPLE: Members = [("1.png", png(1)), ("1.cls", b"0")]


def add_special(path: Path, name: str, kind: bytes, target: str = "") -> None:
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        archive.addfile(info)


def images(source: Stored) -> list[np.ndarray]:
    return list(source.batch(torch.arange(len(source)), CPU).images.numpy())


def expected(*seeds: int) -> list[np.ndarray]:
    return [noise(8, 8, seed).transpose(2, 0, 1) for seed in seeds]


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_numbers_in_cls_are_classes(kind: int, tmp_path: Path) -> None:
    members: Members = []
    for number in range(6):
        members += [(f"a/{number:04}.png", png(number)), (f"a/{number:04}.cls", f"{number % 3 + 9}\n".encode())]
    source = open_source(write_tar(tmp_path / "x" / "a.tar", members, kind), split="all", storage="encoded")
    assert source.classes == ("9", "10", "11")
    assert source.labels.tolist() == [0, 1, 2] * 2
    assert np.array_equal(images(source), expected(*range(6)))
    assert everything_below(tmp_path / "x") == {"a.tar"}


@pytest.mark.parametrize(
    ("described", "classes", "labels"),
    [
        ([{"label": "dog"}, {"label": "cat"}, {"label": "dog"}], ("cat", "dog"), [1, 0, 1]),
        (["dog", "cat", "dog"], ("cat", "dog"), [1, 0, 1]),
        ([{"label": 7}, {"label": 3}, {"caption": "?"}], ("3", "7"), [1, 0]),
        ([{"class": "b", "label": None}, {"category": "a"}, {}], ("a", "b"), [1, 0]),
        ([{}, {}, {}], None, None),
        ([{"label": [1]}, {"label": {"a": 1}}, {"label": None}], None, None),
    ],
)
def test_labels_in_json(described: list, classes: tuple | None, labels: list | None, tmp_path: Path) -> None:
    members: Members = []
    for number, content in enumerate(described):
        members += [(f"{number}.json", json.dumps(content).encode()), (f"{number}.png", png(number))]
    source = open_source(write_tar(tmp_path / "a.tar", members), split="all")
    assert source.classes == classes
    assert (None if source.labels is None else source.labels.tolist()) == labels


def test_names_in_json_name_the_numbers_in_cls(tmp_path: Path) -> None:
    """So that the order of the classes is that of the numbers."""
    members: Members = []
    for number, (label, name) in enumerate([(2, "ant"), (0, "zebra"), (2, "ant"), (0, "zebra")]):
        members += [(f"{number}.png", png(number)), (f"{number}.cls", f"{label}".encode())]
        members += [(f"{number}.json", json.dumps({"label": name}).encode())]
    source = open_source(write_tar(tmp_path / "a.tar", members), split="all")
    assert source.classes == ("zebra", "1", "ant")
    assert source.labels.tolist() == [2, 0, 2, 0]


def test_a_packed_folder_of_classes_has_labels(tmp_path: Path) -> None:
    names = ["set/cat/1.png", "set/cat/young/2.png", "set/dog/1.png", "set/dog/2.png", "set/rat/a.b.png"]
    path = write_tar(tmp_path / "set.tar", [(name, png(seed)) for seed, name in enumerate(names)])
    source = open_source(path, split="all")
    assert source.classes == ("cat", "dog", "rat")
    assert source.labels.tolist() == [0, 0, 1, 1, 2]
    unpacked = tmp_path / "unpacked"
    with tarfile.open(path) as archive:
        archive.extractall(unpacked, filter="data")
    folder = open_source(unpacked, split="all")
    assert (folder.classes, folder.labels.tolist()) == (source.classes, source.labels.tolist())
    train, test = open_splits(path)
    assert len(train) + len(test) == 5


def test_labels_of_members_come_before_folders(tmp_path: Path) -> None:
    members = [(f"{folder}/{n}.{kind}", png(n) if kind == "png" else str(n).encode())
               for folder in ("a", "b") for n in (0, 1) for kind in ("png", "cls")]  # fmt: skip
    assert open_source(write_tar(tmp_path / "a.tar", members), split="all").labels.tolist() == [0, 1, 0, 1]


def test_split_folders_in_a_tar_file_are_named_and_not_mixed_into_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{split}/{kind}/{n}.png" for split in ("train", "test") for kind in ("cat", "dog") for n in (1, 2)]
    source = open_source(write_tar(tmp_path / "a.tar", [(name, png(seed)) for seed, name in enumerate(names)]))
    assert source.labels is None
    assert "its folders are splits, which are not used: unpack it" in capsys.readouterr().err


def test_shards_of_several_splits(tmp_path: Path) -> None:
    for name, seeds in (("train-000000", (0, 1)), ("train-000001", (2,)), ("val-000000", (3, 4))):
        members = [(f"{seed}.{kind}", content) for seed in seeds for kind, content in
                   (("png", png(seed)), ("cls", b"1" if seed % 2 else b"0"))]  # fmt: skip
        write_tar(tmp_path / f"{name}.tar", members)
    train, test = open_splits(tmp_path, storage="encoded")
    assert np.array_equal(images(train), expected(0, 1, 2))
    assert np.array_equal(images(test), expected(3, 4))
    assert np.array_equal(images(open_source(tmp_path, split="all")), expected(0, 1, 2, 3, 4))


def test_a_folder_of_images_beside_an_archive_is_a_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "set", 3)
    write_tar(tmp_path / "set" / "download.tar", [("1.png", png(1))])
    assert open_source(tmp_path / "set").name == str(tmp_path / "set")
    assert len(open_source(tmp_path / "set")) == 3


def test_the_image_with_the_shortest_extension_is_used(tmp_path: Path) -> None:
    members = [("1.mask.png", png(9)), ("1.PNG", png(1)), ("1.depth.exr", b"x"), ("2.input.png", png(2))]
    assert np.array_equal(images(open_source(write_tar(tmp_path / "a.tar", members))), expected(1, 2))


def test_damaged_images_are_skipped_as_in_a_folder(tmp_path: Path) -> None:
    broken = {name: content for name, (content, _) in broken_files().items() if content}
    members = [(f"{number}.png", png(number)) for number in range(9)]
    members[3:3] = [(f"x{number}.{name}", content) for number, (name, content) in enumerate(broken.items())]
    write_tar(tmp_path / "a.tar", members)
    reasons = {reason for _, reason in open_source(tmp_path / "a.tar", storage="decoded").skipped}
    source = open_source(tmp_path / "a.tar", storage="encoded")
    assert {reason for _, reason in source.skipped} == reasons == {decode(content, 8) for content in broken.values()}
    assert np.array_equal(images(source), expected(*range(9)))


def test_hostile_members_are_left_out_with_a_sentence(tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    outside.write_bytes(png(77))
    path = write_tar(tmp_path / "set" / "a.tar", [
        ("1.png", png(1)), ("/etc/2.png", png(2)), ("../3.png", png(3)), ("a/../../4.png", png(4)), ("5.png", png(5)),
        ("6.txt", b"hello"), ("._1.png", b"x"), ("__MACOSX/7.png", b"x"), ("8.json", b"{" * 60_000), ("8.png", png(8)),
        ("1.png", png(1)), ("9.cls", b"9" * 100_000), ("9.png", png(9)),
    ])  # fmt: skip
    add_special(path, "10.png", tarfile.SYMTYPE, str(outside))
    add_special(path, "11.png", tarfile.LNKTYPE, "1.png")
    add_special(path, "12.png", tarfile.CHRTYPE)
    add_special(path, "13.png", tarfile.FIFOTYPE)
    add_special(path, "14.png", tarfile.DIRTYPE)
    before = everything_below(tmp_path)
    source = open_source(path, storage="encoded", cache=cache_folder())
    assert np.array_equal(images(source), expected(1, 5, 8, 1, 9))
    assert everything_below(tmp_path) == before
    assert source.labels is None
    for words in (
        "paths outside of the archive left out (3, such as /etc/2.png)",
        "links left out (2, such as 10.png)",
        "devices and pipes left out (2, such as 12.png)",
        "samples without an image left out (1, such as 6.txt)",
        "damaged JSON members left out (1, such as 8.json)",
        "1 image has the name of another one; all are used",
    ):
        assert words in source.notes
    assert open_source(path, storage="encoded").notes == source.notes  # from the cached index


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda whole: whole[: len(whole) // 2 + 100], "is truncated or damaged"),
        (lambda whole: whole[: 512 * 3 + 700], "is truncated or damaged"),
        (lambda whole: whole[:1024] + bytes([255]) * 512 + whole[1536:], "is truncated or damaged"),
        (lambda whole: b"", "is not a tar file"),
        (lambda whole: b"tar", "is not a tar file"),
        (lambda whole: os.urandom(5000), "is truncated or damaged"),
        (gzip.compress, "is compressed .gzip."),
        (lambda whole: bytes(10240), "no images in"),
    ],
)
def test_damaged_archives_are_errors_in_one_sentence(damage, words: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [(f"{number}.png", png(number)) for number in range(6)], tarfile.USTAR_FORMAT)
    (tmp_path / "a.tar").write_bytes(damage((tmp_path / "a.tar").read_bytes()))
    with pytest.raises(UserError, match=words) as error:
        open_source(tmp_path / "a.tar")
    assert "\n" not in str(error.value)


def test_an_archive_cut_after_a_whole_member_is_complete(tmp_path: Path) -> None:
    """As a writer that was killed leaves it: without the two blocks of zeros at the end."""
    write_tar(tmp_path / "a.tar", [(f"{number}.png", png(number)) for number in range(3)], tarfile.USTAR_FORMAT)
    whole = (tmp_path / "a.tar").read_bytes()
    end = whole.rstrip(b"\0")
    (tmp_path / "a.tar").write_bytes(whole[: -(-len(end) // 512) * 512])
    assert np.array_equal(images(open_source(tmp_path / "a.tar")), expected(0, 1, 2))


def test_cutting_an_archive_anywhere_never_ends_in_a_traceback(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [(f"{number}.png", png(number)) for number in range(3)])
    whole = (tmp_path / "a.tar").read_bytes()
    rng = np.random.default_rng(0)
    for length in rng.integers(0, len(whole), 60).tolist():
        changed = bytearray(whole[:length] if length % 2 else whole)
        for place in rng.integers(0, max(1, len(changed)), 3).tolist():
            if changed:
                changed[place] = int(rng.integers(256))
        (tmp_path / "a.tar").write_bytes(changed)
        with suppress(UserError):
            images(open_source(tmp_path / "a.tar", storage="encoded"))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Seven images in two classes, in several shards."""
    for number in range(7):
        folder = tmp_path / "set" / "dc"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(encoded(noise(400, 400, number)))
    return selftaught.shard(tmp_path / "set", out=tmp_path / "shards", shard_size=1)


def test_shards_have_the_images_titles_and_labels_of_their_source(shards: Path, tmp_path: Path) -> None:
    assert len(list(shards.glob("images-*.tar"))) > 1
    assert all(path.stat().st_size < 1.1e6 for path in shards.glob("*.tar"))
    (shards / INDEX).rename(tmp_path / "away")
    scanned = open_splits(shards)
    (tmp_path / "away").rename(shards / INDEX)
    for train, test in (scanned, open_splits(shards)):
        for own, original in zip((train, test), open_splits(tmp_path / "set"), strict=True):
            assert np.array_equal(images(own), images(original))
            assert torch.equal(own.labels, original.labels)
            assert own.classes == original.classes == ("c", "d")
            assert torch.equal(own.content_ids, original.content_ids)


def test_other_readers_understand_the_shards(shards: Path) -> None:
    """Every sample is an image, a number and a description, as WebDataset expects."""
    for path in shards.glob("*.tar"):
        with tarfile.open(path) as archive:
            members = {member.name: archive.extractfile(member).read() for member in archive}
        assert list(members) == [f"{name[:9]}.{kind}" for name in list(members)[::3] for kind in ("png", "cls", "json")]
        for name, content in members.items():
            if name.endswith("json"):
                described = json.loads(content)
                assert described["label"] == described["path"][0]
                assert members[name.replace("json", "cls")] == str("cd".index(described["label"])).encode()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda root: next(root.glob("*.tar")).unlink(), "is missing"),
        (lambda root: write_tar(root / "more.tar", SAMPLE), "more.tar is not in it"),
        (lambda root: write_tar(next(root.glob("*.tar")), SAMPLE), "has another size"),
        (lambda root: (root / INDEX).write_bytes(b"nonsense"), "it is damaged"),
        (lambda root: (root / INDEX).write_bytes((root / INDEX).read_bytes()[:-100]), "it is damaged"),
    ],
)
def test_an_index_that_does_not_fit_is_not_used(change, reason: str, shards: Path) -> None:
    change(shards)
    source = open_source(shards, split="all")
    assert any(INDEX in note and reason in note for note in source.notes)
    samples = 0
    for path in shards.glob("*.tar"):
        with tarfile.open(path) as archive:
            samples += sum(name.endswith(".png") for name in archive.getnames())
    assert len(source) == samples


@pytest.mark.parametrize(
    ("column", "value"),
    [("offset", -1), ("offset", 2**62), ("size", 2**40), ("size", -5), ("shard", 99), ("label", 7), ("label", -2)],
)
def test_a_hostile_index_reads_nothing_outside_of_its_shards(column: str, value: int, shards: Path) -> None:
    import pyarrow as pa

    with pa.OSFile(str(shards / INDEX)) as stream:
        table = pa.ipc.open_file(stream).read_all()
    place = table.schema.get_field_index(column)
    values = table.column(column).to_pylist()
    values[-1] = value
    table = table.set_column(place, table.schema.field(column), pa.array(values, table.schema.field(column).type))
    with pa.OSFile(str(shards / INDEX), "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    source = open_source(shards, split="all", storage="encoded")
    assert f"{INDEX} is not used" in source.notes[0]
    assert len(images(source)) == 7


def test_a_wrong_offset_is_noticed_by_the_digest(shards: Path) -> None:
    """An index with positions inside of the files, but not those of the images."""
    path = next(shards.glob("*.tar"))
    content = bytearray(path.read_bytes())
    content[600:700] = bytes(100)
    path.write_bytes(content)
    source = open_source(shards, split="all", storage="encoded")
    with pytest.raises(UserError, match="is not the image that was there"):
        images(source)


def options(root: Path) -> Mapping[str, tuple[dict, str]]:
    (root / "full").mkdir()
    (root / "full" / "a.txt").write_text("a")
    (root / "left.part").mkdir()
    return {
        "taken": ({"out": root / "full"}, "exists and is not empty"),
        "file": ({"out": root / "full" / "a.txt"}, "exists and is not empty"),
        "left": ({"out": root / "left"}, "another process is writing it, or was killed"),
        "size": ({"out": root / "new", "shard_size": 0}, "--shard-size must be from 1 to 1,000,000, got 0"),
        "below a file": ({"out": root / "full" / "a.txt" / "b"}, "cannot write shards to"),
    }


@pytest.mark.parametrize("case", ["taken", "file", "left", "size", "below a file"])
def test_nothing_is_overwritten(case: str, tmp_path: Path) -> None:
    write_images(tmp_path / "set", 3)
    chosen, words = options(tmp_path)[case]
    before = everything_below(tmp_path)
    with pytest.raises(UserError, match=words):
        selftaught.shard(tmp_path / "set", **chosen)
    assert everything_below(tmp_path) == before


def test_damaged_images_are_left_out_of_shards_and_listed(tmp_path: Path) -> None:
    write_images(tmp_path / "set", 4)
    (tmp_path / "set" / "1.png").write_bytes(png(1)[:50])
    shards = selftaught.shard(tmp_path / "set", out=tmp_path / "shards")
    assert (shards / "skipped.txt").read_text() == f"1.png: {decode(png(1)[:50], 8)}\n"
    assert len(open_source(shards, storage="encoded")) == 3
    for path in (tmp_path / "set").iterdir():
        path.write_bytes(b"x")
    with pytest.raises(UserError, match=r"no image in .* can be decoded"):
        selftaught.shard(tmp_path / "set", out=tmp_path / "others")
    assert not (tmp_path / "others").exists()
    assert not (tmp_path / "others.part").exists()


def test_arrays_become_png(tmp_path: Path) -> None:
    shards = selftaught.shard("digits", out=tmp_path / "shards")
    own, original = (open_source(spec, split="all") for spec in (shards, "digits"))
    assert np.array_equal(images(own), images(original))
    assert torch.equal(own.labels, original.labels)
    assert own.classes == original.classes
