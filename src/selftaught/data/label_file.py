"""Read a CSV file of labels: the path of an image and its label in every row."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

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
)
"""Accepted names of the path column, in order of preference; case-insensitive."""
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target")
"""Accepted names of the label column, in order of preference; case-insensitive."""
MAX_LINE = 2**20
"""Maximum length of a line in characters; a file with longer lines is not a table of paths."""


def read_labels(path: Path) -> dict[str, str]:
    """Read a CSV file of labels: path of the image -> label.

    Raises:
        UserError: the file cannot be read, lacks a column, or has two labels for one image.
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


def conflicting_labels(image: str, first: str, second: str, file: Path) -> UserError:
    """The error for an image with two labels."""
    return UserError(f"two labels for {image!r} in {_printable(file)}: {first!r} and {second!r}. Remove one.")


def _labels(rows: Iterator[tuple[int, list[str]]], path: Path) -> dict[str, str]:
    """Path -> label from the rows below the header, without rows that have no label."""
    _, header = next(rows, (0, []))
    columns = _columns(header, path)
    labels: dict[str, str] = {}
    for number, row in rows:
        image, label = (row[column].strip() if column < len(row) else "" for column in columns)
        if "\n" in image + label or "\r" in image + label:
            raise _unclosed(number, path)
        if image and labels.setdefault(image, readable(label)) != readable(label):
            raise conflicting_labels(image, labels[image], readable(label), path)
    return {image: label for image, label in labels.items() if label}


def _columns(header: list[str], path: Path) -> tuple[int, int]:
    """Positions of the path column and the label column."""
    names = [name.strip().lower() for name in header]
    candidates = [[name for name in accepted if name in names] for accepted in (PATH_COLUMNS, LABEL_COLUMNS)]
    if not all(candidates):
        first_line = repr(readable(",".join(header))[:80]) if header else "an empty file"
        raise UserError(
            f"{_printable(path)} must begin with a header that has the columns path and label, separated by a comma; "
            f"got {first_line}."
        )
    chosen = [options[0] for options in candidates]
    if repeated := next((name for name in chosen if names.count(name) > 1), None):
        raise UserError(f"the column {repeated!r} occurs twice in {_printable(path)}: rename one.")
    return names.index(chosen[0]), names.index(chosen[1])


def _rows(file: TextIO, path: Path) -> Iterator[tuple[int, list[str]]]:
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
