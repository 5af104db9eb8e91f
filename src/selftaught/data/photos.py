"""Photos at full resolution, for sources that are made of crops."""

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
"""What stands for a source: a name or a path, or several photos."""


class Photo(NamedTuple):
    """A photo and what it is called."""

    name: str
    image: Tensor
    """(3, H, W) uint8."""
    content_id: int
    """Digest of the encoded photo, see `content_id`."""


def as_paths(spec: Spec) -> list[str]:
    """A spec as a list, `~` expanded.

    Raises:
        UserError: nothing is named, or what is no path.
    """
    items: list[Any] = [spec]
    if isinstance(spec, list | tuple):
        items = list(spec)
    if not items:
        raise UserError("a source must be a name, a path or several photos, found nothing: name one.")
    for item in items:
        if not isinstance(item, str | Path) or not str(item) or "\0" in str(item):  # a config may hold anything
            raise UserError(f"a source must be a name or a path, found {item!r}: name one.")
    return [os.path.expanduser(str(item)) for item in items]  # noqa: PTH111 (Path's raises for an unknown user)


def is_photos(spec: Spec) -> bool:
    """Whether a spec means photos to be cropped: image files, or names of bundled photos, and nothing else."""
    return all(_is_photo(word) for word in as_paths(spec))


def photos(spec: Spec) -> list[Photo]:
    """Decode photos at full resolution.

    Args:
        spec: one or several image files or names of bundled photos (`china`).

    Raises:
        UserError: one of them is no photo, is missing or cannot be decoded.
    """
    files = [_photo_path(word, spec) for word in as_paths(spec)]
    ranges = measure(files)
    return [_photo(word, file, ranges) for word, file in zip(as_paths(spec), files, strict=True)]


def _photo_path(word: str, spec: Spec) -> Path:
    """The file of one photo."""
    if not _is_photo(word):
        if _exists(word) and len(as_paths(spec)) > 1:
            raise UserError(
                f"several sources must all be image files, found {readable(word)!r} among "
                f"{readable(' '.join(as_paths(spec)[:4]))!r}: name one source, or image files only."
            )
        if _exists(word):
            raise UserError(f"crops must come from image files, found {readable(word)!r}: name the files.")
        raise unknown("photo", readable(word), PHOTOS)
    return Path(word) if _exists(word) or word not in PHOTOS else photo_file(word)


def _photo(word: str, file: Path, ranges: Ranges) -> Photo:
    """Decode one photo."""
    image = decode_whole(file, ranges)
    if isinstance(image, str):
        raise UserError(
            f"a photo must be an image that can be read, found that {readable(word)!r} {image}: name another."
        )
    return Photo(word if word in PHOTOS else file.name, torch.from_numpy(image), content_id(file))


def _exists(word: str) -> bool:
    return os.path.exists(word)  # noqa: PTH110 (Path's raises where a name is too long or a folder is locked)


def _is_photo(word: str) -> bool:
    """A name of a bundled photo, or a path with the suffix of an image, there or not."""
    if os.path.isdir(word):  # noqa: PTH112 (as above)
        return False
    return Path(word).suffix.lower() in SUFFIXES or (word in PHOTOS and not _exists(word))
