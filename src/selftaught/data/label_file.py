"""Read a CSV file of labels: a path and the name of a label on every line."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from selftaught.data.reader import readable
from selftaught.errors import UserError

PATHS = ("path", "filename", "file", "file_name", "filepath", "file_path", "image", "img", "image_path", "image_name")
"""Names of the column of paths, in order of preference; upper and lower case alike."""
LABELS = ("label", "labels", "class", "class_name", "category", "target")
"""Names of the column of labels."""
LINE = 2**20
"""Characters of the longest line that is read: what has longer ones is no table of paths."""


def read_labels(path: Path) -> dict[str, str]:
    """Read a CSV file: path of the image -> name of its label.

    Raises:
        UserError: the file cannot be read, lacks a column, or gives one image two labels.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, and --resume could not read it again
            raise UserError(f"labels must be in a CSV file, found a folder or a pipe at {_said(path)}: name the file.")
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _labels(_rows(file, path), path)
    except UnicodeDecodeError as error:
        raise UserError(
            f"a file of labels must be CSV in UTF-8, found another encoding in {_said(path)}: save it as UTF-8."
        ) from error
    except UserError:
        raise
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"a file of labels must be readable CSV, found {_said(path)} ({why}): check it.") from error


def conflicting_labels(image: str, first: str, second: str, where: Path) -> UserError:
    """The error for an image with two labels."""
    return UserError(
        f"an image must have one label, found {first!r} and {second!r} for {image!r} in {_said(where)}: remove one of "
        f"them."
    )


def _labels(rows: Iterator[tuple[int, list[str]]], path: Path) -> dict[str, str]:
    """What the rows under the header say; images without a label are left out."""
    _, header = next(rows, (0, []))
    image_at, label_at = _columns(header, path)
    labels: dict[str, str] = {}
    for number, row in rows:
        image, label = (row[at].strip() if at < len(row) else "" for at in (image_at, label_at))
        if "\n" in image + label or "\r" in image + label:
            raise _unclosed(number, path)
        if image and labels.setdefault(image, readable(label)) != readable(label):
            raise conflicting_labels(image, labels[image], readable(label), path)
    return {image: label for image, label in labels.items() if label}


def _columns(header: list[str], path: Path) -> tuple[int, int]:
    """Positions of the columns of paths and labels."""
    names = [name.strip().lower() for name in header]
    found = [[name for name in known if name in names] for known in (PATHS, LABELS)]
    if not all(found):
        given = readable(",".join(header))[:80] or "nothing"
        raise UserError(
            f"a file of labels must begin with a line that names the columns path and label, with a comma between "
            f"them, found {given} in {_said(path)}: add that line."
        )
    chosen = [names_found[0] for names_found in found]
    if twice := next((name for name in chosen if names.count(name) > 1), None):
        raise UserError(f"each column of labels must occur once, found {twice!r} twice in {_said(path)}: rename one.")
    return names.index(chosen[0]), names.index(chosen[1])


def _rows(file: TextIO, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, with the numbers of the lines that they begin at."""
    rows = csv.reader(_lines(file, path), skipinitialspace=True, strict=True)
    while True:
        number = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            if "unexpected end of data" in str(error) or "field larger" in str(error):
                raise _unclosed(number, path, str(error)) from error
            raise UserError(
                f"a file of labels must be readable CSV, found {_said(path)} with a mistake at line {number} "
                f"({readable(str(error))}): check it."
            ) from error
        if row is None:
            return
        if row:
            yield number, row


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of a file, refusing endless ones, as they would be held in memory."""
    number = 0
    while line := file.readline(LINE + 1):
        number += 1
        if len(line) > LINE:
            raise UserError(
                f"a file of labels must be CSV, found more than {LINE:,} characters in line {number} of {_said(path)}: "
                f"check what file it is."
            )
        yield line


def _unclosed(number: int, path: Path, why: str = "") -> UserError:
    detail = f" ({why})" if "field larger" in why else ""
    return UserError(
        f"a quote must be closed on its line, found one that is not in line {number} of {_said(path)}{detail}: "
        f"close or remove it."
    )


def _said(path: Path) -> str:
    return readable(str(path))
