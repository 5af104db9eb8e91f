"""Sources from names and paths, with their splits and limits."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from selftaught.data.brightness import NOMINAL, Ranges, source_ranges
from selftaught.data.cache import Decoded, cache_folder, decode_cached
from selftaught.data.decode import short_side
from selftaught.data.folder import folder_splits
from selftaught.data.labels import with_labels
from selftaught.data.listing import list_folder
from selftaught.data.named import DATASETS, PHOTOS, dataset_splits
from selftaught.data.parquet import parquet_splits
from selftaught.data.photos import Spec, as_paths, is_photos
from selftaught.data.reader import UNLABELED, Indices, Reader, readable
from selftaught.data.splits import Split, compare_classes, split_part, interpretation, with_test_part
from selftaught.data.stored import Resident, Stored
from selftaught.display.progress import announce
from selftaught.errors import UserError, unknown

DEFAULT_SIDE = 160
"""Pixels along the stored squares where nobody asks for another side."""
SIZE_SAMPLE = 100
"""Images whose size is looked at to learn the native one."""
MIN_DRAWN = 32
"""Images below which a limited part is enlarged however many of it are broken."""


def open_source(
    spec: Spec,
    *,
    side: int | None = None,
    split: Split = "train",
    limit: int | None = None,
    seed: int = 0,
    labels: str | Path | None = None,
    keep_unlabeled: bool = False,
    cache: Path | None = None,
    download: bool = True,
) -> Stored:
    """Open images by name or path, decoding them on first use.

    Args:
        spec: a folder, a `.parquet` file or a folder of them, or a known name (see `list_sources`).
        side: pixels along the stored squares, at most those of the images themselves (the median short side);
            None for at most 160.
        split: which part. Where the images come without a split and have labels, about 20 % of them are the test part,
            chosen by a hash of each image's path; without labels "train" is everything.
        limit: take a random part of this many images that can be used, and decode only these.
        seed: of that part.
        labels: CSV file with the columns path and label; images that it does not name have none.
        keep_unlabeled: keep training images that have no label where others do, with a label of -1, as pretraining can
            learn from them. Otherwise they are left out.
        cache: where decoded images are kept; None for $SELFTAUGHT_CACHE or ~/.cache/selftaught.
        download: whether a data set with a name may be downloaded.

    Raises:
        UserError: there is no such source, it is empty or mostly broken, or has no such part.
    """
    request = OpenRequest(side, limit, seed, None if labels is None else Path(labels), cache, keep_unlabeled, download)
    splits = _readers(spec, request)
    return _open(splits, split, _with_common_settings(splits, request))


def open_splits(
    spec: Spec,
    *,
    side: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    labels: str | Path | None = None,
    cache: Path | None = None,
) -> tuple[Stored, Stored]:
    """Open the training and the test part of a source.

    Args:
        spec: as for `open_source`, and so are `side`, `seed`, `labels` and `cache`.
        side: see there.
        limit: take a random part of this many training images. The test part is always whole, so that accuracies of
            different limits are on the same images.
        seed: of that part.
        labels: see there.
        cache: see there.

    Raises:
        UserError: as for `open_source`, or the two parts have no class in common.
    """
    request = OpenRequest(side, limit, seed, None if labels is None else Path(labels), cache, alone=limit is not None)
    splits = _readers(spec, request)
    compare_classes(splits)
    request = _with_common_settings(splits, request)
    return _open(splits, "train", request), _open(splits, "test", replace(request, limit=None))


@dataclass(frozen=True)
class OpenRequest:
    """What the caller asked for, as in `open_source`."""

    side: int | None
    limit: int | None
    seed: int
    labels: Path | None
    cache: Path | None
    keep_unlabeled: bool = False
    download: bool = True
    alone: bool = False
    """Decode only the part that is opened, although it shares an array with another."""
    ranges: Ranges = NOMINAL
    """Value ranges of the whole source, for images that are not 8-bit."""
    pixels: dict[str, Resident] = field(default_factory=dict)
    """Arrays opened so far: two parts of one array are resident once."""


def _readers(spec: Spec, request: OpenRequest) -> dict[str, Reader]:
    """The readers of a source by split: always "all", and "train" and "test" where it comes with both."""
    splits = _resolve(spec, request.cache, request.download)
    if not len(splits["all"]):
        raise UserError(f"no images in {splits['all'].name}: the source is empty.")
    if request.labels:
        splits = with_labels(splits, request.labels)
    parts = with_test_part(splits)
    if line := interpretation(parts, splits, request.labels):
        announce(line)
    return parts


def _resolve(spec: Spec, cache: Path | None, download: bool = True) -> dict[str, Reader]:
    """What a spec means. A path is meant when it exists, has a separator or ends like one; else a name."""
    given = as_paths(spec)
    if is_photos(spec):
        raise UserError(
            f"a source must be many images, found {len(given)} photo(s): say how many crops to take of them "
            f"(--crops 10000)."
        )
    if len(given) > 1:
        raise UserError(
            f"several paths must all be photos, found {readable(' '.join(given[:3]))!r}: name one folder instead."
        )
    word, path = given[0], Path(given[0])
    if os.path.isdir(path):  # noqa: PTH112 (Path's methods raise where a name is too long or a folder is locked)
        listing = list_folder(path)
        if not (tables := listing.with_suffix(".parquet")):
            return folder_splits(path, listing)
        try:
            return parquet_splits(path, [path / table for table in tables])
        except UserError:
            if listing.titles:  # a table that lies beside images is about them and does not hold them
                return folder_splits(path, listing)
            raise
    if path.suffix.lower() == ".parquet" and os.path.isfile(path):  # noqa: PTH113
        return parquet_splits(path, [path])
    if os.path.exists(path):  # noqa: PTH110
        raise UserError(
            f"a source must be a folder or a .parquet file, found {readable(word)!r}, which is neither: unpack it into "
            f"a folder."
        )
    if word.startswith("hf:"):
        raise UserError(
            f"images must be on this machine, found {readable(word)!r}: download its files and name their folder."
        )
    if word == "digits" or word in DATASETS:
        return dataset_splits(word, cache and cache / "downloads", download)
    if path.suffix in (".parquet", ".tar", ".zip") or os.sep in word or "/" in word:
        raise _missing_path(path, word)
    raise unknown("source", readable(word), ["digits", *DATASETS, *PHOTOS])


def _missing_path(path: Path, word: str) -> UserError:
    """The error for a path that leads nowhere, with the near one beside it."""
    neighbours: list[str] = []
    with suppress(OSError):  # no folder, or none that may be read
        neighbours = os.listdir(path.parent)  # noqa: PTH208
    near = get_close_matches(path.name, neighbours, n=1)
    hint = f"did you mean {readable(str(path.with_name(near[0])))!r}?" if near else "look for a misspelling."
    return UserError(f"a path must lead to images, found nothing at {readable(word)!r}: {hint}")


def _with_common_settings(splits: Mapping[str, Reader], request: OpenRequest) -> OpenRequest:
    """Decide what all parts of a source share: the side of its stored squares and its value ranges."""
    ranges = source_ranges(splits["all"], request.cache or cache_folder())
    for note in ranges.notes():
        announce(f"{splits['all'].name}: {note}")
    return replace(request, side=_stored_side(splits, request.side), ranges=ranges)


def _stored_side(splits: Mapping[str, Reader], side: int | None) -> int:
    """Pixels along the stored squares: what is wanted, but never more than the images have."""
    if side is not None and side < 1:
        raise UserError(f"the side of stored images must be at least 1 pixel, found {side}: give a larger one.")
    reader = splits.get("train", splits["all"])
    # ten runs of neighbours, not a hundred places: a parquet file is read by row groups
    starts = np.linspace(0, max(len(reader) - SIZE_SAMPLE // 10, 0), 10).astype(np.int64)
    indices = np.unique(starts[:, None] + np.arange(SIZE_SAMPLE // 10))
    sides = [found for raw in reader.stream(indices[indices < len(reader)]) if (found := short_side(raw))]
    native = int(np.median(sides)) if sides else DEFAULT_SIDE
    return min(native, DEFAULT_SIDE if side is None else side)


def _open(splits: Mapping[str, Reader], split: Split, request: OpenRequest) -> Stored:
    """Decode one part and make it a source. `request` is settled."""
    assert request.side is not None
    if split == "test":  # what has no label evaluates nothing
        request = replace(request, keep_unlabeled=False)
    reader, wanted, note = split_part(splits, split)
    if (
        request.labels and reader.labels is not None and not request.keep_unlabeled
    ):  # images not in the file are not reported
        wanted = wanted[reader.labels[wanted] != UNLABELED]
    if not len(wanted):
        raise _empty_split(reader, split, request.labels)
    found, wanted = _decode_split(reader, wanted, request)
    usable, skipped = _usable(reader, found, wanted, request.keep_unlabeled)
    enough = request.limit is not None and usable.sum() >= request.limit
    if not usable.any() or (len(skipped) > usable.sum() and not enough):
        first = f" (for example, {skipped[0][0]!r} {skipped[0][1]})" if skipped else ""
        raise UserError(
            f"only {usable.sum()} of {len(wanted)} images in {reader.name} can be used, expected at least half of "
            f"them{first}: repair or remove the others."
        )
    labels = None if reader.labels is None else torch.from_numpy(reader.labels[found.kept[usable]])
    name = f"{reader.name} ({note})" if note else reader.name
    pixels = request.pixels.setdefault(found.key, Resident(found.images))
    rows = torch.from_numpy(np.flatnonzero(usable))
    content_ids = torch.from_numpy(found.content_ids[usable])
    notes = (*request.ranges.notes(), *reader.notes)
    return Stored(name, pixels, rows, labels, reader.classes, found.key, skipped, content_ids, notes)


def _empty_split(reader: Reader, split: str, labels: Path | None) -> UserError:
    if labels:
        return UserError(
            f"no image in the {split} part of {reader.name} has a label in {readable(str(labels))}: add some of them."
        )
    return UserError(f"no images in the {split} part of {reader.name}: add some, or choose another split.")


def _decode_split(reader: Reader, wanted: Indices, request: OpenRequest) -> tuple[Decoded, Indices]:
    """Decode a part, or so much of it that `request.limit` images can be used; and which of it were drawn.

    More are drawn in place of broken images until there are enough, or until most of at least `MIN_DRAWN` are broken.
    """
    assert request.side is not None
    if request.limit is None:
        # parts without a folder of their own share one array of all images
        alone = request.alone or request.labels is not None
        return decode_cached(reader, request.side, wanted if alone else None, request.cache, request.ranges), wanted
    order, number = _random_order(wanted, request.limit, request.seed), request.limit
    while True:
        drawn = np.sort(order[:number])
        found = decode_cached(reader, request.side, drawn, request.cache, request.ranges)
        usable, skipped = _usable(reader, found, drawn, request.keep_unlabeled)
        missing = request.limit - int(usable.sum())
        hopeless = len(drawn) >= MIN_DRAWN and len(skipped) > usable.sum()
        if missing <= 0 or number >= len(order) or hopeless:
            return found, drawn
        number += missing


def _usable(
    reader: Reader, found: Decoded, wanted: Indices, keep_unlabeled: bool
) -> tuple[NDArray[np.bool_], tuple[tuple[str, str], ...]]:
    """Which decoded images are wanted (and have a label, where others do); name and reason of the wanted that fail."""
    lost, usable = dict(found.skipped), np.isin(found.kept, wanted)
    broken = np.intersect1d(wanted, np.fromiter(lost, np.int64, len(lost)))
    skipped = [(reader.title(index), lost[index]) for index in broken.tolist()]
    if reader.labels is not None and not keep_unlabeled:
        bad = usable & (reader.labels[found.kept] == UNLABELED)
        skipped += [
            (reader.title(index), "has no label, or one that is no class") for index in found.kept[bad].tolist()
        ]
        usable &= ~bad
    return usable, tuple((readable(title), reason) for title, reason in skipped)


def _random_order(indices: Indices, limit: int, seed: int) -> Indices:
    """All indices in the random order in which a limited part takes them."""
    if limit < 1:
        raise UserError(f"--limit must be at least 1 image, found {limit}: leave it out to take all.")
    return indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed)).numpy()]
