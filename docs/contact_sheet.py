"""Draw a contact sheet of rendered scenes: image, depth, normals and contours side by side.

    selftaught render --scenes 32 --size 64 --out scenes
    python docs/contact_sheet.py scenes --out docs/scenes.jpg

Depth is drawn on a logarithmic scale for each scene, near is bright; x, y and z of normals are red, green and blue, so
surfaces that face right, up or the camera are red, green or blue. What is undefined is black.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import selftaught


def main() -> None:
    """Draw the first scenes of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="folder of scenes")
    parser.add_argument("--out", type=Path, required=True, help="image file")
    parser.add_argument("--scenes", type=int, default=32, help="number of scenes")
    parser.add_argument("--columns", type=int, default=4, help="scenes per row")
    options = parser.parse_args()
    source = selftaught.open_source(options.source)
    batch = source.batch(torch.arange(min(options.scenes, len(source))), torch.device("cpu"))
    sheet = draw(batch.images.float() / 255, batch.targets, options.columns)
    pixels = (sheet * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(options.out, quality=88)


def draw(images: Tensor, targets: dict[str, Tensor], columns: int) -> Tensor:
    """Draw scenes in rows: (3, H, W) in [0, 1].

    Args:
        images: (n, 3, S, S) in [0, 1].
        targets: `depth`, `normals` and `contours` of these images.
        columns: scenes per row.
    """
    pictures = (
        images,
        nearness(targets["depth"]).expand_as(images),
        (targets["normals"] + 1) / 2 * (targets["normals"] != 0).any(1, keepdim=True),
        targets["contours"].expand_as(images),
    )
    cells = torch.cat(pictures, 3)
    missing = -len(cells) % columns
    cells = torch.cat((cells, cells.new_ones(missing, *cells.shape[1:])))
    rows = [torch.cat(list(row), 2) for row in cells.split(columns)]
    return torch.cat(rows, 1)


def nearness(depth: Tensor) -> Tensor:
    """Depth on a logarithmic scale: 1 for the nearest pixel of an image, 0.15 for the farthest, 0 where undefined."""
    valid = depth > 0
    log = depth.clamp(min=1e-3).log()
    low = torch.where(valid, log, torch.inf).amin((2, 3), keepdim=True)
    high = torch.where(valid, log, -torch.inf).amax((2, 3), keepdim=True)
    return torch.where(valid, 1 - 0.85 * (log - low) / (high - low).clamp(min=1e-6), 0)


if __name__ == "__main__":
    main()
