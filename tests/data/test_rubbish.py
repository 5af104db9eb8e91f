"""Broken files: every file is decoded or listed with a readable reason, and training continues."""

import os
import re
import sys
import threading
from pathlib import Path

import pytest
import yaml
from corpus import encoded, noise, write_images
from PIL import Image, ImageFile
from rubbish import IGNORED, black_png, icon, strange, write_rubbish

from selftaught.cli import main
from selftaught.data import decode, decode_whole, open_source
from selftaught.data.decode import short_side
from selftaught.data.reader import readable
from selftaught.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # whether warnings of odd files are shown is up to the host

MACHINE_WORDS = re.compile(r"Errno|<_io|0x[0-9a-f]{6}|Traceback|Error\b|NoneType|PIL\.|object at")
"""What no reason for people may hold."""


@pytest.fixture(scope="module")
def rubbish(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str], dict[str, str]]:
    root = tmp_path_factory.mktemp("rubbish") / "not utf-8 \udcff [bold]\n[/x]"
    root.mkdir(parents=True)
    return (root, *write_rubbish(root))


def test_every_file_is_decoded_or_listed_with_its_reason(rubbish: tuple[Path, set[str], dict[str, str]]) -> None:
    root, sound, broken = rubbish
    source = open_source(root, split="all")
    listed = dict(source.skipped)
    assert listed.keys() == {readable(name) for name in broken}
    assert len(source) == len(sound)
    for name, words in broken.items():
        assert words in listed[readable(name)]
    assert not any(readable(name) in listed for name in IGNORED)


def test_reasons_are_readable(rubbish: tuple[Path, set[str], dict[str, str]]) -> None:
    for title, reason in open_source(rubbish[0]).skipped:
        assert (title + reason).isprintable()
        assert not MACHINE_WORDS.search(reason), reason
        assert len(reason) < 120
        assert str(rubbish[0]) not in reason


def test_broken_folders_can_be_trained_on(
    rubbish: tuple[Path, set[str], dict[str, str]], tmp_path: Path, capsys
) -> None:
    root, sound, broken = rubbish
    out = tmp_path / "run \udcfe [/red]"
    tiny = ("--steps", "3", "--size", "16", "--batch-size", "8", "--width", "8", "--device", "cpu", "--precision", "32")
    assert main(["pretrain", str(root), "--out", str(out), *tiny]) == 0
    output = " ".join(capsys.readouterr().err.split())
    assert f"{len(broken)} images skipped, listed with reasons in" in output
    lines = (out / "skipped.txt").read_text().splitlines()
    assert sorted(line.rsplit(": ", 1)[0].split(": ")[0] for line in lines) == sorted(map(readable, broken))
    status = (out / "run.json").read_text()
    assert f'"images": {len(sound)}' in status
    assert f'"skipped": {len(broken)}' in status
    assert yaml.safe_load((out / "config.yaml").read_text())["data"] == [str(root)]
    assert main(["pretrain", "--resume", "--out", str(out)]) == 0  # the path came through the config
    assert main(["report", str(out)]) == 0
    assert main(["compare", str(out)]) == 0
    assert (out / "report.html").read_text().count("is a circular link") == 3


def test_linked_folders_are_listed_once(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 3)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to(tmp_path / "c")
    assert len(open_source(tmp_path)) == 3


def test_folders_without_valid_images_raise_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "empty" / "nested").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no images in .*: the folder is empty"):
        open_source(tmp_path)
    for name in ("a.jpg", "b.jpg", "c.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"only 0 of 3 images in .* \(for example, 'a.jpg' is empty\)"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    "name", ["pipe", "pipe.jpg", "pipe.parquet", "device", "n" * 300, "n" * 300 + ".jpg", "a/" * 3000]
)
def test_pipes_and_devices_as_sources_are_rejected(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for pipe in ("pipe", "pipe.jpg", "pipe.parquet"):
        os.mkfifo(pipe)
    Path("device").symlink_to("/dev/zero")
    with pytest.raises(UserError) as caught:
        open_source(name)
    assert "\n" not in str(caught.value)


def test_photos_that_are_pipes_are_not_opened(tmp_path: Path, capsys) -> None:
    os.mkfifo(tmp_path / "photo.jpg")
    assert main(["pretrain", str(tmp_path / "photo.jpg"), "--steps", "1", "--out", str(tmp_path / "run")]) == 2
    assert "a pipe" in capsys.readouterr().err


def test_decompression_bombs_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = black_png(30_000)
    assert len(bomb) < 2**20  # of what would be 0.9 GB
    monkeypatch.delattr(ImageFile.ImageFile, "load")  # the only method that decodes pixels
    assert "million pixels" in str(decode(bomb, 32))
    assert "million pixels" in str(decode_whole(bomb))


def test_large_images_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["selftaught.data.decode"]  # the function hides the module of its name
    inside, most, rgb = [0], [0], module._rgb

    def counted(image: object, ranges: object) -> object:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        found = rgb(image, ranges)
        inside[0] -= 1
        return found

    monkeypatch.setattr(module, "_rgb", counted)
    monkeypatch.setattr(module, "LARGE", 500**2 - 1)
    image = black_png(2000)
    threads = [threading.Thread(target=decode, args=(image, 8)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1


def test_corpus_contains_the_described_files() -> None:
    assert len(strange()) > 50
    assert len({name.lower() for name in strange()}) == len(strange())


def test_icons_have_the_size_of_their_largest_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as a host process may have it
    assert "million pixels" in str(decode(icon(black_png(30_000)), 32))
    assert short_side(icon(encoded(noise(300, 300)))) == 300
