"""Resolve the name or path of a source to readers of its images."""

import os
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from selftaught.data.cache import cache_folder
from selftaught.data.dense_folder import dense_splits
from selftaught.data.folder import folder_splits
from selftaught.data.hub import PREFIX, hub_folder
from selftaught.data.labels import with_labels
from selftaught.data.listing import list_folder
from selftaught.data.named import DATASETS, PHOTOS, dataset_splits
from selftaught.data.parquet import parquet_splits
from selftaught.data.photos import Spec, as_paths, is_photos
from selftaught.data.reader import Reader, readable
from selftaught.data.remote import is_url
from selftaught.data.remote_shards import remote_shards
from selftaught.data.shards import local_shards
from selftaught.data.tar import tar_splits
from selftaught.data.tar_index import INDEX
from selftaught.errors import UserError, unknown


def open_readers(
    spec: Spec, labels: Path | None = None, cache: Path | None = None, download: bool = True
) -> dict[str, Reader]:
    """The readers of a source by split: always "all", and each split that it has.

    Args:
        spec: see `open_source`.
        labels: see `open_source`.
        cache: see `open_source`.
        download: see `open_source`.

    Raises:
        UserError: the source does not exist or is empty.
    """
    splits = _resolve(spec, cache, download)
    if not len(splits["all"]):
        raise UserError(f"no images in {splits['all'].name}: the source is empty.")
    return with_labels(splits, labels) if labels else splits


def _resolve(spec: Spec, cache: Path | None, download: bool = True) -> dict[str, Reader]:
    """Readers for a spec: a path if it exists, has a separator or the suffix of a file; otherwise a name."""
    paths = as_paths(spec)
    if is_photos(spec):
        raise UserError(
            f"got {len(paths)} photo(s), but a source needs many images: set the number of crops to cut from them "
            f"(--num-crops 10000)."
        )
    if len(paths) > 1:
        raise UserError(
            f"several paths must all be photos, got {readable(' '.join(paths[:3]))!r}: pass a single folder instead."
        )
    name, path = paths[0], Path(paths[0])
    if is_url(name):
        remote, suffix = remote_shards(name, cache or cache_folder())
        return tar_splits(remote, cache) if suffix == ".tar" else parquet_splits(remote)
    if name.startswith(PREFIX) and not os.path.exists(path):  # noqa: PTH110
        path = hub_folder(name)
    if os.path.isdir(path):  # noqa: PTH112 (Path's methods raise where a name is too long or a folder is locked)
        listing = list_folder(path)
        if not (tables := listing.with_suffix(".parquet")):
            if not listing.titles and (shards := listing.with_suffix(".tar")):
                return tar_splits(local_shards(path, shards, INDEX), cache)
            return dense_splits(path, listing) or folder_splits(path, listing)
        try:
            return parquet_splits(local_shards(path, tables))
        except UserError:
            if listing.titles:  # a table next to images contains metadata, not images
                return folder_splits(path, listing)
            raise
    if path.suffix.lower() == ".parquet" and os.path.isfile(path):  # noqa: PTH113
        return parquet_splits(local_shards(path))
    if path.suffix.lower() == ".tar" and os.path.isfile(path):  # noqa: PTH113
        return tar_splits(local_shards(path), cache)
    if os.path.exists(path):  # noqa: PTH110
        raise UserError(
            f"a source must be a folder, a .parquet or a .tar file, got {readable(name)!r}: unpack an archive into a "
            "folder."
        )
    if name == "digits" or name in DATASETS:
        return dataset_splits(name, cache and cache / "downloads", download)
    if path.suffix in (".parquet", ".tar", ".zip") or os.sep in name or "/" in name:
        raise _missing_path(path, name)
    raise unknown("source", readable(name), ["digits", *DATASETS, *PHOTOS])


def _missing_path(path: Path, name: str) -> UserError:
    """The error for a path that does not exist, suggesting a similar one from the same folder."""
    neighbors: list[str] = []
    with suppress(OSError):  # the folder is missing or not readable
        neighbors = os.listdir(path.parent)  # noqa: PTH208
    similar = get_close_matches(path.name, neighbors, n=1)
    hint = f"did you mean {readable(str(path.with_name(similar[0])))!r}?" if similar else "check the spelling."
    return UserError(f"no such file or folder: {readable(name)!r}; {hint}")
