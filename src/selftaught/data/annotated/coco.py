"""Boxes in the layout of COCO: one JSON file per split, with images, annotations and categories.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014. Files are looked for as annotations/*train*.json,
*train*.json or train/*.json, and the same for val and test; images beside the file, in a folder named after the split
(train2017/, images/train/) or in images/.
"""

import re
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from selftaught.data.annotated.images import BoxedImage, checked_boxes, require_size, upright_size
from selftaught.data.annotated.parts import split_of
from selftaught.errors import UserError, readable

Name = Annotated[str, Field(min_length=1, max_length=1000)]


class CocoImage(BaseModel):
    """An entry of `images`."""

    id: int
    file_name: Name
    width: Annotated[int, Field(ge=1)] | None = None
    height: Annotated[int, Field(ge=1)] | None = None


class CocoBox(BaseModel):
    """An entry of `annotations`; `bbox` is x, y, width and height in pixels."""

    image_id: int
    category_id: int
    bbox: Annotated[list[float], Field(min_length=4, max_length=4)]
    iscrowd: Annotated[int, Field(ge=0, le=1)] = 0


class CocoCategory(BaseModel):
    """An entry of `categories`."""

    id: int
    name: Name


class CocoFile(BaseModel):
    """The parts of a file that detection needs."""

    images: list[CocoImage]
    annotations: list[CocoBox]
    categories: list[CocoCategory]


def coco_files(root: Path) -> dict[str, Path]:
    """The annotation file of each split; empty if the folder does not have COCO's layout.

    Raises:
        UserError: a split has several files.
    """
    by_split: dict[str, list[Path]] = defaultdict(list)
    for file in sorted([*root.glob("annotations/*.json"), *root.glob("*.json"), *root.glob("*/*coco*.json")]):
        words = [*re.split(r"[^A-Za-z0-9]+", file.stem), file.parent.name]
        split = next((split for word in words if (split := split_of(word))), None)
        if split and file not in by_split[split]:
            by_split[split].append(file)
    files = {}
    for split, candidates in by_split.items():
        instances = [file for file in candidates if file.name.startswith("instances")] or candidates
        if len(instances) > 1:
            raise UserError(
                f"{readable(str(root))} has several annotation files for {split}, such as "
                f"{readable(instances[0].name)} and {readable(instances[1].name)}: keep one."
            )
        files[split] = instances[0]
    return files


def coco_splits(root: Path) -> dict[str, list[BoxedImage]]:
    """The images by split.

    Raises:
        UserError: a file or image is missing or invalid.
    """
    return {split: _images(root, file) for split, file in coco_files(root).items()}


def _images(root: Path, file: Path) -> list[BoxedImage]:
    content, place = _parsed(file), readable(file.name)
    names = {category.id: category.name for category in content.categories}
    known = {image.id for image in content.images}
    boxes: dict[int, list[CocoBox]] = defaultdict(list)
    for box in content.annotations:
        if box.category_id not in names or box.image_id not in known:
            what = "a category" if box.category_id not in names else "an image"
            raise UserError(f"{place} has an annotation of {what} that it does not list: correct the file.")
        boxes[box.image_id].append(box)
    return [_boxed(root, file, image, boxes[image.id], names) for image in content.images]


def _boxed(root: Path, file: Path, image: CocoImage, boxes: list[CocoBox], names: dict[int, str]) -> BoxedImage:
    place = f"{readable(image.file_name)} in {readable(file.name)}"
    path = _located(root, file, image.file_name)
    size = upright_size(path)
    if image.width and image.height and (image.width, image.height) != size:
        require_size((image.width, image.height), path, f"the entry of {place}")
    corners = [(x, y, x + width, y + height) for x, y, width, height in (box.bbox for box in boxes)]
    return BoxedImage(
        path,
        checked_boxes(corners, size, place),
        tuple(names[box.category_id] for box in boxes),
        np.array([box.iscrowd for box in boxes], bool),
    )


def _located(root: Path, file: Path, name: str) -> Path:
    """The image of an entry, below the data set."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(
            f"{readable(file.name)} names the image {readable(name)!r} outside of --data: correct the file."
        )
    word = next((word for word in re.split(r"[^A-Za-z0-9]+", file.stem) if split_of(word)), "")
    folders = [file.parent, root / word, root / "images" / word, root / "images", root]
    image = next((path for folder in folders if (path := folder / name).is_file()), None)
    if image is None:
        raise UserError(
            f"{readable(str(root))} has no image {readable(name)!r}, which {readable(file.name)} lists: add it."
        )
    return image


def _parsed(file: Path) -> CocoFile:
    content = file.read_bytes()
    if not content.strip():
        raise UserError(f"{readable(str(file))} is empty: it must list images, annotations and categories.")
    try:
        return CocoFile.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        reason = readable(f"{where}: {first['msg']}" if where else str(first["msg"]))[:150]
        raise UserError(f"{readable(str(file))} is not a valid COCO file ({reason}): correct the file.") from error
