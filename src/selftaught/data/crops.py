"""Virtual crops: a data set of d random crops of N photos, sampled from the full resolution on demand.

Crop i is a pure function of (seed, i), so nothing is drawn in advance or written to disk; the authors wrote 1.28
million JPEGs. A crop is a window on its photo (area, aspect ratio, rotation, shear, flip) with color jitter. The matrix
of the window is composed with that of the task, so pixels are resampled once, from the matching pyramid level.

Asano, Rupprecht, Vedaldi, "A critical analysis of self-supervision, or what we can learn from a single image",
ICLR 2020. https://arxiv.org/abs/1904.13132
"""

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Literal

import torch
from torch import Tensor

from selftaught.augment.color import color_matrices, recolor
from selftaught.augment.warp import Pyramid, affine, require_shares, to_device
from selftaught.contracts import Batch, Source
from selftaught.data.content import content_id
from selftaught.data.stored import free_memory
from selftaught.errors import UserError, require_ranges
from selftaught.limits import FRACTION, Range

REDRAWS = 24
"""Maximum number of redraws of aspect ratio, rotation and shear for a crop that does not fit into its photo."""
REDRAW = 1 << 40
"""Offset of the seed for redraws; larger than any seed."""

DEGREES = Range(0, 180)
SHEAR = Range(0, 80, below=True)
"""Degrees; at 90 a crop would be infinitely long."""


@dataclass(frozen=True)
class Cropping:
    """Parameters of the random crops; each can be disabled for an ablation."""

    crop_area: tuple[float, float] = (1e-3, 1.0)
    """Smallest and largest area of a crop, as a fraction of the photo's area (paper: at least 0.001). For an
    elongated photo the upper limit is the largest crop that fits at these aspect ratios."""
    crop_spread: Literal["log", "uniform"] = "log"
    """Distribution of the areas: log-uniform (more small crops, so fewer overlap) or uniform (paper)."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest aspect ratio (width over height); log-uniform."""
    crop_rotation: float = 35.0
    """Largest rotation in either direction, in degrees (paper: 35; released script: 30). Uniform over the angles at
    which the crop fits into the photo, so the largest crops are almost upright."""
    crop_shear: float = 0.0
    """Largest shear in either direction, in degrees (released script: 30; paper: none)."""
    crop_flip: float = 0.5
    """Probability of a horizontal flip."""
    crop_jitter: float = 0.4
    """Strength of the jitter of brightness, contrast and saturation; hue has a quarter of it (paper: 0.4 and 0.1)."""

    def __post_init__(self) -> None:
        """Reject invalid parameters."""
        require_shares("--crop-area", self.crop_area)
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1] < float("inf"):
            raise UserError(
                f"--crop-ratio must be two ratios with 0 < low <= high, got {self.crop_ratio}: try 0.75 1.33."
            )
        require_ranges(self, crop_jitter=FRACTION, crop_flip=FRACTION, crop_rotation=DEGREES, crop_shear=SHEAR)


class Crops(Source):
    """d virtual crops of N photos; crop i is cut from photo i modulo N.

    Args:
        name: name of the photos as given by the user.
        photos: (3, H, W) uint8 each, of any size.
        count: d, number of crops.
        side: size of the views that the source is meant for, in pixels.
        seed: random seed of the crops.
        cropping: parameters of the crops.
        classes: names of the photos, to label each crop with its photo; None for no labels.
        content_ids: (N,) int64, digests of the encoded photos; None for digests of their pixels.
    """

    def __init__(
        self,
        name: str,
        photos: Sequence[Tensor],
        count: int,
        side: int,
        seed: int,
        cropping: Cropping | None = None,
        classes: tuple[str, ...] | None = None,
        content_ids: Tensor | None = None,
    ) -> None:
        if count < 1:
            raise UserError(f"--num-crops must be at least 1, got {count}: try 100000.")
        self.name, self.photos, self.count, self.side, self.seed = name, photos, count, side, seed
        self.cropping, self.classes = cropping or Cropping(), classes
        self.targets = frozenset({"label"} if classes else ())
        digest = hashlib.blake2b(f"{count} {seed} {astuple(self.cropping)}".encode(), digest_size=16)
        for photo in photos:
            digest.update(f"{tuple(photo.shape)}".encode())
            digest.update(photo.contiguous().numpy().tobytes())
        self.fingerprint = digest.hexdigest()
        self._content_ids = content_ids
        self._pyramids: dict[torch.device, list[Pyramid]] = {}

    def __len__(self) -> int:
        return self.count

    @property
    def content_ids(self) -> Tensor:
        """See `Source`."""
        if self._content_ids is None:
            self._content_ids = torch.tensor([content_id(photo.permute(1, 2, 0).numpy()) for photo in self.photos])
        return self._content_ids

    def batch(self, indices: Tensor, device: torch.device) -> "CropBatch":
        """See `Source`."""
        return CropBatch(self, indices, device)

    def pyramids(self, device: torch.device) -> list[Pyramid]:
        """The image pyramids of the photos on a device, in float because sampling needs it."""
        if device not in self._pyramids:
            required = sum(photo.numel() for photo in self.photos) * 4 * 2
            if required > free_memory(device) / 2:
                raise UserError(
                    f"cropping {len(self.photos)} photos needs {required / 2**30:.1f} GiB, more than half of the free "
                    f"memory: use fewer or smaller photos, or leave out --num-crops to use whole images."
                )
            # Channels last: the three colors of a pixel are adjacent in memory.
            photos = [photo[None].to(device).float().div_(255) for photo in self.photos]
            self._pyramids[device] = [
                Pyramid(p.contiguous(memory_format=torch.channels_last), octave=2) for p in photos
            ]
        return self._pyramids[device]

    def windows(self, indices: Tensor) -> Tensor:
        """The window of each crop, always inside its photo: (B,) -> (B, 3, 3), crop to photo coordinates, both -1 to 1.

        Areas follow the distribution `crop_spread`. Aspect ratio, rotation and shear are redrawn until the window fits,
        so that no empty corner reveals the rotation (the authors crop such corners off). After `REDRAWS` redraws the
        window is upright, with the valid aspect ratio nearest to the photo's.
        """
        draws = uniform_at(self.seed, indices, 7)
        shapes = torch.tensor([photo.shape[1:] for photo in self.photos], dtype=torch.float32)
        height, width = shapes[indices % len(self.photos)].unbind(1)
        half = torch.stack((width, height), 1) / 2
        upright = (width / height).clamp(*self.cropping.crop_ratio)
        pixels = self._areas(draws[0], width / height / upright) * height * width
        flip = (draws[4] < self.cropping.crop_flip).float()
        matrix = self._shaped(pixels, self._ratios(draws[1]), draws[2], draws[3], flip)
        large = (_reach(matrix) > half).any(1).nonzero().flatten()
        if len(large):
            matrix[large] = self._redrawn(indices[large], pixels[large], upright[large], flip[large], half[large])
        room = (half - _reach(matrix)).clamp(min=0)  # negative only by rounding
        matrix[:, :2, 2] = (2 * torch.stack((draws[5], draws[6]), 1) - 1) * room
        matrix[:, :2] /= half[:, :, None]
        return matrix

    def _redrawn(self, indices: Tensor, pixels: Tensor, upright: Tensor, flip: Tensor, half: Tensor) -> Tensor:
        """Windows of these areas, redrawn until they fit: (n, 3, 3). `upright` is the aspect ratio if none fits."""
        count = len(indices)
        draws = uniform_at(self.seed + REDRAW, indices, 3 * REDRAWS).reshape(REDRAWS, 3, count)
        draws = torch.cat([draws, draws.new_full((1, 3, count), 0.5)])  # the last one has no rotation and no shear
        ratio = self._ratios(draws[:, 0])
        ratio[-1] = upright
        times = REDRAWS + 1
        matrix = self._shaped(pixels.repeat(times), ratio.flatten(), draws[:, 1], draws[:, 2], flip.repeat(times))
        matrix = matrix.reshape(times, count, 3, 3)
        fits = (_reach(matrix) <= half).all(2)
        fits[-1] = True
        return matrix[fits.int().argmax(0), torch.arange(count)]

    def _areas(self, draw: Tensor, elongation: Tensor) -> Tensor:
        """(B,) draws in [0, 1) -> (B,) crop areas as fractions of the photo's area.

        Args:
            draw: (B,) in [0, 1).
            elongation: (B,) aspect ratio of the photo divided by the nearest one allowed for a crop.
        """
        low, high = self.cropping.crop_area
        largest = torch.minimum(elongation, 1 / elongation).clamp(max=high)
        smallest = largest.clamp(max=low)
        if self.cropping.crop_spread == "uniform":
            return smallest + (largest - smallest) * draw
        return smallest * (largest / smallest) ** draw

    def _ratios(self, draw: Tensor) -> Tensor:
        """Draws in [0, 1) -> log-uniform aspect ratios."""
        low, high = self.cropping.crop_ratio
        return low * (high / low) ** draw

    def _shaped(self, pixels: Tensor, ratio: Tensor, rotation: Tensor, shear: Tensor, flip: Tensor) -> Tensor:
        """Windows centered on the photo, in pixels: (n, 3, 3). Rotation and shear are draws in [0, 1)."""
        return affine(
            width=(pixels * ratio).sqrt() / 2,
            height=(pixels / ratio).sqrt() / 2,
            degrees=(2 * rotation.flatten() - 1) * self.cropping.crop_rotation,
            shear=(2 * shear.flatten() - 1) * self.cropping.crop_shear,
            flip=flip,
            count=len(pixels),
        )

    def colors(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The color jitter of each crop, as arguments of `recolor`."""
        draws = 2 * uniform_at(self.seed + 1, indices, 4) - 1
        jitter = self.cropping.crop_jitter
        brightness, contrast, saturation = 1 + jitter * draws[:3]
        return color_matrices(brightness, contrast, saturation, jitter / 4 * draws[3], torch.zeros(len(indices)))


class CropBatch(Batch):
    """A batch of crops, as windows on photos."""

    def __init__(self, source: Crops, indices: Tensor, device: torch.device) -> None:
        self.index, self.population = to_device(indices, device), len(source)
        self.targets = {"label": self.index % len(source.photos)} if source.classes else {}
        self._source, self._cpu_index, self._device = source, indices, device
        self._windows = source.windows(indices)

    def warp(self, matrix: Tensor, size: int, of: str = "image") -> Tensor:
        """See `Batch`. Contrast is changed about the mean of each view."""
        assert of == "image", "crops of photos have no other pictures"
        views = matrix[:, None] if matrix.ndim == 3 else matrix
        count, copies = views.shape[:2]
        composed = (self._windows[:, None] @ views).flatten(0, 1)
        owner = (self._cpu_index % len(self._source.photos)).repeat_interleave(copies)
        pyramids = self._source.pyramids(self._device)
        if len(pyramids) == 1:
            out = pyramids[0].sample(composed[None], size)[0]
        else:
            out = torch.empty(count * copies, 3, size, size, device=self._device)
            for photo in sorted(set(owner.tolist())):
                chosen = (owner == photo).nonzero().flatten()
                out[to_device(chosen, self._device)] = pyramids[photo].sample(composed[chosen][None], size)[0]
        if self._source.cropping.crop_jitter:
            linear, of_mean = (m.repeat_interleave(copies, 0) for m in self._source.colors(self._cpu_index))
            out = recolor(out, linear, of_mean)
        return out.reshape(*matrix.shape[:-2], 3, size, size)


def _reach(matrix: Tensor) -> Tensor:
    """Half extents of windows: (..., 3, 3) -> (..., 2), horizontal and vertical."""
    return matrix[..., :2, :2].abs().sum(-1)


def uniform_at(seed: int, indices: Tensor, draws: int) -> Tensor:
    """Counter-based uniform random numbers in [0, 1), a function of (seed, index, draw): (B,) int64 -> (draws, B).

    SplitMix64's finalizer applied to a counter (Steele, Lea, Flood 2014), because a torch generator has no random
    access to its i-th number. int64 overflow wraps around, as the algorithm requires.
    """
    counter = indices.long()[None] * draws + torch.arange(draws)[:, None]
    state = _mixed(counter + _mixed(torch.tensor(seed, dtype=torch.int64) + _GOLDEN))
    return (_shifted(state, 40)).float() / 2**24


_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def _shifted(x: Tensor, by: int) -> Tensor:
    """Logical right shift; torch's own is arithmetic."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _mixed(x: Tensor) -> Tensor:
    x = x + _GOLDEN
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)
