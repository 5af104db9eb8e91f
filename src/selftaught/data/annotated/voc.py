"""Boxes in the layout of PASCAL VOC: Annotations/*.xml, ImageSets/Main/SPLIT.txt, JPEGImages/.

Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010. VOC counts pixels from 1 and includes
the last one, so a box of xmin to xmax covers xmin - 1 to xmax here.
"""

from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.annotated.images import BoxedImage, checked_boxes, find_image, require_size, upright_size
from selftaught.errors import UserError, readable

MAX_XML = 2**24
"""Maximum size of an annotation in bytes."""
LISTS = {"train": "train", "val": "validation", "test": "test"}
"""Lists of images in ImageSets, and their splits."""


def is_voc(root: Path) -> bool:
    """Whether a folder has VOC's layout."""
    return (root / "Annotations").is_dir() and (root / "JPEGImages").is_dir()


def voc_splits(root: Path) -> dict[str, list[BoxedImage]]:
    """The images by split; "all" where there are no lists.

    Raises:
        UserError: an annotation or image is missing or invalid.
    """
    names = listed_names(root, "Main") or {"all": sorted(path.stem for path in (root / "Annotations").glob("*.xml"))}
    if not any(names.values()):
        raise UserError(f"{readable(str(root / 'Annotations'))} has no annotations (*.xml): add them.")
    return {split: [_boxed(root, name) for name in listed] for split, listed in names.items()}


def listed_names(root: Path, kind: str) -> dict[str, list[str]]:
    """The names of images in ImageSets/KIND by split: train and val, or trainval alone; empty if there are no lists."""
    folder = root / "ImageSets" / kind
    files = {split: folder / f"{name}.txt" for name, split in LISTS.items()}
    if not files["train"].is_file():
        files = {"train": folder / "trainval.txt", "test": files["test"]}
    if not files["train"].is_file():
        return {}
    return {split: _names(file) for split, file in files.items() if file.is_file()}


def _names(file: Path) -> list[str]:
    names = [line.split()[0] for line in file.read_text("utf-8", "surrogateescape").splitlines() if line.strip()]
    if bad := [name for name in names if "/" in name or "\\" in name or name.startswith(".")]:
        raise UserError(f"{readable(str(file))} must list names of images without folders, got {readable(bad[0])!r}.")
    return list(dict.fromkeys(names))


def _boxed(root: Path, name: str) -> BoxedImage:
    file, image = root / "Annotations" / f"{name}.xml", find_image(root / "JPEGImages", name)
    if not file.is_file():
        raise UserError(f"{readable(str(file))} is missing, but the image is listed: annotate the image or remove it.")
    if image is None:
        raise UserError(
            f"{readable(str(root / 'JPEGImages'))} has no image {readable(name)!r}, which is listed: add it."
        )
    place, document = readable(file.name), parse_xml(file)
    size = upright_size(image)
    given = _given_size(document)
    if given is not None and given != size:
        require_size(given, image, place)
    boxes, names, ignored = [], [], []
    for number, item in enumerate(document.findall("object"), 1):
        title = (item.findtext("name") or "").strip()
        try:
            x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
        except (TypeError, ValueError):
            title = ""
        if not title:
            raise UserError(f"object {number} of {place} needs a name and a bndbox of four numbers: correct the file.")
        boxes.append((x1 - 1, y1 - 1, x2, y2))
        names.append(title)
        ignored.append((item.findtext("difficult") or "0").strip() == "1")
    return BoxedImage(image, checked_boxes(boxes, size, place), tuple(names), np.array(ignored, bool))


def parse_xml(file: Path) -> Any:
    """The root of an XML document; document types, entities and everything external are refused.

    Raises:
        UserError: the file is empty, too large, no XML or has a document type; or defusedxml is not installed.
    """
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import ParseError, fromstring
    except ImportError as error:
        raise UserError("VOC annotations need defusedxml: install selftaught[detection].") from error
    with file.open("rb") as opened:
        content = opened.read(MAX_XML + 1)
    if not content.strip():
        raise UserError(
            f"{readable(str(file))} is empty: an image without objects needs an annotation without objects."
        )
    if len(content) > MAX_XML:
        raise UserError(f"{readable(str(file))} is larger than {MAX_XML:,} bytes: it is no annotation of one image.")
    try:
        return fromstring(content, forbid_dtd=True)
    except DefusedXmlException as error:
        raise UserError(
            f"{readable(str(file))} has a document type or entities, which are refused because they can read other "
            "files or expand without limit: remove the DOCTYPE."
        ) from error
    except (ParseError, ValueError, LookupError) as error:
        reason = readable(" ".join(str(error).split()))[:100]
        raise UserError(f"{readable(str(file))} is not valid XML ({reason}): restore the file.") from error


def _given_size(document: Any) -> tuple[int, int] | None:
    """Width and height in an annotation; None if it has none or, as some tools write, zeros."""
    try:
        width, height = (int(float(document.findtext(f"size/{side}"))) for side in ("width", "height"))
    except (TypeError, ValueError, OverflowError):
        return None
    return (width, height) if width and height else None
