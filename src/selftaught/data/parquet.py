"""Images in parquet files, in the layout of Hugging Face: a column of struct{bytes, path}, and perhaps labels.

Which column holds what, `columns.py` says. Row groups are read as they are needed.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selftaught.data.columns import (
    declared_as,
    image_column,
    image_columns,
    label_column,
    label_columns,
    describe_columns,
    unusable_labels,
)
from selftaught.data.parquet_labels import LabelColumn, Labels, unify
from selftaught.data.reader import UNLABELED, Indices, Raw, Reader, files_digest, natural_key, readable, split_of
from selftaught.errors import UserError

ROWS = 64
"""Rows read at a time."""
RUNS = 10
"""Places of a source where a sample of it is read."""
DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, MemoryError)
"""What pyarrow raises on damaged files, text that is no UTF-8 among them."""


@dataclass(frozen=True, eq=False)
class Parquet(Reader):
    """Images in the rows of one or several files."""

    files: tuple[Path, ...]
    column: str
    lengths: tuple[int, ...]
    """Rows of each file."""

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
        """See `Reader`: runs of neighbors, as rows are read by groups."""
        run = max(1, count // RUNS)
        starts = np.linspace(0, max(len(self) - run, 0), RUNS).astype(np.int64)
        indices = np.unique(starts[:, None] + np.arange(run))
        return indices[indices < len(self)]

    def stream(self, indices: Indices) -> Iterator[Raw]:
        """See `Reader`."""
        start = 0
        for file, length in zip(self.files, self.lengths, strict=True):
            here = indices[(indices >= start) & (indices < start + length)] - start
            start += length
            if len(here):
                yield from self._stream_file(file, here)

    def _stream_file(self, path: Path, rows: Indices) -> Iterator[Raw]:
        try:
            with pq.ParquetFile(path) as file:
                start = 0
                for group in range(file.num_row_groups):
                    stop = start + file.metadata.row_group(group).num_rows
                    wanted = rows[(rows >= start) & (rows < stop)]
                    if len(wanted):
                        for batch in file.iter_batches(ROWS, [group], [self.column], use_threads=False):
                            here = wanted[(wanted >= start) & (wanted < start + len(batch))] - start
                            start += len(batch)
                            column = batch.column(self.column)  # one by one: views of bytes know no `take`
                            yield from (_raw(column[row].as_py(), path.parent) for row in here.tolist())
                        if start != stop:
                            raise ValueError("its rows are not as many as it says")
                    start = stop
        except DAMAGE as error:
            raise _damaged(path, error) from error

    def fingerprint(self) -> str:
        """See `Reader`."""
        return files_digest(self.files, [f"{file.name}:{self.column}" for file in self.files])


def parquet_files(path: Path) -> list[Path]:
    """The file itself, or all parquet files in a folder and below it but the hidden ones, in natural order."""
    if path.is_file():
        return [path]
    found = [file.relative_to(path) for file in path.rglob("*.[pP][aA][rR][qQ][uU][eE][tT]") if file.is_file()]
    shown = [file for file in found if not any(part.startswith(".") for part in file.parts)]
    return [path / file for file in sorted(shown, key=lambda file: natural_key(file.as_posix()))]


def parquet_splits(path: Path, files: list[Path]) -> dict[str, Reader]:
    """Read parquet files by split.

    A file belongs to the split that its own name (`train.parquet`, `train-00000-of-00003.parquet`) or its folder's
    (`train/0000.parquet`) begins with.

    Args:
        path: the folder they are in, or the one file.
        files: at least one of them, see `parquet_files`.

    Returns:
        "all" with every file, and each split that was found where there are two or more of them.

    Raises:
        UserError: a file cannot be read or holds no images.
    """
    schemas, lengths = zip(*(_schema(file) for file in files), strict=True)
    column = image_column(schemas[0], files[0])
    for file, schema in zip(files, schemas, strict=True):
        if column not in image_columns(schema):
            raise UserError(
                f"all parquet files of a source must have images in the column {column!r}, found {describe_columns(schema)} in "
                f"{readable(str(file))}: hand in the files that belong together."
            )
    found, notes = _labels(files, schemas, lengths)
    labels, classes = found.of_files, found.classes

    def reader(chosen: Sequence[int]) -> Parquet:
        parts = [np.full(lengths[i], UNLABELED) if (part := labels[i]) is None else part for i in chosen]
        labelled = any(labels[i] is not None for i in chosen)
        joined, names = (np.concatenate(parts), classes) if labelled else (None, None)
        some, rows = tuple(files[i] for i in chosen), tuple(lengths[i] for i in chosen)
        return Parquet(readable(str(path)), joined, names, some, column, rows, notes=notes)

    return {"all": reader(range(len(files))), **{split: reader(own) for split, own in _by_split(path, files).items()}}


def _by_split(path: Path, files: list[Path]) -> dict[str, list[int]]:
    """Which files belong to which split; none where there are not two splits."""
    groups: dict[str, list[int]] = {}
    for index, file in enumerate(files):
        split = split_of(file.stem) or (split_of(file.parent.name) if file.parent != path else None)
        if split and file != path:
            groups.setdefault(split, []).append(index)
    return groups if len(groups) > 1 else {}


def _schema(path: Path) -> tuple[pa.Schema, int]:
    """What columns a file has, and how many rows."""
    try:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow, file.metadata.num_rows
    except DAMAGE as error:
        raise _damaged(path, error) from error


def _column(path: Path, name: str, length: int) -> list[Any]:
    """The values of a column."""
    try:
        with pq.ParquetFile(path) as file:
            found: list[Any] = file.read(columns=[name], use_threads=False).column(name).to_pylist()
        if len(found) != length:
            raise ValueError("its rows are not as many as it says")
    except DAMAGE as error:
        raise _damaged(path, error) from error
    return found


def _damaged(path: Path, error: BaseException) -> UserError:
    why = readable(next(iter(str(error).splitlines()), "") or type(error).__name__).rstrip(".")
    return UserError(
        f"{readable(str(path))} must be a whole parquet file, found one that cannot be read ({why}): fetch it again."
    )


def _labels(
    files: Sequence[Path], schemas: Sequence[pa.Schema], lengths: Sequence[int]
) -> tuple[Labels, tuple[str, ...]]:
    """The labels of all files, and what the user should know of them."""
    name = next(filter(None, map(label_column, schemas)), None)
    if name is None:
        why = next(filter(None, map(unusable_labels, schemas)), "")
        return Labels([None] * len(files), ()), (why,) if why else ()
    holding = [name in label_columns(schema) for schema in schemas]
    columns = [
        LabelColumn(file, _column(file, name, length) if holds else [], _declared(schema, name))
        for file, schema, length, holds in zip(files, schemas, lengths, holding, strict=True)
    ]
    found = unify(name, columns)
    without = [file for file, holds in zip(files, holding, strict=True) if not holds]
    lacking = f"{readable(without[0].name)} has no column of labels called {readable(name)!r}" if without else ""
    return found, tuple(filter(None, (found.note, lacking)))


def _declared(schema: pa.Schema, name: str) -> tuple[str, ...]:
    """The names that a file declares for the integers of a column."""
    entry = declared_as(schema, "ClassLabel").get(name)
    names = entry.get("names") if isinstance(entry, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _raw(cell: Any, folder: Path) -> Raw:
    """The bytes in a cell, or the file beside the parquet file that it names, or why there is neither."""
    if not isinstance(cell, dict):
        return cell or b""
    name = cell.get("path")
    if cell.get("bytes") or not isinstance(name, str) or not name:
        return cell.get("bytes") or b""
    if "\0" in name:
        return "has a path that no file can have"
    # not Path.resolve, which raises where a link leads in a circle
    inside = Path(os.path.realpath(folder / name)).is_relative_to(os.path.realpath(folder))
    return folder / name if inside else "has a path that leads out of the folder of the parquet file"
