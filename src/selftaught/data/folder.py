"""Image folders as readers: listed by `listing.py`, interpreted by `layouts.py`."""

from pathlib import Path

import numpy as np

from selftaught.data.layouts import arrange
from selftaught.data.listing import Listing, list_folder
from selftaught.data.reader import Files, Indices, Reader, readable
from selftaught.errors import UserError

FORMATS = ".jpg, .jpeg, .png, .gif, .bmp, .tif, .webp, .ppm, .jp2, .ico and .avif"
"""What can be decoded, for people: see `decode.SUFFIXES` for every spelling."""
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


def folder_splits(root: Path, listing: Listing | None = None) -> dict[str, Reader]:
    """Read a folder by split.

    Every file with the suffix of an image belongs to it, in natural order of the paths. Labels and splits depend on
    the layout: see docs/data.md.

    Args:
        root: the folder.
        listing: of it, where there is one already.

    Returns:
        "all" with every image, and each split that was found.

    Raises:
        UserError: a folder cannot be read, or there are no images.
    """
    listing = listing or list_folder(root)
    if not listing.titles:
        raise _no_images(listing)
    found = arrange(listing)
    notes = [*found.notes, *(f"{readable(title)} {reason}, not followed" for title, reason in listing.skipped[:2])]
    if len(listing.skipped) > 2:
        notes.append(f"{len(listing.skipped) - 2:,} more links not followed")

    def reader(chosen: Indices) -> Reader:
        titles = [listing.titles[index] for index in chosen.tolist()]
        labels, classes = (found.labels[chosen], found.classes) if found.classes else (None, None)
        return Files(readable(str(root)), labels, classes, root, titles, found.layout, notes=tuple(notes))

    kept = np.ones(len(listing.titles), dtype=np.bool_) if found.left_out is None else ~found.left_out
    members = {split: np.flatnonzero(mask & kept) for split, mask in found.splits.items()}
    return {"all": reader(np.flatnonzero(kept)), **{split: reader(own) for split, own in members.items() if len(own)}}


def _no_images(listing: Listing) -> UserError:
    """The error for a folder without images, with what is there instead."""
    where = readable(str(listing.root))
    kinds = listing.kinds()
    if not kinds:
        return UserError(f"no images in {where}: the folder is empty. Preprocess for a misspelt path.")
    there = ", ".join(f"{count:,} {readable(suffix)}" for suffix, count in kinds[:4])
    more = f" and {len(kinds) - 4} more kinds" if len(kinds) > 4 else ""
    suffixes = {suffix for suffix, _ in kinds}
    advice = "unpack the archives" if suffixes & set(ARCHIVES) else "convert the files, or give another folder"
    return UserError(
        f"no images in {where}: expected image files ({FORMATS}) or .parquet files, found files of other kinds "
        f"({there}{more}): {advice}."
    )
