"""Autoencoder: Reconstruct the image through a code smaller than it. The baseline of the generative tasks.

Hinton, Salakhutdinov, "Reducing the Dimensionality of Data with Neural Networks", Science 2006.
https://doi.org/10.1126/science.1127647
Denoising: Vincent, Larochelle, Bengio, Manzagol, "Extracting and Composing Robust Features with Denoising
Autoencoders", ICML 2008. https://doi.org/10.1145/1390156.1390294

It teaches where most of an image's variance is, which is not what is in it: expect little. With noise it must also know
what images look like.

Letters: B images, S pixels along a view.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.lab import lab_to_rgb, rgb_to_lab
from selftaught.augment.warp import to_device
from selftaught.contracts import Batch, Encoder, Layer, Outcome, Source, Views
from selftaught.errors import UserError
from selftaught.modules.crops import CropTask
from selftaught.modules.decoders import Decoder
from selftaught.modules.heads import require_readable


@dataclass(frozen=True)
class Autoencoder(CropTask):
    """Reconstruct the image by least squares."""

    compression: int = 4
    """How many times fewer numbers the code has than the image, about: at each position of the last layer it is a
    vector, of one number at least. At 12 a code has room for broad strokes alone, and layers fell below random ones."""
    space: Literal["rgb", "lab"] = "rgb"
    """Where errors are squared: sRGB, or CIE Lab, where distances resemble the eye's. The encoder is shown sRGB either
    way (Zhang et al. 2017 show Lab as well)."""
    noise: float = 0.0
    """Deviation of the Gaussian noise on what is shown (values run from 0 to 1); the clean image is asked for."""
    masked: float = 0.0
    """Share of the pixels that are shown as mid-grey (Vincent et al. blacken 0.1 to 0.4); all are asked for."""

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        super().__post_init__()
        if self.compression < 1:
            raise UserError(f"--compression must be at least 1, found {self.compression}: try 4.")
        if not self.noise >= 0 or not 0 <= self.masked < 1:
            raise UserError(
                f"--noise must be at least 0 and --masked in [0, 1), found {self.noise} and {self.masked}: "
                "try 0.1 and 0.25."
            )

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """The code, a linear map of the last layer at each position, and a decoder of it."""
        require_readable(encoder, self.side, "crop")
        last = encoder.last
        # A position stands for stride^2 pixels of three numbers, so the ratio is the same for every encoder.
        code = Layer(max(1, 3 * last.stride**2 // self.compression), last.stride)
        decoder = Decoder(code, 3, self.side)
        return nn.ModuleDict({"code": nn.Conv2d(last.channels, code.channels, 1), "decoder": decoder})

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S) and, where there is noise, `noisy`, the same with it, still in [0, 1]."""
        images = self.cropped(batch, generator)
        noisy = images
        if self.noise:
            noisy = noisy + self.noise * to_device(torch.randn(images.shape, generator=generator), images.device)
        if self.masked:
            hidden = torch.rand(len(images), 1, self.side, self.side, generator=generator) < self.masked
            noisy = noisy.masked_fill(to_device(hidden, images.device), 0.5)
        return {"images": images} if noisy is images else {"images": images, "noisy": noisy.clamp(0, 1)}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """Mean square of the error, over channels and pixels."""
        return F.mse_loss(self._decoded(encoder, heads, views), self._wanted(views["images"])), {}

    def _decoded(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> Tensor:
        """What is made of what is shown: (B, 3, S, S) float32, in the space that errors are measured in."""
        seen = encoder.last_features(views.get("noisy", views["images"]))
        decoded: Tensor = heads["decoder"](heads["code"](seen))
        return decoded.float()

    def _wanted(self, images: Tensor) -> Tensor:
        """Images in the space that errors are measured in, about zero mean and unit scale."""
        if self.space == "rgb":
            return 2 * images - 1
        return (rgb_to_lab(images) - _lab_middle(images)) / 50

    def show(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """What is shown (if noisy), what is made of it, what is true, side by side: `decoded` (B, 3, S, 2 S or 3 S)."""
        images, decoded = views["images"], self._decoded(encoder, heads, views)
        if self.space == "rgb":
            decoded = ((decoded + 1) / 2).clamp(0, 1)
        else:
            decoded = lab_to_rgb(50 * decoded + _lab_middle(images))
        noisy = [views["noisy"]] if "noisy" in views else []
        return {"decoded": torch.cat([*noisy, decoded, images], 3)}


def _lab_middle(images: Tensor) -> Tensor:
    """Mid-grey in Lab, (3, 1, 1)."""
    return images.new_tensor([50.0, 0.0, 0.0]).view(3, 1, 1)
