"""Drawn data sets: discs of two colors on gray noise, with boxes in VOC's and COCO's layout and with masks."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {"blue": (30, 60, 220), "red": (220, 50, 40)}
SIZE = (64, 48)
"""Width and height."""


def disc_image(seed: int) -> tuple[np.ndarray, np.ndarray, list[tuple[str, tuple[int, int, int, int]]]]:
    """Pixels (H, W, 3), mask (H, W) of 0 for the background, 1 for blue and 2 for red, and the boxes."""
    rng = np.random.default_rng(seed)
    width, height = SIZE
    pixels = rng.integers(110, 140, (height, width, 3)).astype(np.uint8)
    mask, objects = np.zeros((height, width), np.uint8), []
    rows, columns = np.mgrid[:height, :width]
    for number, (name, color) in enumerate(COLORS.items()):
        radius = int(rng.integers(8, 12))
        x = int(rng.integers(radius, width // 2 - radius)) + number * width // 2
        y = int(rng.integers(radius, height - radius))
        inside = (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 < radius**2
        pixels[inside], mask[inside] = color, number + 1
        objects.append((name, (x - radius, y - radius, x + radius, y + radius)))
    return pixels, mask, objects


def voc_xml(objects, size=SIZE, head: str = "") -> str:
    """VOC counts from 1 and includes the last pixel."""
    items = "".join(
        f"<object><name>{name}</name><difficult>{int(name.endswith('?'))}</difficult><bndbox><xmin>{x1 + 1}</xmin>"
        f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in objects
    )
    size = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"{head}<annotation>{size}{items}</annotation>"


def draw_voc(root: Path, train: int = 4, val: int = 2, test: int = 4) -> Path:
    """VOC's layout, with boxes and masks."""
    for folder in ("Annotations", "JPEGImages", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    number = 0
    for split, count in (("train", train), ("val", val), ("test", test)):
        names = []
        for _ in range(count):
            pixels, mask, objects = disc_image(number)
            names.append(name := f"{number:03}")
            Image.fromarray(pixels).save(root / f"JPEGImages/{name}.png")
            paletted = Image.fromarray(mask)
            paletted.putpalette([0, 0, 0, 30, 60, 220, 220, 50, 40])
            paletted.save(root / f"SegmentationClass/{name}.png")
            (root / f"Annotations/{name}.xml").write_text(voc_xml(objects))
            number += 1
        for kind in ("Main", "Segmentation"):
            (root / f"ImageSets/{kind}/{split}.txt").write_text("".join(f"{name}\n" for name in names))
    (root / "classes.txt").write_text("background\nblue\nred\n")
    return root


def draw_coco(root: Path, counts=(("train", 4), ("val", 2))) -> Path:
    """COCO's layout."""
    (root / "annotations").mkdir(parents=True)
    number = 0
    for split, count in counts:
        content = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "red"}, {"id": 3, "name": "blue"}]}
        (root / f"{split}2017").mkdir()
        for _ in range(count):
            pixels, _, objects = disc_image(number)
            Image.fromarray(pixels).save(root / f"{split}2017/{number}.png")
            image = {"id": 100 + number, "file_name": f"{number}.png", "width": SIZE[0], "height": SIZE[1]}
            content["images"].append(image)
            for name, (x1, y1, x2, y2) in objects:
                content["annotations"].append(
                    {"image_id": 100 + number, "category_id": {"red": 7, "blue": 3}[name], "iscrowd": 0,
                     "bbox": [x1, y1, x2 - x1, y2 - y1]}
                )  # fmt: skip
            number += 1
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))
    return root
