"""The folder of rendered scenes: its settings, its shards, and a lock that keeps a second process out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selftaught.errors import UserError, readable
from selftaught.rendering.random_scene import VERSION
from selftaught.rendering.shards import SCENES, rows_of, shard_path
from selftaught.runs.atomic import write_error, write_text
from selftaught.runs.files import read_limited
from selftaught.runs.locking import LOCK, locked

SETTINGS = "render.json"
LIMIT = 10_000
"""Maximum length of the file of settings."""


class RenderSettings(BaseModel):
    """Settings that determine the scenes of a folder, except their number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seed: int
    size: int = Field(gt=0)
    textures: str | None
    """Fingerprint of the images that are used as textures."""
    version: int = VERSION
    shard: int = SCENES


@contextmanager
def locked_for_rendering(folder: Path) -> Iterator[None]:
    """Create a folder and lock it for the block.

    Raises:
        UserError: another process renders into it, or it cannot be written.
    """
    busy = f"another process renders into {readable(str(folder))}: wait for it, or choose another --out."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, busy):
            yield
    except OSError as error:
        raise write_error(folder, error) from error


def claim(folder: Path, settings: RenderSettings, scenes: int) -> None:
    """Write the settings of a new folder, or compare them with those of an existing one.

    Raises:
        UserError: the folder has other settings, more scenes, or other files and no settings.
    """
    shown, path = readable(str(folder)), folder / SETTINGS
    if not path.exists():
        if other := next((entry.name for entry in folder.iterdir() if entry.name != LOCK), None):
            raise UserError(
                f"{shown} contains {readable(other)!r} and no rendered scenes: choose a new or empty folder as --out."
            )
        write_text(path, settings.model_dump_json(indent=1) + "\n")
        return
    stored = _read(path)
    for name in RenderSettings.model_fields:
        before, now = getattr(stored, name), getattr(settings, name)
        if before != now:
            raise UserError(_difference(shown, name, before, now))
    existing = sum(_rows(path) for path in _shards(folder))
    if existing > scenes:
        raise UserError(
            f"{shown} has {existing:,} scenes already, got --scenes {scenes}: give at least as many, or another --out."
        )


def missing_shards(folder: Path, scenes: int, shard: int) -> list[int]:
    """Shards that do not exist, or have too few scenes because the last one was not full, in order.

    Args:
        folder: the folder.
        scenes: number of scenes.
        shard: number of scenes per shard.
    """
    numbers = range(-(-scenes // shard))
    return [number for number in numbers if _rows(shard_path(folder, number)) < len(rows_of(number, scenes, shard))]


def remove_parts(folder: Path) -> None:
    """Remove unfinished files of killed workers; only under the lock."""
    for part in folder.glob("scenes-*.parquet.part"):
        part.unlink(missing_ok=True)


def _read(path: Path) -> RenderSettings:
    try:
        return RenderSettings.model_validate_json(read_limited(path, path.parent, LIMIT))
    except ValidationError as error:
        raise UserError(f"{readable(str(path))} is damaged: choose another --out, or remove the folder.") from error


def _difference(folder: str, name: str, before: object, now: object) -> str:
    if name in ("version", "shard"):
        return f"{folder} was rendered by another version of selftaught: choose another --out."
    if name == "textures":
        return f"{folder} was rendered with {'other' if before else 'no'} --textures: choose another --out."
    return (
        f"{folder} was rendered with --{name} {before}, got --{name} {now}: repeat the same settings, or choose "
        "another --out."
    )


def _shards(folder: Path) -> list[Path]:
    return [path for path in folder.glob("scenes-?????.parquet") if path.stem[-5:].isdecimal()]


def _rows(path: Path) -> int:
    """Scenes in a shard; 0 if it does not exist or is damaged, so that it is rendered again."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, ValueError):  # pyarrow's ArrowInvalid is a ValueError
        return 0
