"""Cues: what tells something of an image without looking at what it shows, taken out of images or planted in them.

Fringes of lenses, blocks of JPEG, the grain that resampling leaves, dark corners, light from above: a pretext task can
be solved by each of them. Every function takes images as they are stored, before a task makes views of them.

A plant is told by a control: the same damage without its pattern. Only what a plant does beyond its control is the
cue's; both do damage, and any net does worse on images that it never saw the like of.

Not here: borders that a task makes itself (gaps between tiles): those are its `guards`.
"""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from selftaught.augment.color import LUMA
from selftaught.augment.warp import affine, to_device

FRINGE = 0.02
"""Red is magnified by this more than green, blue by this less: a poor lens, but small images must show it too."""
RADIUS = (math.sqrt(2) + math.log(1 + math.sqrt(2))) / 3
"""Mean distance of a point of the square from its centre, in half sides: how far a fringe of 1 moves a pixel."""
QUALITY = 30
"""Of JPEG: blocks can be seen."""
BLOCK = 8
"""Pixels along a block of JPEG."""
FADE = 0.4
"""Share of the light that is lost on the side away from a lamp."""
CORNER = 0.5
"""Share of the light that a vignette takes from a corner; a third of it is lost in the mean."""


def grey(images: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, S, S) without colour, and so without fringes."""
    return (images * to_device(LUMA, images.device)[:, None, None]).sum(1, keepdim=True).expand_as(images)


def blurred(images: Tensor, generator: torch.Generator, deviation: float = 1.0) -> Tensor:
    """Through a Gaussian of `deviation` pixels: no block, no grain and no trace of resampling is left."""
    reach = math.ceil(3 * deviation)
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.softmax(-offsets.square() / (2 * deviation**2), 0)
    kernel = weights.expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    across = F.conv2d(padded, kernel, groups=images.shape[1])
    return F.conv2d(across, kernel.transpose(2, 3), groups=images.shape[1])


def noisy(images: Tensor, generator: torch.Generator, deviation: float = 0.05) -> Tensor:
    """Under Gaussian noise, each colour of each pixel its own: grain drowns."""
    drawn = torch.randn(images.shape, generator=generator)
    return (images + deviation * to_device(drawn, images.device)).clamp(0, 1)


def resampled(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shrunk to two thirds and magnified again: what grain there was is that of this resampling."""
    side = images.shape[-1]
    small = F.interpolate(images, size=max(1, round(side * 2 / 3)), mode="bilinear", antialias=True)
    return F.interpolate(small, size=side, mode="bilinear")


def middle(images: Tensor, generator: torch.Generator) -> Tensor:
    """Without the outermost twentieth on every side, the rest magnified to fill the square: no frame is left."""
    side = images.shape[-1]
    cut = max(1, round(side / 20))
    return F.interpolate(images[..., cut:-cut, cut:-cut], size=side, mode="bilinear")


def fringed(images: Tensor, generator: torch.Generator, by: float = FRINGE) -> Tensor:
    """Lateral chromatic aberration: red larger than green by the share `by`, blue smaller; negative the other way."""
    scale = 1 / torch.tensor([1 + by, 1.0, 1 - by]).repeat(len(images))
    return _each_color(images, affine(width=scale, height=scale, count=len(scale)))


def apart(images: Tensor, generator: torch.Generator, by: float = FRINGE * RADIUS) -> Tensor:
    """Red and blue moved apart by 2 * `by` half sides, each image in its own direction: fringes that say nothing."""
    angle = 2 * math.pi * torch.rand(len(images), 1, generator=generator)
    distance = torch.tensor([by, 0.0, -by])
    x, y = ((distance * along).flatten() for along in (angle.cos(), angle.sin()))
    return _each_color(images, affine(x=x, y=y, count=len(x)))


def _each_color(images: Tensor, matrix: Tensor) -> Tensor:
    """Every colour of (B, 3, S, S) seen through a matrix of its own, (B * 3, 3, 3); no pyramid: it moves by pixels."""
    planes = images.flatten(0, 1)[:, None]
    grid = F.affine_grid(to_device(matrix[:, :2], images.device), list(planes.shape), align_corners=False)
    seen = F.grid_sample(planes, grid.to(images.dtype), padding_mode="reflection", align_corners=False)
    return seen.reshape(images.shape)


def jpeg(images: Tensor, generator: torch.Generator, shift: int = 0) -> Tensor:
    """Through JPEG at quality 30, on the CPU, the grid of its blocks moved by `shift` pixels to the right and down.

    Colours are kept at full resolution: halved, they lie in blocks of 16, which half a block of 8 does not move alike,
    and a net that reads fringes was found to read these too.
    """
    before = (BLOCK - shift) % BLOCK
    padded = F.pad(images, (before, 0, before, 0), mode="replicate")
    pixels = (255 * padded.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    coded = torch.from_numpy(np.stack([_coded(image) for image in pixels])).permute(0, 3, 1, 2)
    return to_device(coded, images.device)[..., before:, before:].to(images.dtype) / 255


def _coded(image: np.ndarray) -> np.ndarray:
    """One (H, W, 3) uint8 image, written and read."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=QUALITY, subsampling=0)
    with Image.open(file) as read:
        return np.asarray(read)


def vignette(images: Tensor, generator: torch.Generator) -> Tensor:
    """Darker with the square of the distance from the centre."""
    place = _places(images).square()
    return images * (1 - CORNER * (place[:, None] + place) / 2)


def dimmed(images: Tensor, generator: torch.Generator) -> Tensor:
    """As much darker as a vignette is in the mean, everywhere alike."""
    return images * (1 - CORNER / 3)


def lit(images: Tensor, generator: torch.Generator, above: bool = True) -> Tensor:
    """As if a lamp stood above the image, or below: light fades from one edge to the other."""
    away = (1 + (1 if above else -1) * _places(images)) / 2
    return images * (1 - FADE * away[:, None])


def _places(images: Tensor) -> Tensor:
    """(S,) where the centres of pixels lie, from -1 to 1."""
    side = images.shape[-1]
    return (2 * torch.arange(side, device=images.device, dtype=images.dtype) + 1) / side - 1


Change = Callable[[Tensor, torch.Generator], Tensor]
"""(B, 3, S, S) in [0, 1] -> the same, changed."""


@dataclass(frozen=True)
class Cue:
    """A change of images by which it is seen whether a cue is read."""

    kind: Literal["removed", "planted", "control"]
    """What is done to the cue; a control plants none, but does the damage of a plant."""
    said: str
    """The end of "the accuracy falls ..."."""
    change: Change
    against: str = ""
    """The control; the images as they are where empty."""


CUES: Mapping[str, Cue] = {
    "grey": Cue("removed", "without colour", grey),
    "blurred": Cue("removed", "without fine grain", blurred),
    "noisy": Cue("removed", "with grain drowned in noise", noisy),
    "resampled": Cue("removed", "with grain of another resampling", resampled),
    "no border": Cue("removed", "without the outermost twentieth of images", middle),
    "fringes": Cue("planted", "with the fringes of a lens", fringed, "colours apart"),
    "fringes reversed": Cue(
        "planted", "with the fringes of a lens, reversed", partial(fringed, by=-FRINGE), "colours apart"
    ),
    "colours apart": Cue("control", "with colours moved apart at random", apart),
    "jpeg": Cue("planted", "with blocks of JPEG that begin at the corner", jpeg, "jpeg moved"),
    "jpeg moved": Cue("control", "with blocks of JPEG, half a block off", partial(jpeg, shift=BLOCK // 2)),
    "vignette": Cue("planted", "with dark corners", vignette, "dimmed"),
    "dimmed": Cue("control", "with less light", dimmed),
    "light from below": Cue("planted", "with light from below", partial(lit, above=False), "light from above"),
    "light from above": Cue("control", "with light from above", lit),
}
"""Name on the table -> what is done."""
