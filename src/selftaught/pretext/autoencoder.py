"""Autoencoder: Reconstruct the image from a code smaller than the image; the baseline of the generative tasks.

Hinton, Salakhutdinov, "Reducing the Dimensionality of Data with Neural Networks", Science 2006.
https://doi.org/10.1126/science.1127647
Denoising: Vincent, Larochelle, Bengio, Manzagol, "Extracting and Composing Robust Features with Denoising
Autoencoders", ICML 2008. https://doi.org/10.1145/1390156.1390294

The code captures most of the image's variance, which reflects little of its content, so the features are expected to be
weak. Denoising also requires a model of what images look like.

Letters: B images, S pixels along a view.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.draws import rand, randn
from selftaught.augment.lab import lab_to_rgb, rgb_to_lab
from selftaught.augment.warp import to_device
from selftaught.contracts import Batch, Encoder, Layer, Outputs, Source, Views
from selftaught.errors import require_ranges
from selftaught.limits import FRACTION_BELOW_1, Range
from selftaught.modules.cropped import CroppedTask
from selftaught.modules.decoders import Decoder

COMPRESSION = Range(1, 10**6)
NOISE = Range(0, 10)


@dataclass(frozen=True)
class Autoencoder(CroppedTask):
    """Reconstruct the image with a squared error."""

    compression: int = 4
    """Approximate ratio of the size of the image to that of the code, which is a vector, of one number at least, at
    each position of the last layer. With 12 only coarse structure is reconstructed, and layers were worse than random
    weights."""
    space: Literal["rgb", "lab"] = "rgb"
    """Color space of the squared error: sRGB, or CIE Lab, whose distances are close to perceived ones. The encoder's
    input is sRGB in either case (Zhang et al. 2017 have Lab input as well)."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise added to the input (values are 0 to 1); the target is the clean image."""
    masked: float = 0.0
    """Fraction of input pixels replaced by mid-gray (Vincent et al.: 0.1 to 0.4, black); the target is the whole
    image."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_ranges(self, compression=COMPRESSION, noise=NOISE, masked=FRACTION_BELOW_1)

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """The code, a linear map of the last layer at each position, and a decoder of it."""
        last = encoder.last
        # A position covers stride^2 pixels of three channels, so the ratio is the same for every encoder.
        code = Layer(max(1, 3 * last.stride**2 // self.compression), last.stride)
        decoder = Decoder(code, 3, self.side)
        return nn.ModuleDict({"code": nn.Conv2d(last.channels, code.channels, 1), "decoder": decoder})

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S) and, with noise or masking, `noisy`, the corrupted input, clamped to [0, 1]."""
        images = self.augmentation().views(batch, self.side, generator)
        noisy = images
        if self.noise:
            noisy = noisy + self.noise * to_device(randn(*images.shape, generator=generator), images.device)
        if self.masked:
            hidden = rand(len(images), 1, self.side, self.side, generator=generator) < self.masked
            noisy = noisy.masked_fill(to_device(hidden, images.device), 0.5)
        return {"images": images} if noisy is images else {"images": images, "noisy": noisy.clamp(0, 1)}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Mean squared error over channels and pixels."""
        return F.mse_loss(self._decoded(encoder, heads, views), self._target(views["images"])), {}

    def _decoded(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> Tensor:
        """Reconstruction of the input: (B, 3, S, S) float32, in the color space of the error."""
        features = encoder.last_features(views.get("noisy", views["images"]))
        decoded: Tensor = heads["decoder"](heads["code"](features))
        return decoded.float()

    def _target(self, images: Tensor) -> Tensor:
        """Images in the color space of the error, with about zero mean and unit scale."""
        if self.space == "rgb":
            return 2 * images - 1
        return (rgb_to_lab(images) - _lab_gray(images)) / 50

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """Input (if corrupted), reconstruction and original side by side: `decoded` (B, 3, S, 2 S or 3 S)."""
        images, decoded = views["images"], self._decoded(encoder, heads, views)
        if self.space == "rgb":
            decoded = ((decoded + 1) / 2).clamp(0, 1)
        else:
            decoded = lab_to_rgb(50 * decoded + _lab_gray(images))
        noisy = [views["noisy"]] if "noisy" in views else []
        return {"decoded": torch.cat([*noisy, decoded, images], 3)}


def _lab_gray(images: Tensor) -> Tensor:
    """Mid-gray in Lab, (3, 1, 1)."""
    return images.new_tensor([50.0, 0.0, 0.0]).view(3, 1, 1)
