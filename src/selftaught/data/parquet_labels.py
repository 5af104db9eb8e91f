"""Labels of several parquet files, brought to one list of classes by their names.

Each file may number its classes in its own way, so numbers are translated to names file by file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.reader import UNLABELED, Indices, natural_key, readable
from selftaught.errors import UserError

LONGEST = 500
"""Characters of the longest text that is taken for the name of a class."""


@dataclass(frozen=True)
class LabelColumn:
    """The labels of one file as they were read."""

    file: Path
    values: Sequence[Any]
    """One per row: integers, texts, booleans or floats; None where there is no label. Empty without the column."""
    declared: tuple[str, ...]
    """Names of the integers 0, 1, ...; empty where the file declares none."""


@dataclass(frozen=True)
class Labels:
    """The labels of several files."""

    of_files: list[Indices | None]
    """Positions among the classes for each file; None for a file without any label (often the test part)."""
    classes: tuple[str, ...]
    note: str = ""
    """Why a column that looks like labels is not used."""


def unify(name: str, columns: Sequence[LabelColumn]) -> Labels:
    """Bring the labels of several files to one list of classes.

    An integer is translated by the names that its file declares; by those of the others where its own declares none.
    Without declared names, integers, whole floats, booleans and texts are classes called by their values, so 3, 3.0
    and "3" are one.

    Args:
        name: of the column.
        columns: one per file.

    Raises:
        UserError: files declare different names and one declares none.
    """
    different = [set(column.values) for column in columns]  # far fewer than rows
    for what, refuses in (("fractions", _is_fraction), (f"texts of more than {LONGEST} characters", _is_long)):
        if any(refuses(value) for values in different for value in values):
            note = f"the column {readable(name)!r} holds {what} and is not used as labels"
            return Labels([None] * len(columns), (), note)
    numbered = [any(map(_is_number, values)) for values in different]
    borrowed = _borrowed(columns, numbered)
    names = [
        {value: _name(value, column.declared or borrowed) for value in values}
        for column, values in zip(columns, different, strict=True)
    ]
    used = {found for own in names for found in own.values() if found is not None}
    if not used:
        rows = any(column.values for column in columns)
        return Labels([None] * len(columns), (), f"the column {readable(name)!r} holds no label" if rows else "")
    declared = [
        readable(own)
        for column, has_numbers in zip(columns, numbered, strict=True)
        for own in (column.declared or borrowed) * has_numbers
    ]
    classes = tuple(dict.fromkeys([*declared, *sorted(used - set(declared), key=natural_key)]))
    place = {found: position for position, found in enumerate(classes)}
    places = [{value: UNLABELED if found is None else place[found] for value, found in own.items()} for own in names]
    return Labels(
        [
            _positions(column, own) if any(found is not None for found in translated.values()) else None
            for column, own, translated in zip(columns, places, names, strict=True)
        ],
        classes,
    )


def _positions(column: LabelColumn, places: dict[Any, int]) -> Indices:
    return np.array([places[value] for value in column.values], dtype=np.int64)


def _borrowed(columns: Sequence[LabelColumn], numbered: Sequence[bool]) -> tuple[str, ...]:
    """The names for integers of files that declare none."""
    lists = {column.declared for column in columns if column.declared}
    bare = [column for column, has in zip(columns, numbered, strict=True) if has and not column.declared]
    if len(lists) > 1 and bare:
        raise UserError(
            f"parquet files must agree on what their labels mean, found different names of classes in some and none in "
            f"{readable(str(bare[0].file))}: write the names into each file, or labels as text."
        )
    return next(iter(lists), ())


def _name(value: Any, declared: tuple[str, ...]) -> str | None:
    """The name of a label; None where there is none, or a number that is no class."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        number = int(value) if value.isascii() and value.isdecimal() and len(value) < 19 else None
        if not declared or number is None or value in declared:
            return readable(value)
        value = number
    if declared:
        return readable(declared[int(value)]) if 0 <= value < len(declared) else None
    if isinstance(value, bool):
        return str(value)
    return None if value == UNLABELED else str(int(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not (isinstance(value, float) and math.isnan(value))


def _is_fraction(value: Any) -> bool:
    """Whether a value is a measurement and no number of a class; NaN stands for a missing label."""
    return isinstance(value, float) and not math.isnan(value) and not (value.is_integer() and abs(value) < 2**53)


def _is_long(value: Any) -> bool:
    """Whether a text is too long for the name of a class."""
    return isinstance(value, str) and len(value) > LONGEST
