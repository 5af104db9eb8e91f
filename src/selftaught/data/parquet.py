"""Images in parquet files, in the layout of Hugging Face: a column of struct{bytes, path}, optionally with labels.

`columns.py` chooses the columns. Row groups are read on demand.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selftaught.data.columns import (
    declared_as,
    dense_columns,
    describe_columns,
    image_column,
    image_columns,
    label_column,
    label_columns,
    unusable_labels,
)
from selftaught.data.conventions import NO_CONVENTIONS, Conventions, parse_conventions
from selftaught.data.parquet_labels import LabelColumn, Labels, unify
from selftaught.data.reader import UNLABELED, Indices, Raw, Reader, readable
from selftaught.data.shards import File, Shards, digest_of, located
from selftaught.errors import UserError

METADATA = b"selftaught.targets"
"""Key of the conventions of dense targets in the metadata of a schema."""
ROWS_PER_READ = 64
"""Rows per read."""
LARGE_GROUP = 2**21
"""Size in bytes of a row group above which reading it for one image takes about as long as decoding the image."""
WHOLE = 0.25
"""Share of the rows of a remote file above which it is better to download it than to request its row groups."""
SAMPLE_RUNS = 10
"""Number of runs of consecutive rows in a sample."""
READ_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, MemoryError)
"""Exceptions that pyarrow raises on damaged files, including text that is not UTF-8."""


@dataclass(frozen=True, eq=False)
class Parquet(Reader):
    """Images in the rows of one or more files."""

    files: tuple[File, ...]
    column: str
    lengths: tuple[int, ...]
    """Rows of each file."""
    dense_columns: tuple[str, ...] = ()
    """The columns of the dense targets, in their order."""

    def __len__(self) -> int:
        return sum(self.lengths)

    def title(self, index: int) -> str:
        """File and row, counted from 0."""
        for file, length in zip(self.files, self.lengths, strict=True):
            if index < length:
                return f"{file.name}:{index}"
            index -= length
        raise IndexError(index)

    def titles_of(self, indices: Indices) -> Iterator[str]:
        """See `Reader`."""
        ends = np.cumsum(self.lengths)
        files = np.searchsorted(ends, indices, side="right")
        rows = indices - (ends - self.lengths)[files]
        return (f"{self.files[file].name}:{row}" for file, row in zip(files.tolist(), rows.tolist(), strict=True))

    def sample(self, count: int) -> Indices:
        """See `Reader`: runs of consecutive rows, because rows are read in groups."""
        run = max(1, count // SAMPLE_RUNS)
        starts = np.linspace(0, max(len(self) - run, 0), SAMPLE_RUNS).astype(np.int64)
        indices = np.unique(starts[:, None] + np.arange(run))
        return indices[indices < len(self)]

    def stream(self, indices: Indices) -> Iterator[Raw]:
        """See `Reader`."""
        return (raw for (raw,) in self._stream((self.column,), indices))

    def stream_dense(self, indices: Indices) -> Iterator[Mapping[str, Raw]]:
        """See `Reader`."""
        if not self.dense:
            return super().stream_dense(indices)
        rows = self._stream(self.dense_columns, indices)
        return (dict(zip(self.dense, raws, strict=True)) for raws in rows)

    def _stream(self, columns: tuple[str, ...], indices: Indices) -> Iterator[tuple[Raw, ...]]:
        start = 0
        for file, length in zip(self.files, self.lengths, strict=True):
            rows = indices[(indices >= start) & (indices < start + length)] - start
            start += length
            if len(rows):
                yield from self._stream_file(file, columns, rows)

    def _stream_file(self, path: File, columns: tuple[str, ...], rows: Indices) -> Iterator[tuple[Raw, ...]]:
        folder = path.parent if isinstance(path, Path) else None
        try:
            place = located(path, whole=len(rows) > WHOLE * _metadata(path).num_rows)
            with pq.ParquetFile(place, metadata=_metadata(path)) as file:
                start = 0
                for group in range(file.num_row_groups):
                    stop = start + file.metadata.row_group(group).num_rows
                    group_rows = rows[(rows >= start) & (rows < stop)]
                    if len(group_rows):
                        for batch in file.iter_batches(ROWS_PER_READ, [group], [*columns], use_threads=False):
                            in_batch = (group_rows >= start) & (group_rows < start + len(batch))
                            batch_rows = group_rows[in_batch] - start
                            start += len(batch)
                            read = [batch.column(name) for name in columns]
                            for row in batch_rows.tolist():  # row by row: binary views do not support `take`
                                yield tuple(_raw(column[row].as_py(), folder) for column in read)
                        if start != stop:
                            raise ValueError("the number of rows differs from the metadata")
                    start = stop
        except READ_ERRORS as error:
            raise _damaged(path, error) from error

    def access_note(self) -> str:
        """See `Reader`."""
        group = _metadata(self.files[0]).row_group(0) if len(self) else None
        if group is None or group.total_byte_size <= LARGE_GROUP:
            return ""
        return (
            f"row groups of {group.total_byte_size / 1e6:,.0f} MB are read whole for an image of them: `selftaught "
            "shard` writes the images to tar shards, where each is read alone"
        )

    def fingerprint(self) -> str:
        """See `Reader`."""
        columns = ":".join((self.column, *self.dense_columns))
        return digest_of(self.files, [f"{file.name}:{columns}" for file in self.files])


def parquet_splits(shards: Shards) -> dict[str, Reader]:
    """Open parquet files by split, see `Shards.by_split`.

    Args:
        shards: one or more files.

    Returns:
        "all" with every file, and each split if there are two or more.

    Raises:
        UserError: a file cannot be read or has no images.
    """
    files = shards.files
    schemas, lengths = zip(*(_schema(file) for file in files), strict=True)
    column = image_column(schemas[0], str(files[0]))
    for file, schema in zip(files, schemas, strict=True):
        if column not in image_columns(schema):
            raise UserError(
                f"all parquet files of a source must have images in the column {column!r}, but {readable(str(file))} "
                f"has {describe_columns(schema)}: pass only files of one data set."
            )
    dense = _dense_columns(files, schemas, column)
    conventions = _conventions(files, schemas) if dense else NO_CONVENTIONS
    unified, notes = _labels(files, schemas, lengths)
    if dense:
        notes = (f"with {', '.join(dense)}", *notes)
    labels, classes = unified.of_files, unified.classes

    def reader(chosen: Sequence[int]) -> Parquet:
        parts = [np.full(lengths[i], UNLABELED) if (part := labels[i]) is None else part for i in chosen]
        labeled = any(labels[i] is not None for i in chosen)
        joined, names = (np.concatenate(parts), classes) if labeled else (None, None)
        some, rows = tuple(files[i] for i in chosen), tuple(lengths[i] for i in chosen)
        return Parquet(
            shards.name, joined, names, some, column, rows, tuple(dense.values()),
            notes=notes, dense=tuple(dense), conventions=conventions,
        )  # fmt: skip

    return {"all": reader(range(len(files))), **{split: reader(own) for split, own in shards.by_split().items()}}


def _dense_columns(files: Sequence[File], schemas: Sequence[pa.Schema], image: str) -> dict[str, str]:
    """Columns of dense targets by name of the target, the same in all files."""
    columns = [dense_columns(schema, image) for schema in schemas]
    for file, own in zip(files, columns, strict=True):
        if own != columns[0]:
            raise UserError(
                f"all parquet files of a source must have the same dense targets, but {readable(files[0].name)} has "
                f"{', '.join(columns[0]) or 'none'} and {readable(file.name)} has {', '.join(own) or 'none'}: pass "
                "only files of one data set."
            )
    return columns[0]


def _conventions(files: Sequence[File], schemas: Sequence[pa.Schema]) -> Conventions:
    """Units and axes of dense targets from the metadata, the same in all files."""
    texts = [(schema.metadata or {}).get(METADATA, b"{}") for schema in schemas]
    for file, text in zip(files, texts, strict=True):
        if text != texts[0]:
            raise UserError(
                f"all parquet files of a source must state the same units and axes, but {readable(files[0].name)} and "
                f"{readable(file.name)} differ: pass only files of one data set."
            )
    return parse_conventions(texts[0], f"the metadata of {readable(str(files[0]))}")


def _schema(path: File) -> tuple[pa.Schema, int]:
    """The schema of a file and its number of rows."""
    try:
        with pq.ParquetFile(located(path)) as file:
            return file.schema_arrow, file.metadata.num_rows
    except READ_ERRORS as error:
        raise _damaged(path, error) from error


def _metadata(path: File) -> pq.FileMetaData:
    """The metadata of a file, read once, because a batch of images in random order is read by many threads."""
    if not isinstance(path, Path):
        return _cached_metadata(path, path.tag, path.size)
    status = path.stat()
    return _cached_metadata(path, f"{status.st_mtime_ns}", status.st_size)


@lru_cache(1024)
def _cached_metadata(path: File, version: str, size: int) -> pq.FileMetaData:
    return pq.read_metadata(located(path))


def _column(path: File, name: str, length: int) -> list[Any]:
    """The values of a column."""
    try:
        with pq.ParquetFile(located(path)) as file:
            values: list[Any] = file.read(columns=[name], use_threads=False).column(name).to_pylist()
        if len(values) != length:
            raise ValueError("the number of rows differs from the metadata")
    except READ_ERRORS as error:
        raise _damaged(path, error) from error
    return values


def _damaged(path: File, error: BaseException) -> UserError:
    why = readable(next(iter(str(error).splitlines()), "") or type(error).__name__).rstrip(".")
    return UserError(f"{readable(str(path))} is not a valid parquet file ({why}): download or write it again.")


def _labels(
    files: Sequence[File], schemas: Sequence[pa.Schema], lengths: Sequence[int]
) -> tuple[Labels, tuple[str, ...]]:
    """The labels of all files, and notes for the user."""
    name = next(filter(None, map(label_column, schemas)), None)
    if name is None:
        why = next(filter(None, map(unusable_labels, schemas)), "")
        return Labels([None] * len(files), ()), (why,) if why else ()
    has_column = [name in label_columns(schema) for schema in schemas]
    columns = [
        LabelColumn(str(file), _column(file, name, length) if has else [], _declared(schema, name))
        for file, schema, length, has in zip(files, schemas, lengths, has_column, strict=True)
    ]
    labels = unify(name, columns)
    without = [file for file, has in zip(files, has_column, strict=True) if not has]
    missing = f"{readable(without[0].name)} has no label column {readable(name)!r}" if without else ""
    return labels, tuple(filter(None, (labels.note, missing)))


def _declared(schema: pa.Schema, name: str) -> tuple[str, ...]:
    """The names that a file declares for the integers of a column."""
    entry = declared_as(schema, "ClassLabel").get(name)
    names = entry.get("names") if isinstance(entry, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _raw(cell: Any, folder: Path | None) -> Raw:
    """The bytes in a cell, or the path of the file that it refers to, or the reason why there is neither."""
    if not isinstance(cell, dict):
        return cell or b""
    name = cell.get("path")
    if cell.get("bytes") or not isinstance(name, str) or not name:
        return cell.get("bytes") or b""
    if "\0" in name:
        return "has an invalid path"
    if folder is None:
        return "is in a file of its own, which is not read over the network"
    # not Path.resolve, which raises for a circular link
    inside = Path(os.path.realpath(folder / name)).is_relative_to(os.path.realpath(folder))
    return folder / name if inside else "has a path outside the folder of the parquet file"
