"""Colorization: Predict the colors of an image from its lightness.

Solving it requires recognizing what is shown, such as grass, sky and skin.

Zhang, Isola, Efros, "Colorful Image Colorization", ECCV 2016. https://arxiv.org/abs/1603.08511

Many objects may have many colors, and their mean is desaturated. So the prediction is a distribution over bins of the
ab plane of CIE Lab, trained with larger weights on rare colors, and decoded to one color by its annealed mean. Crops of
photos are not color-jittered by default, so that targets are true colors.

The decoder's input is the encoder's last layer alone: the paper's network has no skip connections.

Letters: B images, S pixels along a view, G positions along the answer, Q bins (261 of 10 x 10; the paper has 313, see
`augment/lab.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.lab import gamut, lab_to_rgb, rgb_to_lab, rgb_to_lightness
from selftaught.augment.warp import identity
from selftaught.contracts import Batch, Encoder, Outcome, Source, Views
from selftaught.errors import UserError
from selftaught.modules.crops import CropTask
from selftaught.modules.decoders import Decoder
from selftaught.modules.heads import require_readable

GREY = 5.0
"""An image is grey if no position has |a| or |b| above this: it says nothing (the release's `NonGrayMaskLayer`)."""
SIGMA = 5.0
"""Deviation of the Gaussian over the ab plane that encodes a colour (section 2.1) and smooths the prior (2.2)."""
SURVEY = 2048
"""The most images that the prior of colours is measured on."""
SCALE = 50.0
"""What regression divides a and b by, as the encoder's look does L."""


@dataclass(frozen=True)
class Colorization(CropTask):
    """Predict the a and b of CIE Lab from its L."""

    defaults = {"crop_jitter": 0.0}  # noqa: RUF012 - the targets are the true colors of photos

    answer: Literal["classes", "mean"] = "classes"
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
        """Refuse what cannot be asked."""
        super().__post_init__()
        if self.shrink < 1 or self.neighbors < 1:
            raise UserError(
                f"--shrink and --neighbors must be at least 1, found {self.shrink} and {self.neighbors}: try 4 and 5."
            )
        if not 0 <= self.uniform <= 1 or not self.temperature > 0:
            raise UserError(
                f"--uniform must lie in [0, 1] and --temperature above 0, found {self.uniform} and {self.temperature}: "
                "the paper has 0.5 and 0.38."
            )

    def encoder_options(self) -> Mapping[str, object]:
        """The encoder sees lightness alone."""
        return {"input_mode": "lightness"}

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """A decoder of the last layer, and what is known of colours: centres (Q, 2) and weights (Q,) of the bins."""
        if self.positions < 1:
            raise UserError(
                f"the size of a view must be at least {self.shrink} pixels for --shrink {self.shrink}, found "
                f"{self.side}: give a larger --size or a smaller --shrink."
            )
        require_readable(encoder, self.side, "crop")
        centers = gamut()
        bins = nn.Module()
        bins.register_buffer("centers", centers)
        bins.register_buffer("weights", self._weights(centers, source))
        channels = len(centers) if self.answer == "classes" else 2
        return nn.ModuleDict({"color": Decoder(encoder.last, channels, self.side, self.positions), "bins": bins})

    @property
    def positions(self) -> int:
        """G, positions along the answer."""
        return self.side // self.shrink

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S), of which the encoder reads L, and the `colors` (B, 2, G, G) it is asked for."""
        images = self.cropped(batch, generator)
        return {"images": images, "colors": self._colors(images)}

    def _colors(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 2, G, G): a and b, averaged over the pixels of a position."""
        return F.adaptive_avg_pool2d(rgb_to_lab(images)[:, 1:], max(1, self.positions))

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """Cross-entropy to the soft bins, weighted by rarity (equations 2 and 4), or the square of the error (1).

        Logged: `ab_error`, the mean distance in the ab plane of the colour read off to the true one.
        """
        colors = views["colors"].permute(0, 2, 3, 1).flatten(1, 2)  # (B, G * G, 2)
        colored = is_colored(views["colors"])[:, None].float()
        answer = self._answer(encoder, heads, views["images"]).permute(0, 2, 3, 1).flatten(1, 2)
        if self.answer == "classes":
            bins = heads["bins"]
            near, share = soft_bins(colors, bins.get_buffer("centers"), self.neighbors)
            each = -(share * answer.log_softmax(2).gather(2, near)).sum(2)
            each = each * bins.get_buffer("weights")[near.gather(2, share.argmax(2, keepdim=True))[..., 0]]
        else:
            each = (answer - colors / SCALE).square().sum(2)
        with torch.no_grad():
            off = (self._read_off(answer, heads) - colors).norm(dim=2)
        positions = colored.sum().clamp(min=1) * colors.shape[1]
        return (each * colored).sum() / positions, {"ab_error": (off * colored).sum() / positions}

    def _answer(self, encoder: Encoder, heads: nn.ModuleDict, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, Q or 2, G, G) in float32."""
        seen = encoder.last_features(images)
        answer: Tensor = heads["color"](seen)
        return answer.float()

    def _read_off(self, answer: Tensor, heads: nn.ModuleDict) -> Tensor:
        """(..., Q or 2) -> (..., 2): the annealed mean, the expectation under softmax(log z / T) (equation 5)."""
        if self.answer == "mean":
            return answer * SCALE
        # log z and its logits differ by a constant, which softmax ignores.
        with torch.autocast(answer.device.type, enabled=False):  # in bf16 a colour is off by half a unit
            return (answer / self.temperature).softmax(-1) @ heads["bins"].get_buffer("centers")

    def show(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """What is read, what is answered and what is true, side by side: `colorized` (B, 3, S, 3 S)."""
        images = views["images"]
        answer = self._answer(encoder, heads, images).permute(0, 2, 3, 1)
        colors = self._read_off(answer, heads).permute(0, 3, 1, 2)
        colors = F.interpolate(colors, images.shape[-2:], mode="bilinear", align_corners=False)
        lightness = rgb_to_lightness(images)
        shown = [lab_to_rgb(torch.cat([lightness, ab], 1)) for ab in (torch.zeros_like(colors), colors)]
        return {"colorized": torch.cat([*shown, images], 3)}

    def _weights(self, centers: Tensor, source: Source) -> Tensor:
        """How much a bin counts: inverse to its smoothed frequency in the images, mixed with uniform (equation 4)."""
        counts = torch.zeros(len(centers))
        for batch in source.sample(SURVEY):
            colors = self._colors(batch.warp(identity(len(batch)), self.side))
            colors = colors[is_colored(colors)].permute(0, 2, 3, 1).reshape(-1, 2)
            counts += torch.cdist(colors, centers).argmin(1).bincount(minlength=len(centers))
        if not counts.any():
            raise UserError(
                "colorization needs images with colour, found only grey ones among "
                f"{min(SURVEY, len(source))} of {source.name}: choose another task."
            )
        smoothing = (-torch.cdist(centers, centers).square() / (2 * SIGMA**2)).exp()
        prior = smoothing / smoothing.sum(0) @ (counts / counts.sum())
        # Not above a million: far from all that was seen a frequency is rounded to nothing.
        weights = 1 / ((1 - self.uniform) * prior + self.uniform / len(centers)).clamp(min=1e-6)
        return weights / (prior * weights).sum()  # so that its mean over the images is 1


def is_colored(colors: Tensor) -> Tensor:
    """(B, 2, G, G) of a and b -> (B,) bool: not grey all over."""
    return (colors.abs() > GREY).flatten(1).any(1)


def soft_bins(colors: Tensor, centers: Tensor, neighbors: int) -> tuple[Tensor, Tensor]:
    """A colour as shares of its nearest bins, by a Gaussian of their distances (section 2.1).

    Args:
        colors: (..., 2), a and b.
        centers: (Q, 2).
        neighbors: k, how many bins share it; at most Q.

    Returns:
        Which bins, (..., k) int64, and their shares, (..., k), of sum 1.
    """
    distance, near = torch.cdist(colors, centers).topk(min(neighbors, len(centers)), largest=False)
    return near, (-distance.square() / (2 * SIGMA**2)).softmax(-1)
