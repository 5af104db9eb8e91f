"""Find the tar or parquet files of a source on a server.

A folder of `selftaught shard` needs no listing, which web servers often lack: its index has names and sizes.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from selftaught.data.reader import natural_key, readable
from selftaught.data.remote import RemoteFile, Server
from selftaught.data.shard_cache import shard_cache
from selftaught.data.shards import Shards
from selftaught.data.tar_index import INDEX, indexed_files
from selftaught.errors import UserError

SUFFIXES = (".parquet", ".tar")
"""In order of preference, as for folders."""
REQUESTS = 16
"""Number of files whose sizes are requested at the same time."""


def remote_shards(url: str, cache: Path) -> tuple[Shards, str]:
    """The files of a source on a server, and their suffix.

    Args:
        url: address of a tar or parquet file, or of a folder of them.
        cache: the cache folder.

    Raises:
        UserError: there are none, or the server cannot be read.
    """
    server = Server(url, shard_cache(cache))
    name = server.shown(server.path)
    if (suffix := _suffix(server.path)) in SUFFIXES:
        title = PurePosixPath(urlsplit(server.path).path).name
        return Shards(name, (server.file(server.path, title),), (title,)), suffix
    if found := _indexed(server):
        files, index = found
        return Shards(name, files, tuple(file.title for file in files), index), ".tar"
    listing = server.listing()
    prefix = f"{server.path}/"
    titles = {path.removeprefix(prefix): path for path in listing if path.startswith(prefix)}
    for suffix in SUFFIXES:
        chosen = sorted((title for title in titles if _is_visible(title) and _suffix(title) == suffix), key=natural_key)
        if chosen:
            with ThreadPoolExecutor(REQUESTS) as pool:
                files = tuple(pool.map(lambda title: server.file(titles[title], title, listing[titles[title]]), chosen))
            return Shards(name, files, tuple(chosen)), suffix
    raise UserError(
        f"no .tar or .parquet files in {name}: write shards with `selftaught shard` and upload their folder, or pass a "
        "folder of this machine."
    )


def _indexed(server: Server) -> tuple[tuple[RemoteFile, ...], Path] | None:
    """The files that an index in the folder lists, and a copy of the index; None without a usable one."""
    path = f"{server.path}/{INDEX}"
    if (info := server.info(path)) is None:
        return None
    copy = server.file(path, INDEX, info).located(whole=True)
    if not isinstance(copy, Path):
        raise UserError(
            f"no room for {server.shown(path)} in {readable(str(server.cache.folder))}: free some space, or set "
            "SELFTAUGHT_REMOTE_GB to more."
        )
    listed = indexed_files(copy)
    if not listed or not all(_is_safe(title) for title, _ in listed):
        return None
    version = hashlib.blake2b(copy.read_bytes(), digest_size=16).hexdigest()
    files = [RemoteFile(server, f"{server.path}/{title}", title, size, version) for title, size in listed]
    return tuple(files), copy


def _is_safe(title: str) -> bool:
    """Whether a name in an index is that of a file in the folder."""
    is_relative = not any(part in ("", ".", "..") for part in title.split("/"))
    return is_relative and title.endswith(".tar") and not set(title) & set("\0\\?#:")


def _is_visible(title: str) -> bool:
    return not any(part.startswith(".") for part in title.split("/"))


def _suffix(path: str) -> str:
    return PurePosixPath(urlsplit(path).path).suffix.lower()
