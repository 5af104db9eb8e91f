"""Readers for image folders, listed by `listing.py`; `layouts.py` derives labels and splits."""

from pathlib import Path

import numpy as np

from selftaught.data.layouts import arrange
from selftaught.data.listing import Listing, list_folder
from selftaught.data.reader import Files, Indices, Reader, readable
from selftaught.errors import UserError

FORMATS = ".jpg, .jpeg, .png, .gif, .bmp, .tif, .webp, .ppm, .jp2, .ico and .avif"
"""Supported formats, for messages; `decode.SUFFIXES` has every suffix."""
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


def folder_splits(root: Path, listing: Listing | None = None) -> dict[str, Reader]:
    """Open an image folder by split.

    All files with an image suffix are included, in natural order of their paths. Labels and splits depend on the
    layout, see docs/data.md.

    Args:
        root: the folder.
        listing: its listing; None to list it here.

    Returns:
        Readers by split: "all" with every image, and each split of the layout.

    Raises:
        UserError: a folder cannot be read, or there are no images.
    """
    listing = listing or list_folder(root)
    if not listing.titles:
        raise _no_images(listing)
    arrangement = arrange(listing)
    notes = [*arrangement.notes]
    notes += [f"{readable(title)} {reason}, not followed" for title, reason in listing.skipped[:2]]
    if len(listing.skipped) > 2:
        notes.append(f"{len(listing.skipped) - 2:,} more links not followed")

    def reader(chosen: Indices) -> Reader:
        titles = [listing.titles[index] for index in chosen.tolist()]
        labels = arrangement.labels[chosen] if arrangement.classes else None
        classes = arrangement.classes or None
        return Files(readable(str(root)), labels, classes, root, titles, arrangement.layout, notes=tuple(notes))

    left_out = arrangement.left_out
    used = np.ones(len(listing.titles), dtype=np.bool_) if left_out is None else ~left_out
    members = {split: np.flatnonzero(mask & used) for split, mask in arrangement.splits.items()}
    return {"all": reader(np.flatnonzero(used)), **{split: reader(own) for split, own in members.items() if len(own)}}


def _no_images(listing: Listing) -> UserError:
    """The error for a folder without images, listing the types of the files in it."""
    where = readable(str(listing.root))
    kinds = listing.kinds()
    if not kinds:
        return UserError(f"no images in {where}: the folder is empty. Check the path.")
    counts = ", ".join(f"{count:,} {readable(suffix)}" for suffix, count in kinds[:4])
    more = f" and {len(kinds) - 4} more types" if len(kinds) > 4 else ""
    suffixes = {suffix for suffix, _ in kinds}
    advice = "unpack the archives" if suffixes & set(ARCHIVES) else "convert the files, or pass another folder"
    return UserError(
        f"no images in {where}: expected image files ({FORMATS}) or .parquet files, got other types "
        f"({counts}{more}): {advice}."
    )
