"""MAE: Predict the pixels of masked patches from the visible ones.

Three quarters of the patches are masked, so that neighbors do not suffice to fill them in. The encoder processes the
visible ones only, at a quarter of the cost; a small decoder, discarded afterwards, predicts the others.

He, Chen, Xie, Li, Dollár, Girshick, "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022.
https://arxiv.org/abs/2111.06377

The positions of the decoder are learned instead of sine-cosine.

Letters: B images, S pixels along a view, L patches of an image of p x p pixels, D channels of the decoder.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from selftaught.augment.draws import rand
from selftaught.augment.warp import random_crop, require_shares, to_device
from selftaught.contracts import Batch, Encoder, Outputs, Source, Task, TokenEncoder, Views
from selftaught.errors import UserError, require_ranges
from selftaught.limits import DEPTH, INNER_FRACTION, WIDTH
from selftaught.modules.patches import PatchDecoder, from_patches, to_patches


@dataclass(frozen=True)
class MAE(Task):
    """Predict the pixels of masked patches from the visible ones."""

    defaults = {"encoder": "vit", "learning_rate": 1e-3}  # noqa: RUF012

    masked: float = 0.75
    """Fraction of the patches that are masked (paper: 0.75)."""
    patch_norm: bool = True
    """Predict pixels relative to mean and standard deviation of their patch (better in the paper)."""
    decoder_width: int = 96
    """Channels of the decoder, a multiple of 4 (paper: 512)."""
    decoder_depth: int = 2
    """Number of blocks of the decoder (paper: 8)."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest area of a crop, as a fraction of the image (paper: 0.2 to 1)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        require_shares("--scale", self.scale)
        require_ranges(self, decoder_width=WIDTH, decoder_depth=DEPTH, masked=INNER_FRACTION)
        if self.decoder_width % 4:
            raise UserError(f"--decoder-width must be a multiple of 4, got {self.decoder_width}.")

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """The decoder."""
        patch, channels = tokens_of(encoder).patch, encoder.last.channels
        length = (self.size // patch) ** 2
        decoder = PatchDecoder(channels, 3 * patch**2, length, self.decoder_width, self.decoder_depth)
        return nn.ModuleDict({"decoder": decoder})

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S) and `noise` (B, S, S), uniform in [0, 1), which determines the mask."""
        images = batch.warp(random_crop(len(batch), generator, scale=self.scale), self.size)
        noise = rand(len(batch), self.size, self.size, generator=generator)
        return {"images": images, "noise": to_device(noise, images.device)}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Mean squared error of the masked patches (section 3)."""
        order, visible = self.order(encoder, views)
        hidden = order[:, visible:, None]
        predicted = self.predicted(encoder, heads, views)
        target = self.targets(to_patches(views["images"], tokens_of(encoder).patch))[0]
        error = (predicted - target).square().mean(2, keepdim=True)
        return error.gather(1, hidden).mean(), {}

    def order(self, encoder: Encoder, views: Views) -> tuple[Tensor, int]:
        """All patches in random order, (B, L), of which the first are visible, and the number of these."""
        length = (self.size // tokens_of(encoder).patch) ** 2
        visible = min(length - 1, max(1, int(length * (1 - self.masked))))
        return views["noise"].flatten(1)[:, :length].argsort(1), visible

    def predicted(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> Tensor:
        """Predictions of all patches: (B, L, 3 p^2)."""
        order, visible = self.order(encoder, views)
        tokens = tokens_of(encoder)
        *_, encoded = tokens.encode(tokens.tokens(views["images"]), order[:, :visible]).values()
        decoded: Tensor = heads["decoder"](encoded, order)
        return decoded.float()

    def targets(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L, 3 p^2) -> the targets, and the mean and scale that make them colors again."""
        if not self.patch_norm:
            return patches, torch.zeros_like(patches[..., :1]), torch.ones_like(patches[..., :1])
        mean, scale = patches.mean(2, keepdim=True), (patches.var(2, keepdim=True) + 1e-6).sqrt()
        return (patches - mean) / scale, mean, scale

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """Masked images, predictions of the masked patches (with their true mean and contrast) and originals."""
        (order, visible), patch = self.order(encoder, views), tokens_of(encoder).patch
        patches = to_patches(views["images"], patch)
        _, mean, scale = self.targets(patches)
        filled = self.predicted(encoder, heads, views) * scale + mean
        hidden = torch.ones_like(patches[..., :1]).scatter(1, order[:, :visible, None], 0.0).bool()
        pictures = (torch.where(hidden, 0.5, patches), torch.where(hidden, filled, patches), patches)
        names = ("masked", "predicted", "original")
        return {name: from_patches(each, patch).clamp(0, 1) for name, each in zip(names, pictures, strict=True)}


def tokens_of(encoder: Encoder) -> TokenEncoder:
    """The encoder, if it has patch tokens."""
    if not isinstance(encoder, TokenEncoder):
        raise UserError("mae needs an encoder with patch tokens: choose --encoder vit.")
    return encoder
