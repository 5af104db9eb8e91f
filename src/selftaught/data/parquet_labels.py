"""Unify the labels of several parquet files into one list of classes.

Each file may number the classes differently, so integers are translated to class names file by file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selftaught.data.reader import UNLABELED, Indices, natural_key, readable
from selftaught.errors import UserError

LONGEST = 500
"""Maximum length of a class name, in characters."""


@dataclass(frozen=True)
class LabelColumn:
    """The labels of one file as stored."""

    file: str
    values: Sequence[Any]
    """One per row: integers, strings, booleans or floats; None for no label. Empty if the file lacks the column."""
    declared: tuple[str, ...]
    """Names of the classes 0, 1, ...; empty if the file declares none."""


@dataclass(frozen=True)
class Labels:
    """The labels of several files."""

    of_files: list[Indices | None]
    """Class indices for each file; None for a file without any label (often the test part)."""
    classes: tuple[str, ...]
    note: str = ""
    """Why the label column is not used; empty if it is used."""


def unify(name: str, columns: Sequence[LabelColumn]) -> Labels:
    """Unify the labels of several files into one list of classes.

    An integer is translated by the class names that its file declares, or by those of the other files if its own file
    declares none. Without declared names, integers, integral floats, booleans and strings are classes named by their
    values, so 3, 3.0 and "3" are the same class.

    Args:
        name: name of the column.
        columns: one per file.

    Raises:
        UserError: some files declare different class names and another declares none.
    """
    distinct = [set(column.values) for column in columns]  # far fewer than rows
    for kind, rejects in (("fractions", _is_fraction), (f"strings of more than {LONGEST} characters", _is_long)):
        if any(rejects(value) for values in distinct for value in values):
            note = f"the column {readable(name)!r} contains {kind} and is not used as labels"
            return Labels([None] * len(columns), (), note)
    numbered = [any(map(_is_number, values)) for values in distinct]
    shared = _shared_names(columns, numbered)
    names = [
        {value: _name(value, column.declared or shared) for value in values}
        for column, values in zip(columns, distinct, strict=True)
    ]
    used = {label for own in names for label in own.values() if label is not None}
    if not used:
        rows = any(column.values for column in columns)
        return Labels([None] * len(columns), (), f"the column {readable(name)!r} contains no labels" if rows else "")
    declared = [
        readable(own)
        for column, has_numbers in zip(columns, numbered, strict=True)
        for own in (column.declared or shared) * has_numbers
    ]
    classes = tuple(dict.fromkeys([*declared, *sorted(used - set(declared), key=natural_key)]))
    place = {label: position for position, label in enumerate(classes)}
    indices = [{value: UNLABELED if label is None else place[label] for value, label in own.items()} for own in names]
    return Labels(
        [
            _positions(column, own) if any(label is not None for label in translated.values()) else None
            for column, own, translated in zip(columns, indices, names, strict=True)
        ],
        classes,
    )


def _positions(column: LabelColumn, indices: dict[Any, int]) -> Indices:
    return np.array([indices[value] for value in column.values], dtype=np.int64)


def _shared_names(columns: Sequence[LabelColumn], numbered: Sequence[bool]) -> tuple[str, ...]:
    """The class names of the files that declare some, for those that declare none."""
    lists = {column.declared for column in columns if column.declared}
    undeclared = [column for column, has in zip(columns, numbered, strict=True) if has and not column.declared]
    if len(lists) > 1 and undeclared:
        raise UserError(
            f"the parquet files declare different class names, and {readable(undeclared[0].file)} declares none: "
            f"declare the class names in each file, or store the labels as strings."
        )
    return next(iter(lists), ())


def _name(value: Any, declared: tuple[str, ...]) -> str | None:
    """The class name of a label; None if there is no label or the number is not a class."""
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
    """Whether a value is a measurement and not a class number; NaN means a missing label."""
    return isinstance(value, float) and not math.isnan(value) and not (value.is_integer() and abs(value) < 2**53)


def _is_long(value: Any) -> bool:
    """Whether a string is too long for a class name."""
    return isinstance(value, str) and len(value) > LONGEST
