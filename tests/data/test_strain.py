"""The cache under strain: killed builders, full and read-only disks, damage, images that change, and little memory."""

import errno
import os
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import encoded, listed, noise, write_images

from crash import in_child, limit_files
from selftaught.data import arrays, cache, stored
from selftaught.data.cache import Decoded, decode_cached
from selftaught.data.folder import folder_splits
from selftaught.data.reader import Indices, Raw, Reader
from selftaught.data.sources import open_source
from selftaught.data.stored import Resident, Stored
from selftaught.errors import UserError

# The forks below happen while torch's threads sleep; see `in_child`.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

TRUTH = np.stack([noise(8, 8, index).transpose(2, 0, 1) for index in range(40)])
"""What decoding `listed(40)` to 8 pixels must give."""


@dataclass(frozen=True, eq=False)
class Counted(Reader):
    """Calls something before it hands out each image."""

    inner: Reader
    before: Callable[[int], object] = lambda index: None
    read: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.inner)

    def title(self, index: int) -> str:
        return self.inner.title(index)

    def fingerprint(self) -> str:
        return self.inner.fingerprint()

    def stream(self, indices: Indices) -> Iterator[Raw]:
        for index, raw in zip(indices.tolist(), self.inner.stream(indices), strict=True):
            self.before(index)
            self.read.append(index)
            yield raw


def counted(inner: Reader, before: Callable[[int], object] = lambda index: None) -> Counted:
    return Counted(inner.name, inner.labels, inner.classes, inner, before)


def names(folder: Path) -> set[str]:
    """What is in a cache folder, locks apart."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def assert_right(cached: Decoded) -> None:
    assert np.array_equal(cached.images, TRUTH)
    assert cached.indices.tolist() == list(range(40))


def test_builds_restart_after_a_kill_at_any_image(tmp_path: Path) -> None:
    def kill_at(index: int) -> Callable[[int], object]:
        return lambda now: os.kill(os.getpid(), signal.SIGKILL) if now == index else None

    for index in (0, 1, 17, 39):
        exit_code, _ = in_child(
            lambda index=index: decode_cached(counted(listed(40), kill_at(index)), 8, folder=tmp_path)
        )
        assert exit_code == -signal.SIGKILL
        (left,) = names(tmp_path)
        assert ".part-" in left  # the next killed one removes it, and leaves its own
    assert_right(cached := decode_cached(listed(40), 8, folder=tmp_path))
    assert names(tmp_path) == {cached.key}


@pytest.mark.parametrize("victim", ["images.npy", "meta.json", "rename"])
def test_builds_restart_after_a_kill_in_the_last_steps(tmp_path: Path, victim: str) -> None:
    """After the pixels, after the list of them, and with both there but not yet in their place."""

    def build() -> None:
        def die(*_: object, **__: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        if victim == "images.npy":
            os.fsync = die
        elif victim == "meta.json":
            Path.write_text = die
        else:
            Path.rename = die
        decode_cached(listed(40), 8, folder=tmp_path)

    assert in_child(build)[0] == -signal.SIGKILL
    reader = counted(listed(40))
    assert_right(decode_cached(reader, 8, folder=tmp_path))
    assert reader.read == list(range(40))  # nothing of the dead one was taken over
    assert all(".part-" not in name for name in names(tmp_path))


def test_several_processes_build_one_cache(tmp_path: Path) -> None:
    """Also where the first of them is killed with the lock in its hands."""
    log = tmp_path / "log"
    folder = tmp_path / "cache"

    def build(killed: bool) -> int:
        def note(index: int) -> None:
            with log.open("a") as file:
                file.write(f"{index}\n")
            if killed and index == 20:
                os.kill(os.getpid(), signal.SIGKILL)

        cached = decode_cached(counted(listed(40), note), 8, folder=folder)
        return int(np.array_equal(cached.images, TRUTH))

    children = []
    for killed in (True, False, False):
        child = os.fork()
        if child == 0:
            try:
                os._exit(10 + build(killed))
            finally:
                os._exit(1)
        children.append(child)
        while killed and not log.exists():
            pass  # the one to be killed has the lock before the others come
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert ends == [-signal.SIGKILL, 11, 11]
    assert [int(line) for line in log.read_text().split()] == [*range(21), *range(40)]  # one died, one built, one read
    assert len(names(folder)) == 1


# Disks


def test_file_size_limits_raise_a_user_error(tmp_path: Path) -> None:
    def build() -> None:
        limit_files(5000)
        decode_cached(listed(40), 8, folder=tmp_path)

    exit_code, output = in_child(build)
    assert exit_code == 2, output
    assert re.fullmatch(
        r"cannot write decoded images to .* \(File too large\): set SELFTAUGHT_CACHE to another folder\.", output
    )
    assert names(tmp_path) == set()
    assert_right(decode_cached(listed(40), 8, folder=tmp_path))


@pytest.mark.parametrize("victim", ["images.npy", "meta.json"])
def test_a_disk_that_fills_up_raises_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str) -> None:
    """Whichever file it is that finds no room, the other is no cache without it."""
    opened = Path.open

    def full(path: Path, mode: str = "r", *rest: object, **more: object) -> object:
        if path.name == victim and "w" in mode:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", full)
    monkeypatch.setattr(Path, "write_text", lambda path, text, **_: full(path, "w").write(text))
    with pytest.raises(UserError, match=r"need 0 MB in .*, which is full: free some space, set SELFTAUGHT_CACHE"):
        decode_cached(listed(40), 8, folder=tmp_path)
    monkeypatch.undo()
    assert names(tmp_path) == set()
    assert_right(decode_cached(listed(40), 8, folder=tmp_path))


def test_read_only_caches_are_used_without_writing() -> None:
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, which only its owner may enter
        folder = Path(name)
        folder.chmod(0o755)
        cached = decode_cached(listed(40), 8, folder=folder)
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        folder.chmod(0o555)

        def as_anybody(work: Callable[[], object]) -> Callable[[], object]:
            def done() -> object:
                if os.geteuid() == 0:  # root may write everywhere
                    os.setgroups([])
                    os.setgid(65534)
                    os.setuid(65534)
                return work()

            return done

        exit_code, output = in_child(as_anybody(lambda: decode_cached(listed(40), 8, folder=folder).key))
        assert (exit_code, output) == (0, cached.key)
        exit_code, output = in_child(as_anybody(lambda: decode_cached(listed(41), 8, folder=folder).key))
        assert exit_code == 2, output
        assert "cannot write decoded images to" in output
        assert "(Permission denied): set SELFTAUGHT_CACHE" in output
        folder.chmod(0o755)


@pytest.mark.parametrize("place", ["file", "file/below", "dangling", "key"])
def test_invalid_cache_paths_raise_a_user_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("a person's")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "at all")
    if place == "key":  # a file where the cache itself should be
        key = decode_cached(listed(40), 8, folder=tmp_path / "others").key
        (tmp_path / "key").mkdir()
        (tmp_path / "key" / key).write_text("a person's")
    with pytest.raises(UserError, match=r"cannot write decoded images to .*: set SELFTAUGHT_CACHE"):
        decode_cached(listed(40), 8, folder=tmp_path / place)
    assert (tmp_path / "file").read_text() == "a person's"
    assert all(".part-" not in path.name for path in tmp_path.rglob("*"))


# Damage


def test_every_flipped_byte_is_detected(tmp_path: Path) -> None:
    """Damage at every byte position of a small cache: it is rebuilt, or the result is still correct."""
    items = [*listed(3).items[:2], np.empty((0, 8, 3), np.uint8)]
    reader = replace(listed(3), items=items)
    cached = decode_cached(reader, 4, folder=tmp_path)
    truth, kept, skipped = np.array(cached.images), cached.indices.tolist(), cached.skipped
    identities = cached.content_ids
    assert skipped == ((2, "is empty"),)
    for file in ("images.npy", "meta.json", "content.npy"):
        path = tmp_path / cached.key / file
        whole, noticed = path.read_bytes(), 0
        for at in range(len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x04]) + whole[at + 1 :])
            if (read := cache._read(tmp_path / cached.key, 4, ())) is None:
                noticed += 1
                continue
            assert np.array_equal(read.images, truth)
            assert (read.indices.tolist(), read.skipped) == (kept, skipped)
            assert np.array_equal(read.content_ids, identities)
        assert noticed > 0.9 * len(whole)
        path.write_bytes(whole[:-1])
        assert cache._read(tmp_path / cached.key, 4, ()) is None
        path.write_bytes(whole + b"\0")
        assert cache._read(tmp_path / cached.key, 4, ()) is None
        path.write_bytes(whole)
    assert cache._read(tmp_path / cached.key, 4, ()) is not None


def test_large_caches_are_checked_by_length_and_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CHECKED", 0)
    key = decode_cached(listed(40), 8, folder=tmp_path).key
    path = tmp_path / key / "images.npy"
    whole = path.read_bytes()
    changed = whole[:-1] + bytes([whole[-1] ^ 1])
    path.write_bytes(changed)
    assert cache._read(tmp_path / key, 8, ()) is not None  # the price of opening a terabyte at once
    path.write_bytes(whole.replace(b"|u1", b"|i1"))
    assert cache._read(tmp_path / key, 8, ()) is None
    path.write_bytes(whole[:-100])
    assert cache._read(tmp_path / key, 8, ()) is None


def test_damage_is_repaired_while_a_reader_is_open(tmp_path: Path) -> None:
    """A process with the old file open keeps its data; a later one gets the new file."""
    first = decode_cached(listed(40), 8, folder=tmp_path)
    path = tmp_path / first.key / "meta.json"
    path.write_text(path.read_text()[:-5])
    assert_right(decode_cached(listed(40), 8, folder=tmp_path))
    assert_right(first)


# Images that change


def test_images_changed_during_decoding_are_not_cached(tmp_path: Path) -> None:
    images, caches = tmp_path / "images", tmp_path / "cache"
    write_images(images, 5)
    reader = folder_splits(images)["all"]
    change = counted(reader, lambda index: index == 3 and (images / "1.png").write_bytes(encoded(noise(8, 8, 77))))
    with pytest.raises(UserError, match=r"images in .* changed while they were decoded"):
        decode_cached(change, 8, folder=caches)
    assert names(caches) == set()
    assert np.array_equal(decode_cached(reader, 8, folder=caches).images[1], noise(8, 8, 77).transpose(2, 0, 1))


@pytest.mark.parametrize("change", ["content", "name", "gone", "more", "same"])
def test_fingerprints_detect_changed_images(tmp_path: Path, change: str) -> None:
    images = tmp_path / "images"
    write_images(images, 5)
    before = open_source(images, side=8, cache=tmp_path / "cache")
    if change == "content":  # of the same size, at the same time
        file, kept = images / "3.png", (images / "3.png").stat()
        content = bytearray(file.read_bytes())
        content[-20] ^= 1
        file.write_bytes(content)
        os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    elif change == "name":
        (images / "3.png").rename(images / "30.png")
    elif change == "gone":
        (images / "3.png").unlink()
    elif change == "more":
        (images / "5.png").write_bytes((images / "3.png").read_bytes())
    else:
        os.utime(images / "3.png", ns=(5, 5))  # copied, unpacked again: the same images
    after = open_source(images, side=8, cache=tmp_path / "cache")
    assert (after.fingerprint == before.fingerprint) == (change == "same")


# Memory


@dataclass(frozen=True, eq=False)
class Endless(Reader):
    """An arbitrary number of images, generated on read."""

    count: int
    pixels: int

    def __len__(self) -> int:
        return self.count

    def title(self, index: int) -> str:
        return str(index)

    def fingerprint(self) -> str:
        return f"{self.count} {self.pixels}"

    def stream(self, indices: Indices) -> Iterator[Raw]:
        for index in indices.tolist():
            yield np.full((self.pixels, self.pixels, 3), index % 251, np.uint8)


def own_memory() -> int:
    """Bytes of this process alone: not the pages of a mapped file, which the system can reclaim."""
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded, opened and read in batches, with room for none of it: 12 and 96 MB of pixels take the same."""
    monkeypatch.setattr(stored, "free_memory", lambda device: 10_000_000)

    def use(count: int) -> int:
        began = highest = own_memory()

        def preprocess() -> None:
            nonlocal highest
            highest = max(highest, own_memory())

        cached = decode_cached(reader := Endless("many", None, None, count, 64), 64, folder=tmp_path)
        preprocess()
        source = Stored("many", Resident(cached.images), torch.arange(count), None, None, cached.key)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        for indices in order.split(128):
            batch = source.batch(indices, torch.device("cpu"))
            assert torch.equal(batch.images[:, 1, 5, 7].long(), indices % 251)
            preprocess()
        assert source._pixels.resident(torch.device("cpu")) is None
        assert len(reader) == count
        return highest - began

    sizes = [1000, 8000]
    ends = [in_child(lambda count=count: use(count)) for count in sizes]
    assert [code for code, _ in ends] == [0, 0], ends
    few, many = (int(output) for _, output in ends)
    assert many - few < 0.2 * 3 * 64**2 * (sizes[1] - sizes[0]), (few, many)  # all of it would be the whole


def test_images_are_read_from_the_file_if_allocation_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Memory that is free, but not for us (ulimit): torch raises RuntimeError, and batches come from the file."""
    cached = decode_cached(listed(40), 8, folder=tmp_path)
    empty = torch.empty

    def refused(*shape: object, **more: object) -> torch.Tensor:
        if len(shape) == 1 and shape[0] == (40, 3, 8, 8):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return empty(*shape, **more)

    monkeypatch.setattr(torch, "empty", refused)
    pixels = Resident(cached.images)
    taken = pixels.take(torch.tensor([7, 3]), torch.device("cpu"))
    assert pixels.resident(torch.device("cpu")) is None
    assert np.array_equal(taken.numpy(), TRUTH[[7, 3]])
