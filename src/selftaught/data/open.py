"""From what the user calls a source to a source: names, paths, splits, limits."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from selftaught.data.brightness import NOMINAL, Ranges, source_ranges
from selftaught.data.cache import Decoded, cache_folder, decoded
from selftaught.data.decode import short_side
from selftaught.data.folder import folder_splits
from selftaught.data.known import KNOWN, PHOTOS, known_splits
from selftaught.data.labels import relabelled
from selftaught.data.parquet import parquet_files, parquet_splits
from selftaught.data.photos import Spec, is_photos, words
from selftaught.data.reader import UNLABELLED, Indices, Reader, natural, readable
from selftaught.data.stored import Resident, Stored
from selftaught.errors import NoTestPart, UserError, unknown

Split = Literal["all", "train", "test"]

LARGEST = 160
"""Pixels along the stored squares where nobody asks for another side."""
PEEK = 100
"""Images whose size is looked at to learn the native one."""
TEST_SHARE = 0.2
SPLIT_SEED = 0
"""Of the split of images that come without one. Not the user's seed: what one run trained on, no other may test on."""


def open_source(
    spec: Spec,
    *,
    side: int | None = None,
    split: Split = "train",
    limit: int | None = None,
    seed: int = 0,
    labels: Path | None = None,
    unlabelled: bool = False,
    cache: Path | None = None,
) -> Stored:
    """Open images by name or path, decoding them on first use.

    Args:
        spec: a folder, a `.parquet` file or a folder of them, or a known name (see `list_sources`).
        side: pixels along the stored squares, at most those of the images themselves (the median short side);
            None for at most 160.
        split: which part. Where the images come without one and have labels, every class is split 80 : 20, always in
            the same way; without labels "train" is everything.
        limit: take a random part of this many images, and decode only these.
        seed: of that part.
        labels: CSV file with the columns path and label; images that it does not name have none.
        unlabelled: keep images that have no label where others do, with a label of -1, as pretraining can learn from
            them; they are never of the test part. Otherwise they are left out.
        cache: where decoded images are kept; None for $SELFTAUGHT_CACHE or ~/.cache/selftaught.

    Raises:
        UserError: there is no such source, it is empty or mostly broken, or has no such part.
    """
    wish = _Wish(side, limit, seed, labels, cache, unlabelled)
    splits = _readers(spec, wish)
    return _open(splits, split, _settled(splits, wish))


def open_splits(
    spec: Spec,
    *,
    side: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    labels: Path | None = None,
    cache: Path | None = None,
) -> tuple[Stored, Stored]:
    """Open the train and the test part of a source; arguments as for `open_source`, `limit` for each of them."""
    wish = _Wish(side, limit, seed, labels, cache)
    splits = _readers(spec, wish)
    wish = _settled(splits, wish)
    train, test = _open(splits, "train", wish), _open(splits, "test", wish)
    _require_comparable(train, test)
    return train, test


def _require_comparable(train: Stored, test: Stored) -> None:
    """Refuse parts that a probe would score without meaning: one class, or none that both have.

    Raises:
        UserError: they are such.
    """
    if train.labels is None or test.labels is None or train.classes is None or test.classes is None:
        return
    taught = {train.classes[label] for label in set(train.labels.tolist())}
    judged = {test.classes[label] for label in set(test.labels.tolist())}
    if len(taught) < 2:
        raise UserError(
            f"images to probe on must have two or more classes, found {len(taught)} in {train.name}: take more images, "
            f"or add labels."
        )
    if not taught & judged:
        first, second = (readable(min(names, key=natural)) for names in (taught, judged))
        raise UserError(
            f"the train and test parts must have classes in common, found none (such as {first!r} and {second!r}) in "
            f"{train.name}: name their classes alike."
        )


@dataclass(frozen=True)
class _Wish:
    """What the caller asked for, as in `open_source`."""

    side: int | None
    limit: int | None
    seed: int
    labels: Path | None
    cache: Path | None
    unlabelled: bool = False
    ranges: Ranges = NOMINAL
    """Value ranges of the whole source, for images that are not 8-bit."""
    pixels: dict[str, Resident] = field(default_factory=dict)
    """Arrays opened so far: two parts of one array are resident once."""


def _readers(spec: Spec, wish: _Wish) -> dict[str, Reader]:
    """The readers of a source by split: always "all", and "train" and "test" where it comes with both."""
    splits = _found(spec, wish.cache)
    if not len(splits["all"]):
        raise UserError(f"a source must have at least one image, found none in {splits['all'].name}: check it.")
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits["validation"]
    if not {"train", "test"} <= set(splits):
        splits = {"all": splits["all"]}
    return relabelled(splits, wish.labels) if wish.labels else splits


def _found(spec: Spec, cache: Path | None) -> dict[str, Reader]:
    """What a spec means. A path is meant when it exists, has a separator or ends like one; else a name."""
    given = words(spec)
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
        if not (files := parquet_files(path)):
            return folder_splits(path)
        try:
            return parquet_splits(path, files)
        except UserError:
            with suppress(UserError):  # a table that lies beside images is about them and does not hold them
                return folder_splits(path)
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
    if word == "digits" or word in KNOWN:
        return known_splits(word, cache and cache / "downloads")
    if path.suffix in (".parquet", ".tar", ".zip") or os.sep in word or "/" in word:
        raise _nothing_at(path, word)
    raise unknown("source", readable(word), ["digits", *KNOWN, *PHOTOS])


def _nothing_at(path: Path, word: str) -> UserError:
    """The error for a path that leads nowhere, with the near one beside it."""
    neighbours: list[str] = []
    with suppress(OSError):  # no folder, or none that may be read
        neighbours = os.listdir(path.parent)  # noqa: PTH208
    near = get_close_matches(path.name, neighbours, n=1)
    hint = f"did you mean {readable(str(path.with_name(near[0])))!r}?" if near else "look for a misspelling."
    return UserError(f"a path must lead to images, found nothing at {readable(word)!r}: {hint}")


def _settled(splits: Mapping[str, Reader], wish: _Wish) -> _Wish:
    """Decide what all parts of a source share: the side of its stored squares and its value ranges."""
    ranges = source_ranges(splits["all"], wish.cache or cache_folder())
    return replace(wish, side=_side(splits, wish.side), ranges=ranges)


def _side(splits: Mapping[str, Reader], side: int | None) -> int:
    """Pixels along the stored squares: what is wanted, but never more than the images have."""
    if side is not None and side < 1:
        raise UserError(f"the side of stored images must be at least 1 pixel, found {side}: give a larger one.")
    reader = splits.get("train", splits["all"])
    # ten runs of neighbours, not a hundred places: a parquet file is read by row groups
    starts = np.linspace(0, max(len(reader) - PEEK // 10, 0), 10).astype(np.int64)
    indices = np.unique(starts[:, None] + np.arange(PEEK // 10))
    sides = [found for raw in reader.stream(indices[indices < len(reader)]) if (found := short_side(raw))]
    native = int(np.median(sides)) if sides else LARGEST
    return min(native, LARGEST if side is None else side)


def _open(splits: Mapping[str, Reader], split: Split, wish: _Wish) -> Stored:
    """Decode one part and make it a source. `wish` is settled."""
    assert wish.side is not None
    reader, wanted, note = _part(splits, split)
    if wish.labels and reader.labels is not None and not wish.unlabelled:  # who is not named is left out silently
        wanted = wanted[reader.labels[wanted] != UNLABELLED]
    if not len(wanted):
        named = f" that {readable(str(wish.labels))} names" if wish.labels else ""
        raise UserError(
            f"a source must have at least one image{named}, found none in the {split} part of {reader.name}: see what "
            f"belongs to it."
        )
    if wish.limit is not None:
        wanted = _limited(wanted, wish.limit, wish.seed)
    # the two parts of a split by label are cut out of one cache; a limited part is decoded alone
    alone = wish.limit is not None or wish.labels is not None
    found = decoded(reader, wish.side, wanted if alone else None, wish.cache, wish.ranges)
    usable, skipped = _usable(reader, found, wanted, wish.unlabelled)
    if len(skipped) > usable.sum() or not usable.any():
        first = f", such as {skipped[0][0]!r}, which {skipped[0][1]}" if skipped else ""
        raise UserError(
            f"at least half of the images of a source must be usable, found {usable.sum()} of {len(wanted)} in "
            f"{reader.name}{first}: mend or remove the others."
        )
    labels = None if reader.labels is None else torch.from_numpy(reader.labels[found.kept[usable]])
    name = f"{reader.name} ({note})" if note else reader.name
    pixels = wish.pixels.setdefault(found.key, Resident(found.images))
    rows = torch.from_numpy(np.flatnonzero(usable))
    content_ids = torch.from_numpy(found.content_ids[usable])
    notes = (*wish.ranges.notes(), *reader.notes)
    return Stored(name, pixels, rows, labels, reader.classes, found.key, skipped, content_ids, notes)


def _usable(
    reader: Reader, found: Decoded, wanted: Indices, unlabelled: bool
) -> tuple[NDArray[np.bool_], tuple[tuple[str, str], ...]]:
    """Which decoded images are wanted (and have a label, where others do); name and reason of the wanted that fail."""
    lost, usable = dict(found.skipped), np.isin(found.kept, wanted)
    broken = np.intersect1d(wanted, np.fromiter(lost, np.int64, len(lost)))
    skipped = [(reader.title(index), lost[index]) for index in broken.tolist()]
    if reader.labels is not None and not unlabelled:
        bad = usable & (reader.labels[found.kept] == UNLABELLED)
        skipped += [
            (reader.title(index), "has no label, or one that is no class") for index in found.kept[bad].tolist()
        ]
        usable &= ~bad
    return usable, tuple((readable(title), reason) for title, reason in skipped)


def _part(splits: Mapping[str, Reader], split: Split) -> tuple[Reader, Indices, str]:
    """The reader of a split, which of its images belong to it, and what to tell of how it was made."""
    if split not in ("all", "train", "test"):
        raise unknown("split", split, ["all", "train", "test"])
    reader = splits.get(split, splits["all"])
    everything = np.arange(len(reader))
    if split in splits:
        return reader, everything, "" if split == "all" else split
    if reader.labels is not None:
        share = round(100 * (TEST_SHARE if split == "test" else 1 - TEST_SHARE))
        chosen = everything[_stratified(reader.labels) == (split == "test")]
        return reader, chosen, f"{split}, {share} % of every class"
    if split == "train":
        return reader, everything, ""
    why = f" ({'; '.join(reader.notes)})" if reader.notes else ""
    raise NoTestPart(
        f"a source must have a test part, or labels to split it by, found neither in {reader.name}{why}: "
        f"put images into train and test folders, or give --labels."
    )


def _stratified(labels: Indices) -> NDArray[np.bool_]:
    """Which images are for testing: the same share of every class, and at least one of it where it has two."""
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    test = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels[labels != UNLABELLED]):  # who has none judges nothing, but can be learned from
        members = np.flatnonzero(labels == label)
        count = max(round(len(members) * TEST_SHARE), int(len(members) > 1))
        test[members[torch.randperm(len(members), generator=generator)[:count].numpy()]] = True
    return test


def _limited(indices: Indices, limit: int, seed: int) -> Indices:
    """A random part, in the same order; all where there are not so many."""
    if limit < 1:
        raise UserError(f"--limit must be at least 1 image, found {limit}: leave it out to take all.")
    limit = min(limit, len(indices))
    drawn = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))[:limit]
    return indices[drawn.sort().values.numpy()]
