"""Open sources by name or path, with splits, limits and labels."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from selftaught.data.brightness import NOMINAL, Ranges, source_ranges
from selftaught.data.cache import cache_folder
from selftaught.data.decode import short_side
from selftaught.data.dense_units import check_units
from selftaught.data.photos import Spec
from selftaught.data.reader import Files, Indices, Reader, has_label, readable
from selftaught.data.resolve import open_readers
from selftaught.data.splits import Split, compare_classes, describe_source, split_part, with_test_part
from selftaught.data.storage import Prepared, Storage, prepare
from selftaught.data.stored import Pixels, Stored
from selftaught.display.progress import announce
from selftaught.errors import UserError, require_between
from selftaught.limits import NUM_IMAGES

DEFAULT_SIDE = 160
"""Default side of the stored squares, in pixels."""
SIZE_SAMPLE = 100
"""Number of images whose headers are read to estimate the native size."""
MIN_DRAWN = 32
"""A limited part that is smaller than this is enlarged however many of its images are broken."""


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
    storage: Storage = "auto",
) -> Stored:
    """Open images by name or path, decoding them on first use, or on the fly.

    Args:
        spec: a folder, a `.parquet` or `.tar` file or a folder of them, the address of such a file or folder on a
            server (`s3://bucket/folder`), or a name (see `list_sources`).
        side: side of the stored squares in pixels, at most the median short side of the images; None for at most 160.
        split: which split. Labeled images that come without a split are divided by a hash of each path: about 20 % are
            the test part. Without labels "train" is everything.
        limit: use a random subset of this many usable images, and decode only these.
        seed: random seed of that subset.
        labels: CSV file with the columns path and label, or of several classes per image, see `label_file.py`; images
            not listed in it have no label.
        keep_unlabeled: whether training images without a label are kept in a labeled source, with the label -1, for
            pretraining. Otherwise they are left out.
        cache: folder of decoded images; None for $SELFTAUGHT_CACHE or ~/.cache/selftaught.
        download: whether a named data set may be downloaded.
        storage: "decoded", to decode the images once and keep them in the cache; "encoded", to decode them on the fly,
            to the same pixels; "auto", to decode them once if they take at most `storage.DECODED_LIMIT` bytes.

    Raises:
        UserError: the source does not exist, is empty, has no such split, or most of its images are broken.
    """
    named = None if labels is None else Path(labels)
    request = OpenRequest(side, limit, seed, named, cache, keep_unlabeled, download, storage=storage)
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
    storage: Storage = "auto",
) -> tuple[Stored, Stored]:
    """Open the training part and the test part of a source.

    Args:
        spec: see `open_source`.
        side: see `open_source`.
        limit: use a random subset of this many training images. The test part is always complete, so that accuracies
            at different limits are measured on the same images.
        seed: random seed of that subset.
        labels: see `open_source`.
        cache: see `open_source`.
        storage: see `open_source`.

    Raises:
        UserError: as for `open_source`, or the two parts have no class in common.
    """
    named, alone = None if labels is None else Path(labels), limit is not None
    request = OpenRequest(side, limit, seed, named, cache, alone=alone, storage=storage)
    splits = _readers(spec, request)
    compare_classes(splits)
    request = _with_common_settings(splits, request)
    train, test = _open(splits, "train", request), _open(splits, "test", replace(request, limit=None))
    for part in (train, test):
        _announce_skipped(part)
    return train, test


def _announce_skipped(source: Stored) -> None:
    """Name the first two images that cannot be used; pretraining lists all of them in a file."""
    if source.skipped:
        listed = ", ".join(f"{title!r} {reason}" for title, reason in source.skipped[:2])
        more = f" and {len(source.skipped) - 2:,} more" if len(source.skipped) > 2 else ""
        count, total = len(source.skipped), len(source) + len(source.skipped)
        announce(f"{source.name}: {count:,} of {total:,} images skipped: {listed}{more}")


@dataclass(frozen=True)
class OpenRequest:
    """The arguments of `open_source` and what is derived from them."""

    side: int | None
    limit: int | None
    seed: int
    labels: Path | None
    cache: Path | None
    keep_unlabeled: bool = False
    download: bool = True
    alone: bool = False
    """Decode only the opened part, although it shares an array with another part."""
    ranges: Ranges = NOMINAL
    """Value ranges of the whole source, for images other than 8-bit ones."""
    storage: Storage = "auto"
    """How the images are stored."""
    pixels: dict[str, Pixels] = field(default_factory=dict)
    """Images opened so far, by key (of targets `key/depth` etc.): parts of one source share one copy on the device."""


def _readers(spec: Spec, request: OpenRequest) -> dict[str, Reader]:
    """The readers of a source by split: always "all", and also "train" and "test" if the source has both."""
    splits = open_readers(spec, request.labels, request.cache, request.download)
    if splits["all"].dense:
        checked = check_units(splits["all"])
        splits = {split: replace(reader, notes=(*reader.notes, *checked)) for split, reader in splits.items()}
    parts = with_test_part(splits)
    if line := describe_source(parts, splits, request.labels):
        announce(line)
    return parts


def _with_common_settings(splits: Mapping[str, Reader], request: OpenRequest) -> OpenRequest:
    """Set what all parts of a source share: the side of the stored squares and the value ranges."""
    ranges = source_ranges(splits["all"], request.cache or cache_folder())
    for note in ranges.notes():
        announce(f"{splits['all'].name}: {note}")
    return replace(request, side=_stored_side(splits, request.side), ranges=ranges)


def _stored_side(splits: Mapping[str, Reader], side: int | None) -> int:
    """Side of the stored squares in pixels: the requested one, at most the native one of the images."""
    if side is not None and side < 1:
        raise UserError(f"the side of stored images must be at least 1 pixel, got {side}.")
    reader = splits.get("train", splits["all"])
    # ten runs of consecutive images instead of a hundred single ones: a parquet file is read by row groups
    starts = np.linspace(0, max(len(reader) - SIZE_SAMPLE // 10, 0), 10).astype(np.int64)
    indices = np.unique(starts[:, None] + np.arange(SIZE_SAMPLE // 10))
    sides = [pixels for raw in reader.stream(indices[indices < len(reader)]) if (pixels := short_side(raw))]
    native = int(np.median(sides)) if sides else DEFAULT_SIDE
    return min(native, DEFAULT_SIDE if side is None else side)


def _open(splits: Mapping[str, Reader], split: Split, request: OpenRequest) -> Stored:
    """Decode one part and make it a source. `request` comes from `_with_common_settings`."""
    assert request.side is not None
    if split == "test":  # an image without a label cannot be used for evaluation
        request = replace(request, keep_unlabeled=False)
    reader, indices, note = split_part(splits, split)
    if reader.labels is not None and not request.keep_unlabeled:
        labeled = has_label(reader.labels[indices])
        # Of folders the announced line counts images without a label, so they are not listed as skipped.
        if request.labels or isinstance(reader, Files) or not labeled.any():
            indices = indices[labeled]
    if not len(indices):
        raise _empty_split(reader, split, request.labels)
    prepared, indices = _prepare_split(reader, indices, request)
    usable, skipped = _usable(reader, prepared, indices, request.keep_unlabeled)
    enough = request.limit is not None and usable.sum() >= request.limit
    if not usable.any() or (len(skipped) > usable.sum() and not enough):
        first = f" (for example, {skipped[0][0]!r} {skipped[0][1]})" if skipped else ""
        raise UserError(
            f"only {usable.sum()} of {len(indices)} images in {reader.name} can be used, expected at least "
            f"half{first}: repair or remove the others."
        )
    labels = None if reader.labels is None else torch.from_numpy(reader.labels[prepared.indices[usable]])
    name = f"{reader.name} ({note})" if note else reader.name
    pixels = request.pixels.setdefault(prepared.key, prepared.images)
    dense = {
        target: request.pixels.setdefault(f"{prepared.key}/{target}", own) for target, own in prepared.dense.items()
    }
    rows = torch.from_numpy(np.flatnonzero(usable))
    content_ids = torch.from_numpy(prepared.content_ids[usable])
    notes = (*request.ranges.notes(), *reader.notes)
    return Stored(name, pixels, rows, labels, reader.classes, prepared.key, skipped, content_ids, notes, dense)


def _empty_split(reader: Reader, split: str, labels: Path | None) -> UserError:
    if labels:
        return UserError(
            f"no image in the {split} part of {reader.name} has a label in {readable(str(labels))}: add some."
        )
    if len(reader) and reader.labels is not None:
        return UserError(
            f"no image in the {split} part of {reader.name} has a label: use the same class folders in all parts, at "
            "least two, or give --labels."
        )
    return UserError(f"no images in the {split} part of {reader.name}: add some, or choose another split.")


def _prepare_split(reader: Reader, indices: Indices, request: OpenRequest) -> tuple[Prepared, Indices]:
    """Prepare a part, or as many images as give `request.limit` usable ones; also returns the indices drawn.

    Broken images are replaced by further draws until there are enough usable ones, or until most of at least
    `MIN_DRAWN` images are broken.
    """
    if request.limit is None:
        # parts that are not separate on disk share one array of all images
        alone = request.alone or request.labels is not None
        chosen = indices if alone else None
        return _prepare(reader, chosen, request), indices
    order, number = _random_order(indices, request.limit, request.seed), request.limit
    while True:
        sample = np.sort(order[:number])
        prepared = _prepare(reader, sample, request)
        usable, skipped = _usable(reader, prepared, sample, request.keep_unlabeled)
        missing = request.limit - int(usable.sum())
        hopeless = len(sample) >= MIN_DRAWN and len(skipped) > usable.sum()
        if missing <= 0 or number >= len(order) or hopeless:
            return prepared, sample
        number += missing


def _prepare(reader: Reader, chosen: Indices | None, request: OpenRequest) -> Prepared:
    assert request.side is not None
    return prepare(reader, request.side, chosen, request.cache, request.ranges, request.storage)


def _usable(
    reader: Reader, prepared: Prepared, chosen: Indices, keep_unlabeled: bool
) -> tuple[NDArray[np.bool_], tuple[tuple[str, str], ...]]:
    """Mask of the prepared images that can be used; name and reason of each chosen image that cannot."""
    lost, usable = dict(prepared.skipped), np.isin(prepared.indices, chosen)
    broken = np.intersect1d(chosen, np.fromiter(lost, np.int64, len(lost)))
    skipped = [(reader.title(index), lost[index]) for index in broken.tolist()]
    if reader.labels is not None and not keep_unlabeled:
        unlabeled = usable & ~has_label(reader.labels[prepared.indices])
        skipped += [
            (reader.title(index), "has no label or an invalid one") for index in prepared.indices[unlabeled].tolist()
        ]
        usable &= ~unlabeled
    return usable, tuple((readable(title), reason) for title, reason in skipped)


def _random_order(indices: Indices, limit: int, seed: int) -> Indices:
    """All indices in random order; a limited part is the first `limit` usable ones."""
    require_between("--limit", limit, *NUM_IMAGES, hint="; leave it out to use all images")
    return indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed)).numpy()]
