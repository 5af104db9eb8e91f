"""The decode cache: built once, never read half-built, rebuilt when anything changed."""

import errno
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from corpus import encoded, huge_png, listed, noise, write_broken, write_images
from slow_cache import build

from forks import Fork
from selftaught.data import cache, parallel
from selftaught.data.cache import Decoded, cache_folder, decode_cached
from selftaught.data.decode import decode
from selftaught.data.folder import folder_splits
from selftaught.data.reader import Indices, Raw, Reader
from selftaught.errors import UserError


@dataclass(frozen=True, eq=False)
class Watched(Reader):
    """Counts what is read, and may fail on the way."""

    inner: Reader
    read: list[int]
    failure: BaseException | None = None
    after: int = 10

    def __len__(self) -> int:
        return len(self.inner)

    def title(self, index: int) -> str:
        return self.inner.title(index)

    def fingerprint(self) -> str:
        return self.inner.fingerprint()

    def stream(self, indices: Indices) -> Iterator[Raw]:
        for index, raw in zip(indices.tolist(), self.inner.stream(indices), strict=True):
            if self.failure and len(self.read) >= self.after:
                raise self.failure
            self.read.append(index)
            yield raw


def watched(count: int, failure: BaseException | None = None, after: int = 10) -> Watched:
    toys = listed(count)
    return Watched(toys.name, toys.labels, toys.classes, toys, [], failure, after)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.part-*"))


def test_cache_contains_every_image_in_order(tmp_path: Path) -> None:
    reader = listed(100)
    cached = decode_cached(reader, 4, folder=tmp_path)
    assert cached.images.shape == (100, 3, 4, 4)
    assert cached.indices.tolist() == list(range(100))
    assert cached.skipped == ()
    for index, raw in enumerate(reader.items):
        assert np.array_equal(cached.images[index], decode(raw, 4))


def test_cache_is_built_once(tmp_path: Path) -> None:
    reader = watched(20)
    first, second = (decode_cached(reader, 8, folder=tmp_path) for _ in range(2))
    assert reader.read == list(range(20))
    assert first.key == second.key
    assert np.array_equal(first.images, second.images)
    assert isinstance(first.images, np.memmap)
    assert not first.images.flags.writeable


def test_broken_images_leave_no_gap(tmp_path: Path) -> None:
    reader = listed(50)
    items = list(reader.items)
    items[0], items[17], items[49] = np.empty((0, 5, 3), np.uint8), np.empty((0, 0, 3), np.uint8), items[48][:0]
    cached = decode_cached(replace(reader, items=items), 8, folder=tmp_path)
    sound = [index for index in range(50) if index not in (0, 17, 49)]
    assert [index for index, _ in cached.skipped] == [0, 17, 49]
    assert cached.indices.tolist() == sound
    assert np.array_equal(cached.images, [noise(8, 8, index).transpose(2, 0, 1) for index in sound])


def test_only_chosen_images_are_decoded(tmp_path: Path) -> None:
    reader = watched(20)
    cached = decode_cached(reader, 8, np.array([3, 5, 19]), tmp_path)
    assert reader.read == cached.indices.tolist() == [3, 5, 19]
    assert np.array_equal(cached.images[2], noise(8, 8, 19).transpose(2, 0, 1))


def test_different_settings_use_different_caches(tmp_path: Path) -> None:
    reader = listed(6)
    changed = replace(reader, items=[*reader.items[:5], reader.items[5] ^ 1])
    keys = [
        decode_cached(reader, 8, folder=tmp_path).key,
        decode_cached(reader, 4, folder=tmp_path).key,
        decode_cached(reader, 8, np.array([0, 1]), tmp_path).key,
        decode_cached(reader, 8, np.array([0, 2]), tmp_path).key,
        decode_cached(changed, 8, folder=tmp_path).key,
    ]
    assert len(set(keys)) == 5
    relabelled = replace(reader, labels=None, classes=None, name="others")
    assert decode_cached(relabelled, 8, folder=tmp_path).key == keys[0]  # labels are not in the cache


def test_changed_files_are_decoded_again(tmp_path: Path) -> None:
    images, caches = tmp_path / "images", tmp_path / "cache"
    write_images(images, 3)
    before = decode_cached(folder_splits(images)["all"], 8, folder=caches).images
    (images / "1.png").write_bytes(encoded(noise(8, 8, 77)))
    after = decode_cached(folder_splits(images)["all"], 8, folder=caches).images
    assert np.array_equal(after[1], noise(8, 8, 77).transpose(2, 0, 1))
    assert np.array_equal(after[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError("a bug"), UserError("a damaged file")])
def test_failed_builds_leave_no_files(tmp_path: Path, failure: BaseException) -> None:
    with pytest.raises(type(failure)):
        decode_cached(watched(100, failure, after=60), 8, folder=tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    assert len(decode_cached(watched(100), 8, folder=tmp_path).images) == 100


@pytest.mark.parametrize("damage", ["cut", "meta", "gone", "mixed"])
def test_damaged_caches_are_rebuilt(tmp_path: Path, damage: str) -> None:
    key = decode_cached(listed(10), 8, folder=tmp_path).key
    images, meta = tmp_path / key / "images.npy", tmp_path / key / "meta.json"
    if damage == "cut":
        os.truncate(images, images.stat().st_size - 1)
    elif damage == "meta":
        meta.write_text('{"kept": [0, 1')
    elif damage == "mixed":
        meta.write_text('{"kept": [0, 1], "skipped": []}')
    else:
        images.unlink()
    reader = watched(10)
    assert len(decode_cached(reader, 8, folder=tmp_path).images) == 10
    assert len(reader.read) == 10


def test_full_disks_raise_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"which is full: free some space, set SELFTAUGHT_CACHE"):
        decode_cached(watched(100, OSError(errno.ENOSPC, "No space left on device"), after=50), 8, folder=tmp_path)
    assert leftovers(tmp_path) == []
    usage = cache.shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=100 * 3 * 8 * 8 - 1))
    reader = watched(100)
    with pytest.raises(UserError, match="which is full"):
        decode_cached(reader, 8, folder=tmp_path)
    assert reader.read == []  # checked before the first image


def test_read_only_folders_raise_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write decoded images to .*set SELFTAUGHT_CACHE"):
        decode_cached(listed(3), 8, folder=tmp_path / "file")


def test_memory_is_bounded_by_a_few_blocks() -> None:
    reader = watched(2000)
    stream = parallel.decode_all(reader, 8, np.arange(2000))
    ahead = 0
    for done, _ in enumerate(stream):
        ahead = max(ahead, len(reader.read) - done)
    assert ahead <= (2 * parallel.threads() + 2) * parallel.BLOCK


def test_a_folder_of_broken_and_odd_files_is_cached(tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_images(images, 9)
    expected = write_broken(images)
    reader = folder_splits(images)["all"]
    cached = decode_cached(reader, 8, folder=tmp_path / "cache")
    assert len(cached.images) == 9
    reasons = {reader.title(index): reason for index, reason in cached.skipped}
    assert set(reasons) == set(expected)
    assert all(words in reasons[name] for name, words in expected.items())
    assert (images / "huge.png").read_bytes() == huge_png()


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("SELFTAUGHT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "selftaught"


def wait_for(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def expected_sum(count: int) -> int:
    return sum(int(noise(8, 8, index).astype(np.int64).sum()) for index in range(count))


def test_two_processes_build_one_cache(tmp_path: Path) -> None:
    log = tmp_path / "log"
    both = [Fork(build, tmp_path / "cache", log, 0.002) for _ in range(2)]
    outputs = [process.communicate(timeout=100)[0].split() for process in both]
    assert outputs == [["200", str(expected_sum(200))]] * 2
    assert log.read_text() == "build\n"


def test_killed_builds_are_never_loaded(tmp_path: Path) -> None:
    folder, log = tmp_path / "cache", tmp_path / "log"
    process = Fork(build, folder, log, 0.05)
    wait_for(lambda: log.exists() and leftovers(folder))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(leftovers(folder)) == 1
    cached: Decoded = decode_cached(listed(200), 8, folder=folder)
    assert int(cached.images.astype(np.int64).sum()) == expected_sum(200)
    assert leftovers(folder) == []
