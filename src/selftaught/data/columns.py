"""Columns of a parquet file: which one holds images, which one labels, and what the file says of them.

Read from the schema's `huggingface` metadata, and where that is missing or does not agree with the columns themselves,
from their types and names.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from selftaught.data.reader import readable
from selftaught.errors import UserError

IMAGE_NAMES = ("image", "img", "picture", "photo")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target", "category")


def image_column(schema: pa.Schema, path: Path) -> str:
    """The column of images of a file.

    Raises:
        UserError: there is none.
    """
    able = image_columns(schema)
    preferred = [*declared_as(schema, "Image"), *IMAGE_NAMES, *able]
    if chosen := next((name for name in preferred if name in able), None):
        return chosen
    raise UserError(
        f"a parquet file must have a column of images (bytes, or a struct with bytes), found {shown(schema)} in "
        f"{readable(str(path))}: write it with the `datasets` library's Image feature, or take it away from the images."
    )


def label_column(schema: pa.Schema) -> str | None:
    """The column of labels, if there is one; of several the finest."""
    able = label_columns(schema)
    declared = list(declared_as(schema, "ClassLabel"))
    preferred = [name for name in LABEL_NAMES if name in declared] + declared + list(LABEL_NAMES)
    return next((name for name in preferred if name in able), None)


def image_columns(schema: pa.Schema) -> list[str]:
    """Columns whose type can hold images: bytes, or a struct with bytes."""

    def holds_bytes(kind: pa.DataType) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))

    def holds_images(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0 and holds_bytes(kind.field("bytes").type)
        return holds_bytes(kind)

    return [field.name for field in schema if holds_images(field.type) and schema.names.count(field.name) == 1]


def label_columns(schema: pa.Schema) -> list[str]:
    """Columns whose type can hold labels: whole numbers or words. Fractions are measurements, not names."""

    def holds_labels(kind: pa.DataType) -> bool:
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))

    return [field.name for field in schema if holds_labels(field.type) and schema.names.count(field.name) == 1]


def declared_as(schema: pa.Schema, kind: str) -> dict[str, Any]:
    """Columns that the `huggingface` metadata says are of a kind ("Image", "ClassLabel"), with what it says of them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: entry for name, entry in features.items() if entry.get("_type") == kind}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}  # no metadata, or none that makes sense: go by types and names


def shown(schema: pa.Schema) -> str:
    """The columns of a file and their types, for people."""
    columns = [f"{readable(field.name)} ({readable(str(field.type))[:40]})" for field in schema]
    return ", ".join(columns[:9]) or "no column"
