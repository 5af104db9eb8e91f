"""Images in the report: those that the task saved, and pictures drawn from the features."""

from collections.abc import Sequence
from dataclasses import dataclass

from selftaught.errors import readable
from selftaught.report.compare import count
from selftaught.report.embed import Picture, picture
from selftaught.report.record import Record

MAX_CHARTS = 16
"""Limit on the number of curves and on the number of image grids, so that the page stays small."""


@dataclass(frozen=True)
class ShownImages:
    """Images that the task saved under one name."""

    name: str
    picture: Picture
    earlier: Sequence[tuple[str, Picture]]
    """Step and first row of each version saved during training."""


@dataclass(frozen=True)
class DrawnPicture:
    """Attention maps, nearest neighbors, filters or a style transfer."""

    title: str
    picture: Picture
    note: str


def gather_pictures(record: Record, limit: int) -> list[DrawnPicture]:
    """Pictures of a run; files that are not PNG images are left out."""
    pictures = [(facts, picture(path, record.path, limit)) for facts, path in record.pictures[:MAX_CHARTS]]
    return [
        DrawnPicture(readable(str(facts["title"])), image, readable(str(facts.get("note", ""))))
        for facts, image in pictures
        if image
    ]


def gather_shown(record: Record, name: str, limit: int) -> ShownImages | None:
    """Images saved under one name, or None if they cannot be read."""
    last = picture(record.shown[name], record.path, limit)
    if last is None:
        return None
    before = [(step, picture(path, record.path, limit, first_row=True)) for step, path in record.earlier[name]]
    earlier = [(f"step {count(step)}", image) for step, image in before if image]
    return ShownImages(name.replace("_", " "), last, earlier)
