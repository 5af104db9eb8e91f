"""Sources on servers: fsspec's `memory://`, and a web server that loses connections."""

import errno
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from corpus import encoded, noise, write_images

import selftaught
from selftaught.data import Stored, open_source, open_splits, remote
from selftaught.data.cache import cache_folder
from selftaught.data.shard_cache import ShardCache
from selftaught.data.tar_index import INDEX
from selftaught.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.0)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty labeled images in five or more shards of `selftaught shard`."""
    root = tmp_path_factory.mktemp("remote")
    for number, name in enumerate(("train/cat", "train/dog", "val/cat", "val/dog")):
        write_images(root / "images" / name, 15, side=100, seed=number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFTAUGHT_CACHE", str(root / "cache"))
        selftaught.shard(root / "images", out=root / "shards", shard_size=1)
    assert len(list((root / "shards").glob("*.tar"))) >= 2
    return root / "shards"


@pytest.fixture
def memory(shards: Path) -> Iterator[str]:
    """The shards in a file system of fsspec that is in memory."""
    system = fsspec.filesystem("memory")
    system.put(f"{shards}/", "/sets/pets/", recursive=True)
    yield "memory://sets/pets"
    system.rm("/sets", recursive=True)


class Web(ThreadingHTTPServer):
    """A web server of a folder, without listings."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.requests, self.ranges = folder, [], True
        self.broken: Callable[[str], bool] = lambda line: False
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Web

    def do_HEAD(self) -> None:
        self.answer(sends=False)

    def do_GET(self) -> None:
        self.answer(sends=True)

    def answer(self, sends: bool) -> None:
        path = self.server.folder / self.path.lstrip("/")
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if self.server.ranges else None
        self.server.requests.append(f"{self.command} {path.name}{' part' if asked else ''}")
        if not path.is_file():
            return self.send_error(404)
        content = path.read_bytes()
        start, stop = (int(asked[1]), min(int(asked[2]) + 1, len(content))) if asked else (0, len(content))
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", f"{stop - start}")
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.end_headers()
        if sends and self.server.broken(self.server.requests[-1]):
            self.wfile.write(content[start:stop][: (stop - start) // 2])
            self.close_connection = True
        elif sends:
            self.wfile.write(content[start:stop])
        return None

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def web(shards: Path) -> Iterator[Web]:
    server = Web(shards)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def images(source: Stored) -> np.ndarray:
    return source.batch(torch.arange(len(source)), CPU).images.numpy()


def copies() -> list[Path]:
    folder = cache_folder() / "remote"
    return [path for path in folder.iterdir() if not path.suffix] if folder.exists() else []


def waited(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 60
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("storage", ["encoded", "decoded"])
def test_shards_on_a_server_are_the_same_source(memory: str, shards: Path, storage: str) -> None:
    here, there = (open_splits(place, storage=storage) for place in (shards, memory))
    for one, other in zip(here, there, strict=True):
        assert other.fingerprint == one.fingerprint
        assert np.array_equal(images(other), images(one))
        assert torch.equal(other.all_labels(), one.all_labels())
        assert other.classes == ("cat", "dog")
    assert there[0].name.startswith(memory)


def test_only_the_index_and_images_are_requested_until_there_are_copies(
    web: Web, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, index = ShardCache.find, []

    def found(self: ShardCache, name: str, *arguments: Any) -> Path | None:
        index[:] = index or [name]  # the first file that is opened
        return find(self, name, *arguments) if [name] == index else None

    monkeypatch.setattr(ShardCache, "find", found)
    source = open_source(web.url, split="all", storage="encoded")
    some = source.batch(torch.tensor([3, 50]), CPU).images.numpy()
    assert np.array_equal(some, images(open_source(shards, split="all"))[[3, 50]])
    assert [line for line in web.requests if line.startswith("GET") and "part" not in line] == [f"GET {INDEX}"]
    assert sum("part" in line for line in web.requests) < 400  # samples to find out sizes and ranges, and two images


def test_copies_are_made_in_the_background_and_then_used(web: Web, shards: Path) -> None:
    count = len(list(shards.glob("*.tar")))
    source = open_source(web.url, split="all", storage="encoded")
    first = images(source)
    assert waited(lambda: len(copies()) == count + 1)
    assert sorted(path.stat().st_size for path in copies()) == sorted(
        path.stat().st_size for path in (*shards.glob("*.tar"), shards / INDEX)
    )
    asked = len(web.requests)
    assert np.array_equal(images(source), first)
    assert len(web.requests) == asked
    again = open_source(web.url, split="all", storage="encoded")  # of another run
    assert np.array_equal(images(again), first)
    assert {line.split()[0] for line in web.requests[asked:]} == {"HEAD"}


def test_a_connection_that_breaks_is_tried_again(web: Web, shards: Path) -> None:
    seen: set[str] = set()

    def first_time(line: str) -> bool:
        fresh = line not in seen
        seen.add(line)
        return fresh

    web.broken = first_time
    source = open_source(web.url, split="all", storage="encoded")
    assert np.array_equal(images(source), images(open_source(shards, split="all")))


def test_a_connection_that_stays_broken_is_one_sentence(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(web.url, split="all", storage="encoded")
    monkeypatch.setattr(ShardCache, "find", lambda *arguments: None)
    web.broken = lambda line: True
    with pytest.raises(UserError, match=r"cannot read http://127.0.0.1:\d+/\S+\.tar \(.+\): check the connection"):
        images(source)


def test_a_server_without_ranges_sends_whole_files(web: Web, shards: Path) -> None:
    web.ranges = False
    source = open_source(web.url, split="all", storage="encoded")
    assert np.array_equal(images(source), images(open_source(shards, split="all")))


def test_beyond_the_size_of_the_cache_images_are_requested_one_by_one(
    memory: str, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = sorted(path.stat().st_size for path in shards.glob("*.tar"))
    limit = (shards / INDEX).stat().st_size + sizes[-1]
    monkeypatch.setenv("SELFTAUGHT_REMOTE_GB", f"{limit / 1e9}")
    source = open_source(memory, split="all", storage="encoded")
    assert np.array_equal(images(source), images(open_source(shards, split="all")))
    time.sleep(0.2)
    assert sum(path.stat().st_size for path in copies()) <= limit


def test_copies_that_were_not_used_for_a_day_make_room(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 250)

    def write(path: Path) -> None:
        path.write_bytes(bytes(100))

    for name in ("a", "b"):
        assert cache.find(name, 100, write, wait=True) == tmp_path / name
    assert cache.find("c", 100, write, wait=True) is None
    long_ago = time.time() - 100_000
    os.utime(tmp_path / "b", (long_ago, long_ago))
    again = ShardCache(tmp_path, 250)
    assert again.find("c", 100, write, wait=True) == tmp_path / "c"
    assert (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_a_full_disk_leaves_the_file_where_it_is(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert ShardCache(tmp_path, 1000).find("a", 100, write, wait=True) is None
    assert not (tmp_path / "a").exists()


def test_one_process_downloads_for_all(tmp_path: Path) -> None:
    begun = []

    def write(path: Path) -> None:
        begun.append(path)
        time.sleep(0.2)
        path.write_bytes(bytes(100))

    caches = [ShardCache(tmp_path, 1000) for _ in range(2)]  # as two processes have
    for cache in caches:
        assert cache.find("a", 100, write, wait=False) is None
    assert [cache.find("a", 100, write, wait=True) for cache in caches] == [tmp_path / "a"] * 2
    assert len(begun) == 1


def test_tar_files_without_an_index_are_listed_and_read_once(memory: str, shards: Path) -> None:
    fsspec.filesystem("memory").rm(f"/sets/pets/{INDEX}")
    here = open_source(shards, split="all", storage="encoded")
    for _ in range(2):
        source = open_source(memory, split="all", storage="encoded")
        assert np.array_equal(images(source), images(here))
        assert torch.equal(source.all_labels(), here.all_labels())
    assert len(list(cache_folder().glob("tar-*.arrow"))) == 1


def test_a_single_tar_file(memory: str, shards: Path) -> None:
    name = min(path.name for path in shards.glob("train*.tar"))
    there = open_source(f"{memory}/{name}", split="all", storage="encoded")
    here = open_source(shards / name, split="all", storage="encoded")
    assert np.array_equal(images(there), images(here))


def test_parquet_files_on_a_server() -> None:
    cells = [{"bytes": encoded(noise(8, 8, seed)), "path": None} for seed in range(12)]
    system = fsspec.filesystem("memory")
    for split, part in (("train", slice(0, 8)), ("test", slice(8, 12))):
        table = pa.table({"image": cells[part], "label": [seed % 2 for seed in range(12)][part]})
        with system.open(f"/tables/{split}-00000.parquet", "wb") as file:
            pq.write_table(table, file, row_group_size=3)
    for storage in ("encoded", "decoded"):
        train, test = open_splits("memory://tables", storage=storage)
        assert np.array_equal(images(train), [noise(8, 8, seed).transpose(2, 0, 1) for seed in range(8)])
        assert np.array_equal(images(test), [noise(8, 8, seed).transpose(2, 0, 1) for seed in range(8, 12)])
        assert train.all_labels().tolist() == [0, 1] * 4


def test_a_training_is_the_same_from_a_server_and_resumes(memory: str, shards: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "size": 16, "batch_size": 8, "width": 8, "precision": "32", "threads": 1, "storage": "encoded",
    }  # fmt: skip
    here = selftaught.pretrain(shards, out=tmp_path / "here", steps=6, **settings)
    there = selftaught.pretrain(memory, out=tmp_path / "there", steps=6, **settings)
    logs = [
        [json.loads(line)["loss"] for line in (run.path / "log.jsonl").read_text().splitlines()]
        for run in (here, there)
    ]
    assert logs[0] == logs[1]
    again = selftaught.pretrain(resume=True, out=tmp_path / "there", steps=2)
    assert again.finished


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no .tar or .parquet files in memory://empty/set: write shards"),
        ({"a.jpg": b"x"}, r"no .tar or .parquet files in memory://empty/set: write shards with `selftaught shard`"),
        ({"a.tar": b"x" * 2000}, "is truncated or damaged"),
    ],
)
def test_mistakes_are_one_sentence(files: dict[str, bytes], message: str) -> None:
    system = fsspec.filesystem("memory")
    for name, content in files.items():
        system.pipe(f"/empty/set/{name}", content)
    with pytest.raises(UserError, match=message):
        open_source("memory://empty/set")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense://x/y", "unknown protocol nonsense://: use s3://, gs:// or https://"),
        ("memory://empty/a.tar", "no such file or folder: memory://empty/a.tar; check the address"),
        ("http://127.0.0.1:9/a.tar", r"cannot read http://127.0.0.1:9/a.tar \(.+\): check the connection"),
    ],
)
def test_wrong_addresses_are_one_sentence(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_source(url)


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(UserError, match=r"s3:// needs further packages: pip install 'selftaught\[remote\]'"):
        open_source("s3://bucket/set")


@pytest.mark.parametrize("name", ["../x.tar", "/etc/x.tar", "a//x.tar", "x.tar?y", "http://elsewhere/x.tar"])
def test_an_index_cannot_name_files_elsewhere(memory: str, shards: Path, name: str, tmp_path: Path) -> None:
    with pa.memory_map(str(shards / INDEX)) as stream:
        table = pa.ipc.open_file(stream).read_all()
        described = json.loads(table.schema.metadata[b"selftaught.shards"])
        described["files"][0][0] = name
        changed = table.replace_schema_metadata({b"selftaught.shards": json.dumps(described).encode()})
        with pa.OSFile(str(tmp_path / INDEX), "wb") as sink, pa.ipc.new_file(sink, changed.schema) as writer:
            writer.write_table(changed)
    fsspec.filesystem("memory").put(str(tmp_path / INDEX), f"/sets/pets/{INDEX}")
    source = open_source(memory, split="all", storage="encoded")  # from a listing, and the headers of the files
    assert np.array_equal(images(source), images(open_source(shards, split="all")))


def test_signatures_and_passwords_are_not_shown() -> None:
    with pytest.raises(UserError) as error:
        open_source("http://me:secret@127.0.0.1:9/a.tar?signature=secret")
    assert "secret" not in str(error.value)


def test_an_address_of_this_machine_is_a_path(shards: Path) -> None:
    assert open_source(f"file://{shards}", split="all").fingerprint == open_source(shards, split="all").fingerprint
