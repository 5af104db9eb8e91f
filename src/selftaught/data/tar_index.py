"""The index of tar shards: where each image is, its title and its label, as an Arrow file that is memory-mapped.

`selftaught shard` writes `index.arrow` into the folder of its shards. Of other tar files it is made by reading all
headers once, and kept in the cache folder. An index is data from elsewhere: it is checked against the files.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from selftaught.data.atomic import replacing
from selftaught.data.class_folders import class_folders
from selftaught.data.listing import Listing
from selftaught.data.parquet_labels import LabelColumn, unify
from selftaught.data.reader import UNLABELED, Indices, readable
from selftaught.data.shards import Shards, digest_of, size_of
from selftaught.data.tar_scan import Sample, Scanned, scan
from selftaught.display.progress import Meter

INDEX = "index.arrow"
"""Name of the index in a folder of shards."""
METADATA = b"selftaught.shards"
"""Key of the classes and files in the metadata of the schema."""
VERSION = 1
SCAN = 2
"""Version of what is derived from headers, part of the name of an index in the cache."""
COLUMNS = {
    "shard": pa.int32(),
    "offset": pa.int64(),
    "size": pa.int64(),
    "title": pa.large_string(),
    "label": pa.int64(),
    "content_id": pa.int64(),
}
"""Columns and types; content ids are null in an index of tar files that were not written by `selftaught shard`."""

INDEX_ERRORS = (OSError, ValueError, KeyError, TypeError, RecursionError, pa.ArrowException)
"""Exceptions that reading a damaged index raises."""


@dataclass(frozen=True, eq=False)
class TarIndex:
    """The images of some tar files, in the order of the files and of their members."""

    shard: Indices
    """(N,) positions of their files."""
    offset: Indices
    """(N,) positions of the first byte."""
    size: Indices
    """(N,) sizes in bytes."""
    titles: pa.LargeStringArray
    labels: Indices | None
    """(N,) indices into `classes`, or `UNLABELED`; None if there are no labels."""
    classes: tuple[str, ...] | None
    content_ids: Indices | None
    """(N,) digests of the images, all of which are valid; None if that is not known."""
    notes: tuple[str, ...] = ()


def tar_index(shards: Shards, cache: Path) -> TarIndex:
    """The index of tar files: the one beside them, that in the cache, or a new one.

    Args:
        shards: the files.
        cache: the cache folder.

    Raises:
        UserError: a file is not a tar file or damaged.
    """
    notes: tuple[str, ...] = ()
    if shards.index is not None:
        found = read_index(shards.index, shards)
        if isinstance(found, TarIndex):
            return found
        notes = (f"{INDEX} is not used, because {found}",)
    stored = cache / f"tar-{SCAN}-{digest_of(shards.files, shards.titles)}.arrow"
    cached = read_index(stored, shards) if stored.is_file() else ""
    if isinstance(cached, str):
        made = _scanned(shards)
        with suppress(OSError), replacing(stored) as part:  # the cache of the images reports a folder not writable
            write_index(part, made, shards)
        cached = made
    return TarIndex(**{**vars(cached), "notes": (*notes, *cached.notes)})


def write_index(path: Path, index: TarIndex, shards: Shards) -> None:
    """Write an index as an Arrow file."""
    count = len(index.shard)
    arrays = [
        pa.array(index.shard.astype(np.int32)),
        pa.array(index.offset),
        pa.array(index.size),
        index.titles,
        pa.array(np.full(count, UNLABELED) if index.labels is None else index.labels),
        pa.nulls(count, pa.int64()) if index.content_ids is None else pa.array(index.content_ids),
    ]
    described = {
        "version": VERSION,
        "classes": index.classes,
        "files": [[name, size_of(file)] for name, file in zip(shards.titles, shards.files, strict=True)],
        "notes": index.notes,
    }
    schema = pa.schema(list(COLUMNS.items()), {METADATA: json.dumps(described).encode()})
    with pa.OSFile(str(path), "wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))


def indexed_files(path: Path) -> list[tuple[str, int]]:
    """Names and sizes in bytes of the files that an index lists; empty if it is damaged."""
    try:
        with pa.memory_map(str(path)) as stream:
            return _files(json.loads((pa.ipc.open_file(stream).schema.metadata or {})[METADATA]))
    except INDEX_ERRORS:
        return []


def _files(described: Any) -> list[tuple[str, int]]:
    """Names and sizes from the metadata of an index."""
    return [(str(name), int(size)) for name, size in described["files"]]


def read_index(path: Path, shards: Shards) -> TarIndex | str:
    """Read an index, or return the reason why it does not fit the files."""
    names = shards.titles
    try:
        with pa.memory_map(str(path)) as stream:
            reader = pa.ipc.open_file(stream)
            described = json.loads((reader.schema.metadata or {})[METADATA])
            if dict(zip(reader.schema.names, reader.schema.types, strict=True)) != COLUMNS:
                return "it has other columns"
            if described["version"] != VERSION:
                return "it was written by another version of selftaught"
            table = reader.read_all()
        table.validate(full=True)
        table = table.combine_chunks()
        listed = _files(described)
        sizes = dict(listed)
        classes = described["classes"]
        classes = None if classes is None else tuple(readable(str(name)) for name in classes)
        notes = tuple(readable(str(note)) for note in described["notes"])
        columns = {name: table.column(name).combine_chunks() for name in COLUMNS}
        columns = {name: each.chunk(0) if isinstance(each, pa.ChunkedArray) else each for name, each in columns.items()}
    except INDEX_ERRORS:
        return "it is damaged"
    if any(columns[name].null_count for name in COLUMNS if name != "content_id"):
        return "it is damaged"
    if sorted(sizes) != sorted(names):
        other = next(iter(set(sizes) ^ set(names)))
        return f"{readable(other)} is {'missing' if other in sizes else 'not in it'}"
    lengths = [size_of(file) for file in shards.files]
    for name, length in zip(names, lengths, strict=True):
        if sizes[name] != length:
            return f"{readable(name)} has another size than when it was written"
    shard, offset, size, label = (columns[name].to_numpy() for name in ("shard", "offset", "size", "label"))
    inside = (shard >= 0) & (shard < len(names)) & (offset >= 0) & (size >= 0)
    if (
        not len(shard)
        or not inside.all()
        or (np.array(lengths)[shard] - offset < size).any()
        or (np.diff(shard) < 0).any()
    ):
        return "it has images outside of the files"
    if label.min() < UNLABELED or label.max() >= len(classes or ()):
        return "it has labels without a class"
    # The order of its files may be another one than that of the names here.
    if [name for name, _ in listed] != list(names):
        return "its files are in another order"
    ids = columns["content_id"]
    content_ids = None if ids.null_count else ids.to_numpy()
    labels = None if classes is None else label
    return TarIndex(shard.astype(np.int64), offset, size, columns["title"], labels, classes, content_ids, notes)


def _scanned(shards: Shards) -> TarIndex:
    """The index from the headers of all members."""
    found = []
    with Meter(f"indexing {shards.name}", len(shards.files)) as meter:
        for file in shards.files:
            found.append(scan(file))
            meter.advance()
    samples = [sample for each in found for sample in each.samples]
    counts = [len(each.samples) for each in found]
    labels, classes, note = _labels(samples)
    if classes is None:
        labels, classes, note = _class_folders(found)
    notes = [*_left_out(found), *([note] if note else [])]
    titles = [hashlib.blake2b(os.fsencode(sample.title), digest_size=8).digest() for sample in samples]
    if repeated := len(titles) - len(set(titles)):
        notes.append(f"{repeated:,} image{'s have' if repeated > 1 else ' has'} the name of another one; all are used")
    return TarIndex(
        np.repeat(np.arange(len(shards.files)), counts),
        np.array([sample.offset for sample in samples], np.int64),
        np.array([sample.size for sample in samples], np.int64),
        pa.array([sample.title for sample in samples], pa.large_string()),
        labels,
        classes,
        None,
        tuple(notes),
    )


def _labels(samples: Sequence[Sample]) -> tuple[Indices | None, tuple[str, ...] | None, str]:
    """Labels, classes and a note. Names in `.json` name the numbers in `.cls` if each number has one name."""
    numbers, names = [sample.number for sample in samples], [sample.name for sample in samples]
    if all(value is None for value in (*numbers, *names)):
        return None, None, ""
    pairs = Counter(zip(numbers, names, strict=True))
    paired = {number: name for number, name in pairs if isinstance(number, int) and isinstance(name, str)}
    agree = len(pairs - Counter({(None, None): len(samples)})) == len(paired) == len(set(paired.values()))
    declared: tuple[str, ...] = ()
    if paired and agree and min(paired) >= 0 and max(paired) < 2**20:
        declared, values = tuple(paired.get(number, str(number)) for number in range(max(paired) + 1)), numbers
    else:
        values = names if sum(name is not None for name in names) >= sum(n is not None for n in numbers) else numbers
    unified = unify("label", [LabelColumn("", values, declared)])
    return unified.of_files[0], unified.classes or None, unified.note


def _class_folders(found: Sequence[Scanned]) -> tuple[Indices | None, tuple[str, ...] | None, str]:
    """Labels, classes and a note, from the folders of the members: a packed folder instead of WebDataset's layout."""
    folders: dict[str, int] = {}
    indices = [folders.setdefault(sample.folder, len(folders)) for each in found for sample in each.samples]
    listing = Listing(Path(), [], list(folders), np.array(indices, np.int64), [], ())
    arrangement = class_folders(listing)
    if not arrangement.classes:
        return None, None, ""
    if arrangement.splits:
        return None, None, "its folders are splits, which are not used: unpack it to use them"
    return arrangement.labels.astype(np.int64), arrangement.classes, arrangement.layout


def _left_out(found: Sequence[Scanned]) -> list[str]:
    """A note for each kind of members that are not used."""
    total: Counter[str] = sum((each.left_out for each in found), Counter())
    examples = {reason: name for each in reversed(found) for reason, name in each.examples.items()}
    return [f"{reason} left out ({count:,}, such as {examples[reason]})" for reason, count in total.items()]
