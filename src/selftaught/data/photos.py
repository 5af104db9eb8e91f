"""Photos at full resolution, for sources of crops."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selftaught.data.brightness import Ranges, measure
from selftaught.data.content import content_id
from selftaught.data.decode import SUFFIXES, decode_whole
from selftaught.data.named import PHOTOS, photo_file
from selftaught.data.reader import readable
from selftaught.errors import UserError, unknown

Spec = str | Path | Sequence[str | Path]
"""A source as given by the user: a name, a path, or several photos."""


class Photo(NamedTuple):
    """A decoded photo with its name."""

    name: str
    image: Tensor
    """(3, H, W) uint8."""
    content_id: int
    """Digest of the encoded photo, see `content_id`."""


def as_paths(spec: Spec) -> list[str]:
    """A spec as a list of names, paths and addresses, with `~` expanded and without `file://`.

    Raises:
        UserError: the spec is empty, or an item is not a name or path.
    """
    items: list[Any] = [spec]
    if isinstance(spec, list | tuple):
        items = list(spec)
    if not items:
        raise UserError("the source is empty: pass a name, a path or several photos.")
    for item in items:
        if not isinstance(item, str | Path) or not str(item) or "\0" in str(item):  # a config may contain anything
            raise UserError(f"a source must be a name or a path, got {item!r}.")
    return [os.path.expanduser(str(item).removeprefix("file://")) for item in items]  # noqa: PTH111 (Path.expanduser raises for an unknown user)


def is_photos(spec: Spec) -> bool:
    """Whether a spec consists of photos to be cropped: image files and names of bundled photos only."""
    return all(_is_photo(name) for name in as_paths(spec))


def photos(spec: Spec) -> list[Photo]:
    """Decode photos at full resolution.

    Args:
        spec: one or more image files or names of bundled photos (`china`).

    Raises:
        UserError: one of them is not a photo, is missing or cannot be decoded.
    """
    files = [_photo_path(name, spec) for name in as_paths(spec)]
    ranges = measure(files)
    return [_photo(name, file, ranges) for name, file in zip(as_paths(spec), files, strict=True)]


def _photo_path(name: str, spec: Spec) -> Path:
    """The file of one photo."""
    if not _is_photo(name):
        if _exists(name) and len(as_paths(spec)) > 1:
            raise UserError(
                f"several sources must all be image files, got {readable(name)!r} among "
                f"{readable(' '.join(as_paths(spec)[:4]))!r}: pass one source, or image files only."
            )
        if _exists(name):
            raise UserError(f"--num-crops expects image files, got {readable(name)!r}: pass the files themselves.")
        raise unknown("photo", readable(name), PHOTOS)
    return Path(name) if _exists(name) or name not in PHOTOS else photo_file(name)


def _photo(name: str, file: Path, ranges: Ranges) -> Photo:
    """Decode one photo."""
    image = decode_whole(file, ranges)
    if isinstance(image, str):
        raise UserError(f"cannot read the photo: {readable(name)!r} {image}.")
    return Photo(name if name in PHOTOS else file.name, torch.from_numpy(image), content_id(file))


def _exists(name: str) -> bool:
    return os.path.exists(name)  # noqa: PTH110 (Path.exists raises for long names and locked folders)


def _is_photo(name: str) -> bool:
    """Whether this is the name of a bundled photo, or a path with an image suffix (existing or not)."""
    if os.path.isdir(name):  # noqa: PTH112 (as above)
        return False
    return Path(name).suffix.lower() in SUFFIXES or (name in PHOTOS and not _exists(name))
