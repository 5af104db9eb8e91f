"""Open images with boxes, in VOC's or COCO's layout."""

from collections.abc import Sequence
from pathlib import Path

from selftaught.data.annotated.coco import coco_files, coco_splits
from selftaught.data.annotated.images import BoxedImage
from selftaught.data.annotated.parts import Parts, make_parts, require_classes, require_folder
from selftaught.data.annotated.source import BoxSource
from selftaught.data.annotated.voc import is_voc, voc_splits
from selftaught.errors import UserError, readable


def open_boxes(data: str | Path, side: int) -> Parts[BoxSource]:
    """Open a data set for detection.

    Args:
        data: a folder in VOC's layout (Annotations, ImageSets, JPEGImages) or COCO's (a JSON file per split).
        side: side of the canvases in pixels, to which the longer side of every image is resized.

    Raises:
        UserError: there are no annotations, or one of them is invalid.
    """
    root = require_folder(data)
    if is_voc(root):
        splits = voc_splits(root)
    elif coco_files(root):
        splits = coco_splits(root)
    else:
        raise UserError(
            f"{readable(str(root))} has no boxes: use VOC's layout (Annotations, ImageSets, JPEGImages) or COCO's "
            "(annotations/*train*.json and *val*.json)."
        )
    parts = make_parts(splits, lambda item: item.path.name, readable(str(root)))
    named = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    classes = require_classes({part: _classes(items) for part, items in named.items()}, readable(str(root)))
    if not _classes(parts.test):
        raise UserError(f"no test image of {readable(str(root))} has an object: annotate some of them.")
    empty = sum(not len(item.boxes) for items in named.values() for item in items)
    notes = [parts.note, f"{empty:,} images have no objects: they are background" if empty else ""]
    sources = {part: BoxSource(f"{root} ({part})", items, side, classes) for part, items in named.items()}
    return Parts(**sources, note="; ".join(note for note in notes if note))


def _classes(items: Sequence[BoxedImage]) -> set[str]:
    return {name for item in items for name, ignored in zip(item.names, item.ignored, strict=True) if not ignored}
