"""Open images with masks of class numbers: VOC's SegmentationClass, or pairs of files in images/ and masks/."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selftaught.data.annotated.images import find_image, upright_size
from selftaught.data.annotated.parts import Parts, make_parts, require_folder, split_of
from selftaught.data.annotated.source import IGNORED, MaskSource
from selftaught.data.annotated.voc import listed_names
from selftaught.data.opening import open_image
from selftaught.display.progress import Meter
from selftaught.errors import UserError, readable

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class Pair(NamedTuple):
    """An image and its mask."""

    image: Path
    mask: Path


def open_masks(data: str | Path, side: int) -> Parts[MaskSource]:
    """Open a data set for segmentation.

    Masks are PNGs of class numbers, with or without a palette; 255 is ignored. Class names are in classes.txt, one per
    line; without it they are VOC's in VOC's layout, and otherwise numbers up to the largest of the training masks.

    Args:
        data: a folder with JPEGImages, SegmentationClass and ImageSets/Segmentation; or with images and masks, each
            with train, val and test folders, or inside such folders, or without.
        side: side of the canvases in pixels, to which the longer side of every image is resized.

    Raises:
        UserError: there are no masks, or one of them is invalid.
    """
    root = require_folder(data)
    place = readable(str(root))
    parts = make_parts(_splits(root), lambda pair: pair.mask.name, place)
    named = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    classes = _classes(root)
    sources = {}
    for part, pairs in named.items():
        largest, digest = _checked(pairs, classes, place)
        if classes is None:  # the training part comes first
            classes = tuple(map(str, range(max(2, largest + 1))))
        masks = [pair.mask for pair in pairs]
        sources[part] = MaskSource(
            f"{root} ({part})", [pair.image for pair in pairs], masks, side, classes, load_mask, digest
        )
    return Parts(**sources, note=parts.note)


def load_mask(path: Path) -> NDArray[np.uint8]:
    """The class numbers of a mask, (H, W).

    Raises:
        UserError: it cannot be read, or is no image of one 8-bit channel.
    """
    try:
        with open_image(path) as image:
            mode = image.mode
            if mode in ("P", "L"):
                return np.array(image)
    except Exception as error:  # Pillow raises almost any exception for damaged files
        raise UserError(f"cannot read the mask {readable(str(path))}: restore the file.") from error
    raise UserError(
        f"the mask {readable(str(path))} must have one 8-bit channel of class numbers (mode L or P), got {mode}: "
        "convert it."
    )


def _splits(root: Path) -> dict[str, list[Pair]]:
    voc = root / "SegmentationClass"
    if voc.is_dir() and (root / "JPEGImages").is_dir():
        names = listed_names(root, "Segmentation") or {"all": sorted(path.stem for path in voc.glob("*.png"))}
        return {split: [_pair(root / "JPEGImages", voc, name) for name in listed] for split, listed in names.items()}
    folders = {
        split: (root / word / "images", root / word / "masks")
        for word in sorted(path.name for path in root.iterdir())
        if (split := split_of(word)) and (root / word / "masks").is_dir()
    } or {
        split: (root / "images" / word, root / "masks" / word)
        for word in (sorted(path.name for path in (root / "masks").iterdir()) if (root / "masks").is_dir() else [])
        if (split := split_of(word))
    }
    if not folders and (root / "masks").is_dir():
        folders = {"all": (root / "images", root / "masks")}
    splits = {
        split: [_pair(images, masks, path.stem) for path in sorted(masks.glob("*.png"))]
        for split, (images, masks) in folders.items()
    }
    if not any(splits.values()):
        raise UserError(
            f"{readable(str(root))} has no masks: use VOC's layout (JPEGImages, SegmentationClass, ImageSets) or the "
            "folders images and masks, with a PNG of the same name for every image."
        )
    return splits


def _pair(images: Path, masks: Path, name: str) -> Pair:
    image, mask = find_image(images, name), masks / f"{name}.png"
    if image is None or not mask.is_file():
        there, absent = (mask, "image") if image is None else (image, "mask")
        raise UserError(f"{readable(str(there))} has no {absent} of the same name: add it or remove the file.")
    return Pair(image, mask)


def _classes(root: Path) -> tuple[str, ...] | None:
    file = root / "classes.txt"
    if file.is_file():
        names = tuple(line.strip() for line in file.read_text("utf-8", "replace").splitlines() if line.strip())
        if not 2 <= len(set(names)) == len(names) <= IGNORED:
            raise UserError(f"{readable(str(file))} must list 2 to 255 different class names, got {len(names)}.")
        return names
    return VOC_CLASSES if (root / "SegmentationClass").is_dir() else None


def _checked(pairs: Sequence[Pair], classes: tuple[str, ...] | None, place: str) -> tuple[int, bytes]:
    """Check every mask; the largest class number and a digest of all masks."""
    largest, digest, labeled = 0, hashlib.blake2b(repr(classes).encode(), digest_size=16), False
    with Meter(f"checking masks of {place}", len(pairs)) as meter:
        for pair in pairs:
            mask, size = load_mask(pair.mask), upright_size(pair.image)
            if mask.shape != size[::-1]:
                raise UserError(
                    f"the mask {readable(str(pair.mask))} has {mask.shape[1]:,} x {mask.shape[0]:,} pixels, but its "
                    f"image has {size[0]:,} x {size[1]:,}: give both the same size."
                )
            numbers = np.unique(mask[mask != IGNORED])
            most = int(numbers[-1]) if len(numbers) else 0
            if classes is not None and most >= len(classes):
                raise UserError(
                    f"the mask {readable(str(pair.mask))} has the class number {most}, but there are {len(classes)} "
                    f"classes (0 to {len(classes) - 1}; 255 is ignored): correct the mask, or add classes.txt."
                )
            largest, labeled = max(largest, most), labeled or bool(len(numbers))
            digest.update(mask.tobytes())
            meter.advance()
    if not labeled:
        raise UserError(f"all masks of a part of {place} are ignored (255): label some pixels.")
    return largest, digest.digest()
