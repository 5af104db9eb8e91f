"""Colorization: Predict the colors of an image from its lightness.

Solving it requires recognizing materials and objects, such as grass, sky and skin.

Zhang, Isola, Efros, "Colorful Image Colorization", ECCV 2016. https://arxiv.org/abs/1603.08511

Many objects may have many colors, and their mean is desaturated. So the prediction is a distribution over bins of the
ab plane of CIE Lab, trained with larger weights on rare colors, and decoded to one color by its annealed mean. Crops of
photos are not color-jittered by default, so that targets are true colors.

The decoder's input is the encoder's last layer alone: the paper's network has no skip connections.

Letters: B images, S pixels along a view, G positions along the prediction, Q bins (261 of 10 x 10; the paper has 313,
see `augment/lab.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.lab import gamut, lab_to_rgb, rgb_to_lab, rgb_to_lightness
from selftaught.augment.warp import identity
from selftaught.contracts import Batch, Encoder, Outputs, Source, Views
from selftaught.errors import UserError, require_ranges
from selftaught.limits import FRACTION, TEMPERATURE, Range
from selftaught.modules.cropped import CroppedTask
from selftaught.modules.decoders import Decoder
from selftaught.modules.processes import average

GRAY = 5.0
"""Images are gray, and ignored by the loss, if no position has |a| or |b| above this (released code:
`NonGrayMaskLayer`)."""
SIGMA = 5.0
"""Standard deviation, in the ab plane, of the soft targets (section 2.1) and of the smoothing of the prior (2.2)."""
SURVEY = 2048
"""Maximum number of images from which the color prior is estimated."""
SCALE = 50.0
"""Divisor of a and b in regression, the same as that of L in the encoder's preprocessing."""

SHRINK = Range(1, 4096)
NEIGHBORS = Range(1, 1000)


@dataclass(frozen=True)
class Colorization(CroppedTask):
    """Predict the a and b channels of CIE Lab from L."""

    defaults = {"crop_jitter": 0.0}  # noqa: RUF012 - the targets are the true colors of photos

    target: Literal["classes", "mean"] = "classes"
    """Predict a distribution over color bins (classes), or the color by least squares (mean), which is desaturated
    (section 2.1)."""
    shrink: int = 4
    """Downsampling factor of the prediction (paper: 4)."""
    neighbors: int = 5
    """Number of nearest bins in the soft target: 5 in the paper (section 2.1), 10 in the released code."""
    uniform: float = 0.5
    """Lambda of the class rebalancing: with 0 a bin is weighted by its inverse frequency, with 1 all bins are equal."""
    temperature: float = 0.38
    """Temperature of the annealed mean: 1 is the mean of the distribution, 0 its mode (section 2.3)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_ranges(self, shrink=SHRINK, neighbors=NEIGHBORS, uniform=FRACTION, temperature=TEMPERATURE)

    def encoder_options(self) -> Mapping[str, object]:
        """Lightness input."""
        return {"input_mode": "lightness"}

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """A decoder of the last layer, and the color bins: centers (Q, 2) and weights (Q,)."""
        if self.positions < 1:
            raise UserError(
                f"views must have at least {self.shrink} pixels per side for --shrink {self.shrink}, got {self.side}; "
                "increase --size or decrease --shrink."
            )
        centers = gamut()
        bins = nn.Module()
        bins.register_buffer("centers", centers)
        bins.register_buffer("weights", self._weights(centers, source))
        channels = len(centers) if self.target == "classes" else 2
        return nn.ModuleDict({"color": Decoder(encoder.last, channels, self.side, self.positions), "bins": bins})

    @property
    def positions(self) -> int:
        """G, positions along the prediction."""
        return self.side // self.shrink

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S), of which the encoder's input is L, and the target `colors` (B, 2, G, G)."""
        images = self.augmentation().views(batch, self.side, generator)
        return {"images": images, "colors": self._colors(images)}

    def _colors(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 2, G, G): a and b, averaged over the pixels of each position."""
        return F.adaptive_avg_pool2d(rgb_to_lab(images)[:, 1:], max(1, self.positions))

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Cross-entropy with soft targets, weighted by color rarity (equations 2 and 4), or the squared error (1).

        Logged: `ab_error`, the mean distance in the ab plane between the decoded and the true color.
        """
        colors = views["colors"].permute(0, 2, 3, 1).flatten(1, 2)  # (B, G * G, 2)
        colored = is_colored(views["colors"])[:, None].float()
        prediction = self._prediction(encoder, heads, views["images"]).permute(0, 2, 3, 1).flatten(1, 2)
        if self.target == "classes":
            bins = heads["bins"]
            near, share = soft_bins(colors, bins.get_buffer("centers"), self.neighbors)
            each = -(share * prediction.log_softmax(2).gather(2, near)).sum(2)
            each = each * bins.get_buffer("weights")[near.gather(2, share.argmax(2, keepdim=True))[..., 0]]
        else:
            each = (prediction - colors / SCALE).square().sum(2)
        with torch.no_grad():
            error = (self._decoded(prediction, heads) - colors).norm(dim=2)
        # Where no image is colored, both sums are 0.
        positions = average(colored.sum()).clamp(min=1e-6) * colors.shape[1]
        return (each * colored).sum() / positions, {"ab_error": (error * colored).sum() / positions}

    def _prediction(self, encoder: Encoder, heads: nn.ModuleDict, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, Q or 2, G, G) in float32."""
        prediction: Tensor = heads["color"](encoder.last_features(images))
        return prediction.float()

    def _decoded(self, prediction: Tensor, heads: nn.ModuleDict) -> Tensor:
        """Logits (..., Q or 2) -> ab (..., 2): annealed mean, the expectation under softmax(log z / T) (equation 5)."""
        if self.target == "mean":
            return prediction * SCALE
        # log z and the logits differ by a constant, to which softmax is invariant.
        with torch.autocast(prediction.device.type, enabled=False):  # in bf16 colors are off by half a unit
            return (prediction / self.temperature).softmax(-1) @ heads["bins"].get_buffer("centers")

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """Lightness, colorized image and original side by side: `colorized` (B, 3, S, 3 S)."""
        images = views["images"]
        prediction = self._prediction(encoder, heads, images).permute(0, 2, 3, 1)
        colors = self._decoded(prediction, heads).permute(0, 3, 1, 2)
        colors = F.interpolate(colors, images.shape[-2:], mode="bilinear", align_corners=False)
        lightness = rgb_to_lightness(images)
        shown = [lab_to_rgb(torch.cat([lightness, ab], 1)) for ab in (torch.zeros_like(colors), colors)]
        return {"colorized": torch.cat([*shown, images], 3)}

    def _weights(self, centers: Tensor, source: Source) -> Tensor:
        """Class rebalancing weights: inverse to the smoothed frequency of a bin, mixed with uniform (equation 4)."""
        counts = torch.zeros(len(centers))
        for batch in source.sample(SURVEY):
            colors = self._colors(batch.warp(identity(len(batch)), self.side))
            colors = colors[is_colored(colors)].permute(0, 2, 3, 1).reshape(-1, 2)
            counts += torch.cdist(colors, centers).argmin(1).bincount(minlength=len(centers))
        if not counts.any():
            raise UserError(
                f"colorization needs color images, but all {min(SURVEY, len(source))} checked images of {source.name} "
                "are gray; choose another task."
            )
        smoothing = (-torch.cdist(centers, centers).square() / (2 * SIGMA**2)).exp()
        prior = smoothing / smoothing.sum(0) @ (counts / counts.sum())
        # At most a million: for bins far from all colors of the images the frequency is rounded to 0.
        weights = 1 / ((1 - self.uniform) * prior + self.uniform / len(centers)).clamp(min=1e-6)
        return weights / (prior * weights).sum()  # so that its mean over the images is 1


def is_colored(colors: Tensor) -> Tensor:
    """(B, 2, G, G) of a and b -> (B,) bool: whether any position is not gray."""
    return (colors.abs() > GRAY).flatten(1).any(1)


def soft_bins(colors: Tensor, centers: Tensor, neighbors: int) -> tuple[Tensor, Tensor]:
    """Soft target: a color as a distribution over its nearest bins, by a Gaussian of their distances (section 2.1).

    Args:
        colors: (..., 2), a and b.
        centers: (Q, 2).
        neighbors: k, number of bins in the distribution; at most Q.

    Returns:
        Indices of the bins, (..., k) int64, and their probabilities, (..., k).
    """
    distance, near = torch.cdist(colors, centers).topk(min(neighbors, len(centers)), largest=False)
    return near, (-distance.square() / (2 * SIGMA**2)).softmax(-1)
