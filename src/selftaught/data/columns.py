"""Choose the columns of images, labels and dense targets of a parquet file.

The choice is based on the `huggingface` metadata of the schema, or on the types and names of the columns if the
metadata is missing or contradicts them.
"""

import json
from collections import Counter
from typing import Any

import pyarrow as pa

from selftaught.data.reader import readable
from selftaught.errors import UserError

IMAGE_NAMES = ("image", "img", "picture", "photo")
DENSE_NAMES = {
    "depth": ("depth", "depth_map"),
    "normals": ("normals", "normal", "surface_normals"),
    "contours": ("contours",),
    "instances": ("instances", "instance", "instance_ids"),
}
"""Column names of dense targets, in order of preference."""
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target", "category")


def image_column(schema: pa.Schema, path: str) -> str:
    """Name of the image column of a file.

    Raises:
        UserError: there is none.
    """
    candidates = image_columns(schema)
    preferred = [*declared_as(schema, "Image"), *IMAGE_NAMES, *candidates]
    if chosen := next((name for name in preferred if name in candidates), None):
        return chosen
    raise UserError(
        f"{readable(path)} has no image column (bytes, or a struct with bytes), only {describe_columns(schema)}: "
        f"write it with the Image feature of the `datasets` library, or remove it from the folder."
    )


def dense_columns(schema: pa.Schema, image: str) -> dict[str, str]:
    """Columns of dense targets by name of the target; `image` is the column of the images."""
    candidates = [name for name in image_columns(schema) if name != image]
    columns = {
        target: next((name for name in names if name in candidates), None) for target, names in DENSE_NAMES.items()
    }
    return {target: name for target, name in columns.items() if name is not None}


def label_column(schema: pa.Schema) -> str | None:
    """Name of the label column, or None. The finest labels are preferred; floats are used only if nothing else is."""
    is_float = label_columns(schema)
    preferred = [name for name in _label_names(schema) if name in is_float]
    return next((name for name in preferred if not is_float[name]), next(iter(preferred), None))


def image_columns(schema: pa.Schema) -> list[str]:
    """Columns whose type can represent images: bytes, or a struct with bytes."""

    def holds_bytes(kind: pa.DataType) -> bool:
        kinds = pa.types
        tests = (kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view, kinds.is_fixed_size_binary)
        return any(test(kind) for test in tests)

    def holds_images(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0 and holds_bytes(kind.field("bytes").type)
        return holds_bytes(kind)

    once = _once(schema)
    return [field.name for field in schema if field.name in once and holds_images(field.type)]


def label_columns(schema: pa.Schema) -> dict[str, bool]:
    """Columns whose type can represent labels (integers, strings, booleans, floats) -> whether they are floats."""

    def holds_labels(kind: pa.DataType) -> bool:
        kinds = pa.types
        strings = (kinds.is_string, kinds.is_large_string, kinds.is_string_view)
        return any(test(kind) for test in (kinds.is_integer, kinds.is_boolean, kinds.is_floating, *strings))

    once = _once(schema)
    plain = {field.name: _value_type(field.type) for field in schema if field.name in once}
    return {name: pa.types.is_floating(kind) for name, kind in plain.items() if holds_labels(kind)}


def unusable_labels(schema: pa.Schema) -> str:
    """The reason why a column named like labels is not used; empty if there is no such column."""
    names = set(schema.names)
    name = next((name for name in _label_names(schema) if name in names), None)
    if name is None:
        return ""
    if name not in _once(schema):
        return f"the column {readable(name)!r} occurs more than once and is not used as labels"
    kind = readable(str(schema.field(name).type))[:40]
    return f"the column {readable(name)!r} ({kind}) does not have one label per image and is not used"


def _label_names(schema: pa.Schema) -> list[str]:
    """Names of possible label columns, in order of preference."""
    declared = list(declared_as(schema, "ClassLabel"))
    return [name for name in LABEL_NAMES if name in declared] + declared + list(LABEL_NAMES)


def _once(schema: pa.Schema) -> set[str]:
    """Column names that occur exactly once."""
    return {name for name, count in Counter(schema.names).items() if count == 1}


def _value_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a column, dictionary-encoded or not."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def declared_as(schema: pa.Schema, kind: str) -> dict[str, Any]:
    """Columns of a feature type ("Image", "ClassLabel") in the `huggingface` metadata -> their entry there."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: entry for name, entry in features.items() if entry.get("_type") == kind}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}  # metadata missing or malformed: fall back to types and names


def describe_columns(schema: pa.Schema) -> str:
    """The columns of a file with their types, for messages."""
    columns = [f"{readable(field.name)} ({readable(str(field.type))[:40]})" for field in schema]
    return ", ".join(columns[:9]) or "no columns"
