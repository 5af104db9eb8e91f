"""Cues: image statistics by which a pretext task may be solved without recognition, removed from images or added.

Such as chromatic aberration, JPEG blocks, resampling artifacts, vignettes and illumination from above. All functions
take stored images, before a task makes views of them.

A planted cue has a control with the same damage but without the cue's pattern, because any network is less accurate on
images unlike those of its training. Only the difference between the two is the effect of the cue.

Not included: borders made by the task itself (gaps between tiles), which are its `shortcut_guards`.
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
from selftaught.augment.draws import rand, randn
from selftaught.augment.warp import affine, to_device

FRINGE = 0.02
"""Relative magnification of red, and reduction of blue: more than most lenses, to be visible in small images."""
RADIUS = (math.sqrt(2) + math.log(1 + math.sqrt(2))) / 3
"""Mean distance of a point of the square from its center, in half sides: the mean shift per unit of fringe."""
QUALITY = 30
"""JPEG quality at which blocks are visible."""
BLOCK = 8
"""Side of a JPEG block in pixels."""
FADE = 0.4
"""Fraction of the brightness that is lost at the edge away from the light."""
CORNER = 0.5
"""Fraction of the brightness that a vignette removes at the corners; a third of it on average."""


def grayscale(images: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, S, S) in grayscale, without chromatic aberration."""
    return (images * to_device(LUMA, images.device)[:, None, None]).sum(1, keepdim=True).expand_as(images)


def blurred(images: Tensor, generator: torch.Generator, deviation: float = 1.0) -> Tensor:
    """Gaussian blur with a deviation in pixels; removes JPEG blocks, noise and resampling artifacts."""
    reach = math.ceil(3 * deviation)
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.softmax(-offsets.square() / (2 * deviation**2), 0)
    kernel = weights.expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    across = F.conv2d(padded, kernel, groups=images.shape[1])
    return F.conv2d(across, kernel.transpose(2, 3), groups=images.shape[1])


def noisy(images: Tensor, generator: torch.Generator, deviation: float = 0.05) -> Tensor:
    """Gaussian noise, independent for each channel of each pixel, which hides fine noise patterns."""
    noise = randn(*images.shape, generator=generator)
    return (images + deviation * to_device(noise, images.device)).clamp(0, 1)


def resampled(images: Tensor, generator: torch.Generator) -> Tensor:
    """Downsample to two thirds and upsample again, which replaces resampling artifacts by those of this one."""
    side = images.shape[-1]
    small = F.interpolate(images, size=max(1, round(side * 2 / 3)), mode="bilinear", antialias=True)
    return F.interpolate(small, size=side, mode="bilinear")


def without_border(images: Tensor, generator: torch.Generator) -> Tensor:
    """Crop a twentieth from every side and resize to the full square, which removes borders."""
    side = images.shape[-1]
    cut = max(1, round(side / 20))
    return F.interpolate(images[..., cut:-cut, cut:-cut], size=side, mode="bilinear")


def chromatic_aberration(images: Tensor, generator: torch.Generator, by: float = FRINGE) -> Tensor:
    """Lateral chromatic aberration: red is magnified by the fraction `by`, blue reduced; reversed if negative."""
    scale = 1 / torch.tensor([1 + by, 1.0, 1 - by]).repeat(len(images))
    return _each_color(images, affine(width=scale, height=scale, count=len(scale)))


def shift_channels_apart(images: Tensor, generator: torch.Generator, by: float = FRINGE * RADIUS) -> Tensor:
    """Shift red and blue apart by 2 * `by` half sides, in a random direction per image: fringes without information."""
    angle = 2 * math.pi * rand(len(images), 1, generator=generator)
    distance = torch.tensor([by, 0.0, -by])
    x, y = ((distance * along).flatten() for along in (angle.cos(), angle.sin()))
    return _each_color(images, affine(x=x, y=y, count=len(x)))


def _each_color(images: Tensor, matrix: Tensor) -> Tensor:
    """Sample every channel of (B, 3, S, S) through its own matrix, (B * 3, 3, 3); no pyramid, as shifts are small."""
    planes = images.flatten(0, 1)[:, None]
    grid = F.affine_grid(to_device(matrix[:, :2], images.device), list(planes.shape), align_corners=False)
    sampled = F.grid_sample(planes, grid.to(images.dtype), padding_mode="reflection", align_corners=False)
    return sampled.reshape(images.shape)


def jpeg(images: Tensor, generator: torch.Generator, shift: int = 0) -> Tensor:
    """JPEG compression at quality 30, on the CPU, with blocks shifted by `shift` pixels to the right and down.

    Without chroma subsampling: with it, chroma blocks have 16 pixels, which half a block of 8 does not shift equally,
    and networks that exploit chromatic aberration exploited these too.
    """
    before = (BLOCK - shift) % BLOCK
    padded = F.pad(images, (before, 0, before, 0), mode="replicate")
    pixels = (255 * padded.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    coded = torch.from_numpy(np.stack([_coded(image) for image in pixels])).permute(0, 3, 1, 2)
    return to_device(coded, images.device)[..., before:, before:].to(images.dtype) / 255


def _coded(image: np.ndarray) -> np.ndarray:
    """One (H, W, 3) uint8 image, encoded and decoded."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=QUALITY, subsampling=0)
    with Image.open(file) as decoded:
        return np.asarray(decoded)


def vignette(images: Tensor, generator: torch.Generator) -> Tensor:
    """Darken with the square of the distance from the center."""
    place = _pixel_centers(images).square()
    return images * (1 - CORNER * (place[:, None] + place) / 2)


def darkened(images: Tensor, generator: torch.Generator) -> Tensor:
    """Darken uniformly, by the mean of a vignette."""
    return images * (1 - CORNER / 3)


def illuminated(images: Tensor, generator: torch.Generator, above: bool = True) -> Tensor:
    """Illuminate from above or below: brightness decreases from one edge to the other."""
    away = (1 + (1 if above else -1) * _pixel_centers(images)) / 2
    return images * (1 - FADE * away[:, None])


def _pixel_centers(images: Tensor) -> Tensor:
    """(S,) coordinates of pixel centers, from -1 to 1."""
    side = images.shape[-1]
    return (2 * torch.arange(side, device=images.device, dtype=images.dtype) + 1) / side - 1


CueTransform = Callable[[Tensor, torch.Generator], Tensor]
"""(B, 3, S, S) in [0, 1] -> transformed images of the same shape."""


@dataclass(frozen=True)
class Cue:
    """A transformation that removes or adds a cue, to test whether a task's accuracy depends on it."""

    kind: Literal["removed", "planted", "control"]
    """Effect on the cue; a control has the damage of a planted cue without its pattern."""
    condition: str
    """Completes the sentence "the accuracy falls ..."."""
    change: CueTransform
    control: str = ""
    """Name of the control; unchanged images if empty."""


CUES: Mapping[str, Cue] = {
    "grayscale": Cue("removed", "without color", grayscale),
    "blurred": Cue("removed", "without fine detail", blurred),
    "noisy": Cue("removed", "with added noise", noisy),
    "resampled": Cue("removed", "with other resampling artifacts", resampled),
    "border removed": Cue("removed", "without the outer 5 % of images", without_border),
    "chromatic aberration": Cue("planted", "with chromatic aberration", chromatic_aberration, "color channels shifted"),
    "reversed chromatic aberration": Cue(
        "planted",
        "with reversed chromatic aberration",
        partial(chromatic_aberration, by=-FRINGE),
        "color channels shifted",
    ),
    "color channels shifted": Cue("control", "with randomly shifted color channels", shift_channels_apart),
    "JPEG blocks": Cue("planted", "with JPEG blocks aligned to the corner", jpeg, "JPEG blocks shifted"),
    "JPEG blocks shifted": Cue("control", "with JPEG blocks shifted by half a block", partial(jpeg, shift=BLOCK // 2)),
    "vignette": Cue("planted", "with a vignette", vignette, "darkened"),
    "darkened": Cue("control", "with lower brightness", darkened),
    "light from below": Cue("planted", "with light from below", partial(illuminated, above=False), "light from above"),
    "light from above": Cue("control", "with light from above", illuminated),
}
"""Name in the table -> transformation."""
