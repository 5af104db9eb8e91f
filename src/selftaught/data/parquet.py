"""Images in parquet files, in the layout of Hugging Face: a column of struct{bytes, path}, and perhaps labels.

Which column holds what is read from the schema's `huggingface` metadata, and where that is missing or does not agree
with the columns themselves, from their types and names. Row groups are read as they are needed.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selftaught.data.reader import UNLABELLED, Indices, Raw, Reader, files_digest, natural, readable, split_of
from selftaught.errors import UserError

IMAGE_NAMES = ("image", "img", "picture", "photo")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target", "category")
ROWS = 64
"""Rows read at a time."""


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
                            yield from (_raw(cell, path.parent) for cell in batch.column(0).take(here).to_pylist())
                    start = stop
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error

    def fingerprint(self) -> str:
        """See `Reader`."""
        return files_digest(self.files, [f"{file.name}:{self.column}" for file in self.files])


def parquet_files(path: Path) -> list[Path]:
    """The file itself, or all parquet files in a folder and below it but the hidden ones, in natural order."""
    if path.is_file():
        return [path]
    found = [file.relative_to(path) for file in path.rglob("*.parquet") if file.is_file()]
    shown = [file for file in found if not any(part.startswith(".") for part in file.parts)]
    return [path / file for file in sorted(shown, key=lambda file: natural(file.as_posix()))]


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
    schemas = [_schema(file) for file in files]
    column = _image_column(schemas[0], files[0])
    for file, schema in zip(files, schemas, strict=True):
        if column not in schema.names:
            raise UserError(
                f"all parquet files of a source must have the column {column!r}, found {schema.names} in {file}: "
                f"hand in the files that belong together."
            )
    lengths = [pq.read_metadata(file).num_rows for file in files]
    labels, classes = _labels(files, schemas)

    def reader(chosen: Sequence[int]) -> Parquet:
        parts = [np.full(lengths[i], UNLABELLED) if (part := labels[i]) is None else part for i in chosen]
        labelled = any(labels[i] is not None for i in chosen)
        joined, names = (np.concatenate(parts), classes) if labelled else (None, None)
        some, rows = tuple(files[i] for i in chosen), tuple(lengths[i] for i in chosen)
        return Parquet(readable(str(path)), joined, names, some, column, rows)

    return {"all": reader(range(len(files))), **{split: reader(own) for split, own in _by_split(path, files).items()}}


def _by_split(path: Path, files: list[Path]) -> dict[str, list[int]]:
    """Which files belong to which split; none where there are not two splits."""
    groups: dict[str, list[int]] = {}
    for index, file in enumerate(files):
        split = split_of(file.stem) or (split_of(file.parent.name) if file.parent != path else None)
        if split and file != path:
            groups.setdefault(split, []).append(index)
    return groups if len(groups) > 1 else {}


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _column(path: Path, name: str) -> pa.ChunkedArray:
    try:
        return pq.read_table(path, columns=[name], use_threads=False).column(0)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    why = str(error).splitlines()[0].rstrip(".")
    return UserError(f"{path} must be a whole parquet file, found one that cannot be read ({why}): fetch it again.")


def _declared(schema: pa.Schema, kind: str) -> dict[str, Any]:
    """Columns that the `huggingface` metadata says are of a kind ("Image", "ClassLabel"), with what it says of them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: entry for name, entry in features.items() if entry.get("_type") == kind}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}  # no metadata, or none that makes sense: go by types and names


def _image_column(schema: pa.Schema, path: Path) -> str:
    def holds_bytes(kind: pa.DataType) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))

    def holds_images(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0 and holds_bytes(kind.field("bytes").type)
        return holds_bytes(kind)

    able = [field.name for field in schema if holds_images(field.type)]
    preferred = [*_declared(schema, "Image"), *IMAGE_NAMES, *able]
    if chosen := next((name for name in preferred if name in able), None):
        return chosen
    raise UserError(
        f"a parquet file must have a column of images (bytes, or a struct with bytes), found the columns "
        f"{schema.names} in {path}: write it with the `datasets` library's Image feature."
    )


def _label_column(schema: pa.Schema) -> str | None:
    def holds_labels(kind: pa.DataType) -> bool:
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))

    able = [field.name for field in schema if holds_labels(field.type)]
    declared = list(_declared(schema, "ClassLabel"))
    preferred = [name for name in LABEL_NAMES if name in declared] + declared + list(LABEL_NAMES)
    return next((name for name in preferred if name in able), None)


def _labels(files: list[Path], schemas: list[pa.Schema]) -> tuple[list[Indices | None], tuple[str, ...]]:
    """The labels of each file, None for a file in which nothing has one (often the test part), and their names.

    The declared names count where the column holds their numbers; else the values themselves, in natural order over
    all files, are the names.
    """
    column, declared = next(
        ((name, _declared(schema, "ClassLabel").get(name)) for schema in schemas if (name := _label_column(schema))),
        (None, None),
    )
    if column is None:
        return [None] * len(files), ()
    has = [column in schema.names for schema in schemas]
    tables = [
        _column(file, column) if there else pa.chunked_array([], pa.int64())
        for file, there in zip(files, has, strict=True)
    ]
    values = [set(pc.unique(table).to_pylist()) - {None, UNLABELLED} for table in tables]
    names = declared.get("names") if isinstance(declared, dict) else None
    everything = sorted(set().union(*values), key=lambda value: natural(str(value)))
    if isinstance(names, list) and all(isinstance(value, int) for value in everything):
        places = {number: number for number in range(len(names))}
    else:
        names, places = everything, {value: position for position, value in enumerate(everything)}
    labels = [_positions(table, places) if found else None for table, found in zip(tables, values, strict=True)]
    return labels, tuple(str(name) for name in names)


def _positions(table: pa.ChunkedArray, places: dict[Any, int]) -> Indices:
    """Labels as positions among the classes; what is null or no class becomes `UNLABELLED`."""
    return np.array([places.get(value, UNLABELLED) for value in table.to_pylist()], dtype=np.int64)


def _raw(cell: Any, folder: Path) -> Raw:
    """The bytes in a cell, or the file beside the parquet file that it names; empty where there is neither."""
    if not isinstance(cell, dict):
        return cell or b""
    name = cell.get("path")
    if cell.get("bytes") or not name or "\0" in name:
        return cell.get("bytes") or b""
    inside = (folder / name).resolve().is_relative_to(folder.resolve())
    return folder / name if inside else b""
