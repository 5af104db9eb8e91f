"""Folders of renderings: images with files of depth, normals, instance ids or contours beside them.

What a file contains is named by a folder in its path (`depth/0001.png`), by the end of its name (`0001_depth.png`) or
by the beginning (`Depth0001.exr`, as Blender writes). Files whose paths are equal without this word belong together.
docs/scenes.md describes the layouts with their units.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from selftaught.augment.dense import DENSE_TARGETS
from selftaught.data.conventions import NO_CONVENTIONS, Conventions, parse_conventions
from selftaught.data.dense import MISSING
from selftaught.data.listing import Listing
from selftaught.data.reader import Files, Indices, Raw, Reader, readable
from selftaught.errors import UserError

CONVENTIONS = "targets.json"
"""File with units and axes, in the folder itself."""
WORDS: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "images", "img", "rgb", "color", "colour", "photo", "photos"),
    "depth": ("depth", "depths", "depth_map", "depth_maps"),
    "normals": ("normal", "normals", "surface_normals", "normal_cam"),
    "contours": ("contour", "contours"),
    "instances": ("instance", "instances", "instance_ids", "semantic_instance", "indexob"),
}
"""Words in paths, in lower case, for what a file contains."""
KINDS: Mapping[str, str] = {word: kind for kind, words in WORDS.items() for word in words}
EXACT = (".npy", ".exr", ".tiff", ".tif", ".png")
"""Suffixes of files of targets. If there are several for one image, the first in this list is used."""
SAMPLE = 200
"""Number of files whose names are examined first."""
_ANY = "|".join(sorted(KINDS, key=len, reverse=True))
_END = re.compile(rf"^(.+)[._-]({_ANY})$")
_START = re.compile(rf"^({_ANY})[._-]?([0-9]+)$")


@dataclass(frozen=True, eq=False)
class DenseFiles(Files):
    """Images of a folder with files of their targets."""

    partners: Mapping[str, Sequence[str | None]] = field(default_factory=dict, kw_only=True)
    """Paths of the files of each target, relative to `root`; None where there is none."""

    def stream_dense(self, indices: Indices) -> Iterator[Mapping[str, Raw]]:
        """See `Reader`."""
        for index in indices.tolist():
            files = {name: self.partners[name][index] for name in self.dense}
            yield {name: MISSING if file is None else self.root / file for name, file in files.items()}

    def fingerprint(self) -> str:
        """See `Reader`."""
        return self.fingerprint_of(np.arange(len(self)))

    def fingerprint_of(self, indices: Indices) -> str:
        """See `Reader`."""
        chosen = indices.tolist()
        files = [self.titles[index] for index in chosen]
        files += [self.partners[name][index] or "" for name in self.dense for index in chosen]
        return self._digest(files)


def dense_splits(root: Path, listing: Listing) -> dict[str, Reader] | None:
    """Open a folder of renderings; None if it is no such folder, so that its images are opened as usual.

    It is one if at least half of the files that are named as targets belong to an image.

    Raises:
        UserError: the targets are JPEG, or `targets.json` is invalid.
    """
    if not _is_candidate(listing):
        return None
    files: dict[str, dict[str, list[str]]] = {}
    for title in (*listing.titles, *listing.others):
        kind, key = _identified(title)
        files.setdefault(kind, {}).setdefault(key, []).append(title)
    images = {key: paths[0] for key, paths in files.pop("image", {}).items()}
    belonging = sum(key in images for paths in files.values() for key in paths)
    if not files or 2 * belonging < sum(map(len, files.values())):
        return None
    decodable = set(listing.titles)
    images = {key: title for key, title in images.items() if title in decodable}
    names = tuple(name for name in DENSE_TARGETS if any(key in images for key in files.get(name, {})))
    partners = {name: [_exact(name, files[name].get(key, []), root) for key in images] for name in names}
    notes = [f"with {', '.join(names)}"]
    alone = sum(key not in images for name in names for key in files[name])
    if alone:
        notes.append(f"{alone:,} file{'s' * (alone != 1)} of targets without an image")
    where = readable(str(root))
    reader = DenseFiles(
        where, None, None, root, list(images.values()), "renderings",
        notes=tuple(notes), dense=names, conventions=_conventions(root, listing), partners=partners,
    )  # fmt: skip
    return {"all": reader}


def _is_candidate(listing: Listing) -> bool:
    """Whether folder names or the first file names contain the word of a target."""
    parts = {part.lower() for folder in listing.folders for part in folder.split("/")}
    first = (*listing.titles[:SAMPLE], *listing.others[:SAMPLE])
    parts |= {part.lower() for title in listing.others[:SAMPLE] for part in title.split("/")[:-1]}
    named = {KINDS.get(part) for part in parts} | {_identified(title)[0] for title in first}
    return bool(named & set(DENSE_TARGETS))


def _identified(title: str) -> tuple[str, str]:
    """The content of a file by its name ("image" without a word for a target), and its path without word and suffix."""
    path = PurePosixPath(title)
    folders, stem = list(path.parts[:-1]), path.stem
    if (match := _END.match(stem.lower())) or (match := _START.match(stem.lower())):
        word = match[2] if match[2] in KINDS else match[1]
        rest = stem[: len(match[1])] if word == match[2] else match[2]
        return KINDS[word], "/".join((*folders, rest))
    for place in range(len(folders) - 1, -1, -1):
        if (kind := KINDS.get(folders[place].lower())) is not None:
            del folders[place]
            return kind, "/".join((*folders, stem))
    return "image", "/".join((*folders, stem))


def _exact(name: str, titles: Sequence[str], root: Path) -> str | None:
    """The file of a target among those for one image."""
    for suffix in EXACT:
        for title in titles:
            if title.lower().endswith(suffix):
                return title
    if titles:
        raise UserError(
            f"{name} of {readable(str(root))} is stored as {readable(titles[0])}, but must be PNG, TIFF, NPY or EXR, "
            "which keep exact values: convert it from the original."
        )
    return None


def _conventions(root: Path, listing: Listing) -> Conventions:
    """Units and axes from `targets.json`."""
    if CONVENTIONS not in listing.others:
        return NO_CONVENTIONS
    path = root / CONVENTIONS
    return parse_conventions(path.read_bytes(), readable(str(path)))
