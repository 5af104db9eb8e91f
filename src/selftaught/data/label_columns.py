"""Labels from columns of a CSV file: one class per image, several separated by "|", or a column of 0 and 1 per class.

The last two are the usual formats of chest X-rays: `Finding Labels` of ChestX-ray14 ("Effusion|Mass", "No Finding"),
and the columns of CheXpert.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from selftaught.data.reader import readable
from selftaught.errors import UserError

PATH_COLUMNS = (
    "path",
    "filename",
    "file",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "img",
    "image_path",
    "image_name",
    "image index",
)
"""Accepted names of the path column, in order of preference; case-insensitive."""
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "finding labels")
"""Accepted names of the label column, in order of preference; case-insensitive."""
SEPARATOR = "|"
"""Between the classes of an image."""
NO_CLASS = "no finding"
"""Name of a class, in lower case, that means none of the others, where images may have several."""
VALUES = {"0": False, "0.0": False, "1": True, "1.0": True}
"""Values of a column of a class."""
UNDECIDED = {"", "-1", "-1.0"}
"""Values that occur in such columns as well: not mentioned, or uncertain."""

Row = tuple[int, list[str]]
"""The number of the first line of a row, and its cells."""


@dataclass(frozen=True)
class FileLabels:
    """The labels of a file."""

    labels: dict[str, frozenset[str]]
    """Path of an image -> its classes."""
    several: bool = False
    """Whether images may have several classes, or none."""
    classes: tuple[str, ...] = ()
    """All classes in order; empty where they are those that occur."""
    notes: tuple[str, ...] = ()
    """Notes for the user, one phrase each."""


def find_column(header: Sequence[str], accepted: Sequence[str], file: str) -> int | None:
    """Position of the first accepted column; None if there is none.

    Raises:
        UserError: it occurs twice.
    """
    names = [name.strip().lower() for name in header]
    chosen = next((name for name in accepted if name in names), None)
    if chosen is not None and names.count(chosen) > 1:
        raise UserError(f"the column {chosen!r} occurs twice in {file}: rename one.")
    return None if chosen is None else names.index(chosen)


def class_sets(cells: Sequence[str]) -> tuple[list[frozenset[str]], bool]:
    """The classes in every cell of a column of labels; empty cells have none.

    Returns:
        The classes, and whether cells may have several: whether any has a separator.
    """
    if not any(SEPARATOR in cell for cell in cells):
        return [frozenset({cell} if cell else ()) for cell in cells], False
    sets = [frozenset(filter(None, (name.strip() for name in cell.split(SEPARATOR)))) for cell in cells]
    return [frozenset(name for name in names if name.lower() != NO_CLASS) for names in sets], True


def class_columns(header: Sequence[str], rows: Sequence[Row], path: int, file: str) -> list[int]:
    """Positions of the columns of 0 and 1 that have a 1, if there are at least two: each is a class.

    Args:
        header: names of the columns.
        rows: all rows below it.
        path: position of the column of paths.
        file: the file, for error messages.

    Raises:
        UserError: a value is undecided where the row has others, two columns have the same name, or fewer than two of
            several such columns have a 1.
    """
    values = [{cell_of(row, column) for _, row in rows} for column in range(len(header))]
    flags = [
        column
        for column, found in enumerate(values)
        if column != path and found & VALUES.keys() and found <= {*VALUES, *UNDECIDED}
    ]
    chosen = [column for column in flags if values[column] & {"1", "1.0"}]
    if len(chosen) < 2 <= len(flags):
        zero = ", ".join(readable(header[column].strip()) for column in flags if column not in chosen)
        raise UserError(
            f"two or more classes of {file} need an image, but the columns {zero} have no 1 in any row: write 1 where "
            "an image has the class."
        )
    if len(chosen) < 2:
        return []
    names = [header[column].strip() for column in chosen]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"the column {readable(repeated)!r} occurs twice in {file}: rename one.")
    for number, row in rows:
        cells = [cell_of(row, column) for column in chosen]
        bad = next((place for place, cell in enumerate(cells) if any(cells) and cell not in VALUES), None)
        if bad is not None:
            raise UserError(
                f"the column {readable(names[bad])!r} of {file} has {cells[bad]!r} in line {number}, expected 0 or 1: "
                "decide it, or remove the row or the column."
            )
    return chosen


def cell_of(row: Sequence[str], column: int) -> str:
    """A cell without spaces around it; empty beyond the end of the row."""
    return row[column].strip() if column < len(row) else ""
