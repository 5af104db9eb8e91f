"""Labels from a CSV file with the columns `path` and `label`."""

import csv
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from selftaught.data.reader import UNLABELLED, Indices, Reader, natural, readable
from selftaught.errors import UserError


def read_labels(path: Path) -> dict[str, str]:
    """Read a CSV file: path of the image -> name of its label.

    Raises:
        UserError: the file cannot be read, lacks a column, or gives one image two labels.
    """
    labels: dict[str, str] = {}
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, and --resume could not read it again
            raise UserError(f"labels must be in a CSV file, found a folder or a pipe at {_said(path)}: name the file.")
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, restval="", skipinitialspace=True)
            if not {"path", "label"} <= set(rows.fieldnames or ()):
                found = readable(",".join(rows.fieldnames or ()))[:80] or "nothing"
                raise UserError(
                    f"a file of labels must begin with a line that names the columns path and label, with a comma "
                    f"between them, found {found} in {_said(path)}: add that line."
                )
            for row in rows:
                image, label = row["path"].strip(), readable(row["label"].strip())
                if labels.setdefault(image, label) != label:
                    raise _two(image, labels[image], label, path)
    except UnicodeDecodeError as error:
        raise UserError(
            f"a file of labels must be CSV in UTF-8, found another encoding in {_said(path)}: save it as UTF-8."
        ) from error
    except UserError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"a file of labels must be readable CSV, found {_said(path)} ({why}): check it.") from error
    return {image: label for image, label in labels.items() if label}


def _two(image: str, first: str, second: str, where: Path) -> UserError:
    return UserError(
        f"an image must have one label, found {first!r} and {second!r} for {image!r} in {_said(where)}: remove one of "
        f"them."
    )


def _said(path: Path) -> str:
    return readable(str(path))


def labelled(reader: Reader, labels: dict[str, str], classes: tuple[str, ...], where: Path) -> tuple[Reader, list[str]]:
    """Give a reader the labels of a file.

    A path in the file means the image whose own path ends with it, or that it ends with (so relative to any folder,
    or absolute), if that is one image only.

    Args:
        reader: the images; labels of their own are forgotten.
        labels: path of the image -> name of its label.
        classes: names of the labels.
        where: the file.

    Returns:
        The reader, with `UNLABELLED` where the file says nothing; and the paths that mean none of its images.

    Raises:
        UserError: two paths mean one image and name two labels.
    """
    place = {name: position for position, name in enumerate(classes)}
    by_name: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for index in range(len(reader)):
        parts = PurePosixPath(reader.title(index)).parts
        by_name.setdefault(parts[-1], []).append((parts, index))
    found: Indices = np.full(len(reader), UNLABELLED)
    strangers = []
    for image, label in labels.items():
        parts = PurePosixPath(image).parts
        near = by_name.get(parts[-1], []) if parts else []
        meant = [index for own, index in near if own == parts] or [index for own, index in near if _end(own, parts)]
        if len(meant) == 1:
            if found[meant[0]] not in (UNLABELLED, place[label]):  # named twice, by a longer and a shorter path
                raise _two(image, classes[found[meant[0]]], label, where)
            found[meant[0]] = place[label]
        else:
            strangers.append(image)
    return replace(reader, labels=found, classes=classes), strangers


def relabelled(splits: dict[str, Reader], path: Path) -> dict[str, Reader]:
    """Give all splits of a source the labels of a CSV file.

    Raises:
        UserError: see `read_labels`; or the file names fewer than two labels, or mostly images that are not there.
    """
    labels = read_labels(path)
    classes = tuple(sorted(set(labels.values()), key=natural))
    if len(classes) < 2:
        raise UserError(
            f"a file of labels must name two or more different ones, found {len(classes)} in {_said(path)}: add one."
        )
    _, strangers = labelled(splits["all"], labels, classes, path)
    if len(strangers) * 2 > len(labels):
        raise UserError(
            f"the paths in {_said(path)} must be those of images in {splits['all'].name}, found {len(strangers)} of "
            f"{len(labels)} that are not, such as {strangers[0]!r}: write them relative to that folder."
        )
    return {split: labelled(reader, labels, classes, path)[0] for split, reader in splits.items()}


def _end(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Whether one path is the end of the other."""
    shared = min(len(first), len(second))
    return first[-shared:] == second[-shared:]
