"""Read a CSV file of labels: the path of an image and its classes in every row, see `label_columns.py`."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from selftaught.data.label_columns import (
    LABEL_COLUMNS,
    PATH_COLUMNS,
    SEPARATOR,
    VALUES,
    FileLabels,
    Row,
    cell_of,
    class_columns,
    class_sets,
    find_column,
)
from selftaught.data.reader import readable
from selftaught.errors import UserError

MAX_LINE = 2**20
"""Maximum length of a line in characters; a file with longer lines is not a table of paths."""


def read_labels(path: Path) -> FileLabels:
    """Read a CSV file of labels.

    Raises:
        UserError: the file cannot be read, lacks a column, has two labels for one image, or an undecided one.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would block, and --resume could not read it again
            raise UserError(f"--labels expects a CSV file, got a folder or a pipe: {_printable(path)}.")
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _labels(_rows(file, path), path)
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {_printable(path)}: it is not UTF-8. Save it as UTF-8.") from error
    except UserError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {_printable(path)}: {reason}.") from error


def conflicting_labels(image: str, first: frozenset[str], second: frozenset[str], file: Path) -> UserError:
    """The error for an image with two different labels."""
    one, other = (SEPARATOR.join(sorted(names)) for names in (first, second))
    return UserError(f"two labels for {image!r} in {_printable(file)}: {one!r} and {other!r}. Remove one.")


def _labels(rows: Iterator[Row], path: Path) -> FileLabels:
    """The labels of all rows below the header that have any."""
    _, header = next(rows, (0, []))
    place = find_column(header, PATH_COLUMNS, _printable(path))
    column = find_column(header, LABEL_COLUMNS, _printable(path))
    if place is None:
        raise _no_columns(header, path)
    if column is not None:
        kept = _with_paths(((number, [cell_of(row, place), cell_of(row, column)]) for number, row in rows), path)
        if broken := next((number for number, row in kept if "\n" in row[1] or "\r" in row[1]), None):
            raise _unclosed(broken, path)
        classes, several = class_sets([readable(row[1]) for _, row in kept])
        given = [bool(row[1]) for _, row in kept]
        return FileLabels(_by_path(kept, 0, classes, given, path), several)
    table = _with_paths(rows, path, place)
    columns = class_columns(header, table, place, _printable(path))
    if not columns:
        raise _no_columns(header, path)
    names = [readable(header[column].strip()) for column in columns]
    cells = [[cell_of(row, column) for column in columns] for _, row in table]
    classes = [frozenset(name for name, cell in zip(names, row, strict=True) if VALUES.get(cell)) for row in cells]
    labels = _by_path(table, place, classes, [any(row) for row in cells], path)
    unused = [readable(name.strip()) for number, name in enumerate(header) if number not in (place, *columns)]
    notes = (f"columns without 0 and 1 are not classes: {', '.join(unused[:5])}{', ...' * (len(unused) > 5)}",)
    return FileLabels(labels, True, tuple(names), notes if unused else ())


def _with_paths(rows: Iterator[Row], path: Path, place: int = 0) -> list[Row]:
    """The rows that have a path, in column `place`; a line break in one is the sign of an unclosed quote."""
    kept = []
    for number, row in rows:
        image = cell_of(row, place)
        if "\n" in image or "\r" in image:
            raise _unclosed(number, path)
        if image:
            kept.append((number, row))
    return kept


def _by_path(
    rows: Sequence[Row], place: int, classes: Sequence[frozenset[str]], given: Sequence[bool], path: Path
) -> dict[str, frozenset[str]]:
    """Path -> classes of the rows with labels.

    Args:
        rows: the rows.
        place: position of the path.
        classes: the classes in every row.
        given: whether each row has a label; an image of no class has one as well.
        path: the file.
    """
    labels: dict[str, frozenset[str]] = {}
    labeled: dict[str, bool] = {}
    for (_, row), names, known in zip(rows, classes, given, strict=True):
        image = cell_of(row, place)
        if labels.setdefault(image, names) != names or labeled.setdefault(image, known) != known:
            raise conflicting_labels(image, labels[image], names, path)
    return {image: names for image, names in labels.items() if labeled[image]}


def _no_columns(header: Sequence[str], path: Path) -> UserError:
    first_line = repr(readable(",".join(header))[:80]) if header else "an empty file"
    return UserError(
        f"{_printable(path)} must begin with a header that has the columns path and label, or path and several columns "
        f"of 0 and 1, separated by a comma; got {first_line}."
    )


def _rows(file: TextIO, path: Path) -> Iterator[Row]:
    """The non-empty rows, each with the number of its first line."""
    rows = csv.reader(_lines(file, path), skipinitialspace=True, strict=True)
    while True:
        number = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            if "unexpected end of data" in str(error) or "field larger" in str(error):
                raise _unclosed(number, path, str(error)) from error
            raise UserError(
                f"cannot parse {_printable(path)} as CSV: error in line {number} ({readable(str(error))})."
            ) from error
        if row is None:
            return
        if row:
            yield number, row


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of a file. Raises for a line beyond `MAX_LINE`, because each is loaded whole into memory."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise UserError(
                f"more than {MAX_LINE:,} characters in line {number} of {_printable(path)}: check that it is a CSV "
                f"file of labels."
            )
        yield line


def _unclosed(number: int, path: Path, why: str = "") -> UserError:
    detail = f" ({why})" if "field larger" in why else ""
    return UserError(f"unclosed quote in line {number} of {_printable(path)}{detail}: close or remove it.")


def _printable(path: Path) -> str:
    return readable(str(path))
