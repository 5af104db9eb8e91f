"""Inpainting: Reconstruct a masked region of the image from the pixels around it.

Solving it requires recognizing the scene and its objects.

Pathak, Krähenbühl, Donahue, Darrell, Efros, "Context Encoders: Feature Learning by Inpainting", CVPR 2016.
https://arxiv.org/abs/1604.07379

Many completions of a region are plausible, and their mean, which minimizes the L2 loss, is blurred. An optional
discriminator (called the critic) sharpens them: it classifies regions as real or filled in, and the encoder and decoder
maximize its loss on theirs. The paper's features were learned with the L2 loss alone, so the critic is off by default.

Letters: B images, S pixels along a view.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from selftaught.augment.masks import block_masks, center_masks, center_side, free_masks, require_maskable, rim
from selftaught.augment.warp import identity, to_device
from selftaught.contracts import Batch, Encoder, Outputs, ParameterGroup, Source, Views
from selftaught.errors import UserError, require_ranges
from selftaught.limits import FRACTION_BELOW_1, LR_SCALE, POSITIVE_COEFFICIENT, Range
from selftaught.modules.adversarial import adversarial_groups, adversarial_loss
from selftaught.modules.cropped import CroppedTask
from selftaught.modules.decoders import ChannelwiseDense, Decoder
from selftaught.modules.processes import average

SURVEY = 2048
"""Maximum number of images from which the mean color is computed."""

CELLS = Range(1, 256)
OVERLAP = Range(0, 0.5, below=True)


@dataclass(frozen=True)
class Inpainting(CroppedTask):
    """Reconstruct masked regions with an L2 loss and, optionally, an adversarial loss."""

    crop: float = 1.0
    """Side of the views as a fraction of --size: 0.75 halves the cost, and features of whole images are better where
    objects appear larger than in training (Touvron et al. 2019, "Fixing the train-test resolution discrepancy"); 1 for
    an encoder with a fixed input size."""
    holes: Literal["center", "blocks", "free"] = "center"
    """Mask shape: a centered square (center), rectangles at random positions (blocks), or arbitrary shapes (free). The
    paper learns features with arbitrary shapes, because with one fixed position an encoder may learn only low-level
    features of the region's border (section 3.3). In short runs at 32 pixels center was best: a probe on CIFAR-10
    reached 0.603, compared with 0.579 for free masks (0.583 with --cells 3)."""
    share: float = 0.25
    """Fraction of the area that is masked; for blocks, which may overlap, the maximum (paper: up to a quarter)."""
    cells: int = 8
    """Noise cells along a view, from which free masks are made: about 8 in the released code; fewer make larger masked
    regions."""
    overlap: float = 0.0
    """Width of a band around the mask whose visible pixels also enter the loss, with weight `overlap_weight`, as a
    fraction of the view's side; it makes reconstructions continuous with their surroundings. Paper: 7 of 227 pixels;
    released code: 4 of 128, which is 0.031. 0 by default, because most of the loss would come from visible pixels."""
    overlap_weight: float = 10.0
    """Weight of errors in that band (paper: 10); errors in the masked region have weight 1."""
    adversarial: float = 0.0
    """Weight of the adversarial loss; the L2 loss has the rest. The paper uses 0.001 for inpainting and 0 for feature
    learning. The released code uses --momentum 0.5; training with 0.9, the default here, was stable too."""
    critic_lr_scale: float = 0.1
    """Factor on the learning rate for the critic (0.1 in the released code)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_maskable(max(3, self.side), self.share)
        require_ranges(self, cells=CELLS, overlap=OVERLAP, overlap_weight=POSITIVE_COEFFICIENT)
        require_ranges(self, adversarial=FRACTION_BELOW_1, critic_lr_scale=LR_SCALE)

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """Bottleneck and decoder of the last layer, the mean color that fills masked regions, and the critic."""
        if self.adversarial and self.critic_side < 2:
            raise UserError(
                f"a critic needs masked regions of at least 2 pixels, got {self.critic_side}; increase --share or "
                "--size."
            )
        decoder = Decoder(encoder.last, 3, self.side)
        channels, height, width = _last_map(encoder, self.side)
        fill = nn.Module()
        fill.register_buffer("color", mean_color(source, self.side))
        heads = {"bottleneck": ChannelwiseDense(channels, height, width), "decoder": decoder, "fill": fill}
        if self.adversarial:
            heads["critic"] = make_critic(self.critic_side)
        return nn.ModuleDict(heads)

    def parameter_groups(self, encoder: Encoder, heads: nn.ModuleDict) -> list[ParameterGroup]:
        """One group for encoder and decoder, and one for the critic if there is one."""
        return adversarial_groups(encoder, heads, "critic", {"critic": self.critic_lr_scale})

    @property
    def critic_side(self) -> int:
        """Side in pixels of the critic's input: the masked square for center masks, else the whole view."""
        return center_side(self.side, self.share) if self.holes == "center" else self.side

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S) and `hidden` (B, 1, S, S), a bool mask that is True where pixels are masked."""
        match self.holes:
            case "center":
                hidden = center_masks(len(batch), self.side, self.share)
            case "blocks":
                hidden = block_masks(len(batch), self.side, generator, share=self.share)
            case "free":
                hidden = free_masks(len(batch), self.side, generator, share=self.share, cells=self.cells)
        images = self.augmentation().views(batch, self.side, generator)
        return {"images": images, "hidden": to_device(hidden, images.device)}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """L2 loss on the masked region, on values in [-1, 1] (equation 1), plus the adversarial loss (2 and 3).

        Logged: `hole_error`, the mean absolute error in the masked region on values in [0, 1] (the paper's "mean L1
        loss"); with a critic also `l2` and `adversarial`, the two unweighted losses.
        """
        images, hidden = views["images"], views["hidden"]
        prediction = self._prediction(encoder, heads, views)
        error = prediction - (2 * images - 1)
        band = rim(hidden, round(self.overlap * self.side))
        # Divided by the number of pixels, not by the sum of the weights: as in the released code, errors in the masked
        # region count the same with and without a band.
        weights = hidden + self.overlap_weight * band
        l2 = (weights * error.square().mean(1, keepdim=True)).sum() / average((hidden | band).sum())
        hole_error = (error.detach().abs().mean(1, keepdim=True) / 2 * hidden).sum() / average(hidden.sum())
        if not self.adversarial:
            return l2, {"hole_error": hole_error}
        # Not log(1 - D) as in equation 2, whose gradient vanishes where the critic is confident, but -log D, as in the
        # released code.
        adversarial = F.softplus(-self._critic_logits(heads, self._filled(prediction, views))).mean()
        joint = (1 - self.adversarial) * l2 + self.adversarial * adversarial
        return joint, {"hole_error": hole_error, "l2": l2, "adversarial": adversarial}

    def critic_loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Mean binary cross-entropy of real and filled regions: log 2 at chance (equation 2).

        Logged: `accuracy_on_real` and `accuracy_on_filled`, the critic's accuracy on real and on filled regions.
        """
        with torch.no_grad():
            filled = self._filled(self._prediction(encoder, heads, views), views)
        real, made = self._critic_logits(heads, 2 * views["images"] - 1), self._critic_logits(heads, filled)
        return adversarial_loss(real, made), {
            "accuracy_on_real": (real > 0).float().mean(),
            "accuracy_on_filled": (made < 0).float().mean(),
        }

    def _prediction(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> Tensor:
        """Reconstruction of the whole view from its visible pixels: (B, 3, S, S) float32 in [-1, 1]."""
        features = encoder.last_features(_masked(heads, views))
        decoded: Tensor = heads["decoder"](heads["bottleneck"](features))
        return decoded.float().tanh()

    def _filled(self, prediction: Tensor, views: Views) -> Tensor:
        """The prediction in the masked region and the image around it: (B, 3, S, S) in [-1, 1]."""
        return torch.where(views["hidden"], prediction, 2 * views["images"] - 1)

    def _critic_logits(self, heads: nn.ModuleDict, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> (B, 1) float32 logits, positive for real.

        For center masks the critic's input is the masked square alone, as in the paper. For other shapes it is the
        whole view with its masked region filled, as in the released code for random regions.
        """
        low, side = (self.side - self.critic_side) // 2, self.critic_side
        logits: Tensor = heads["critic"](pictures[..., low : low + side, low : low + side])
        return logits.float()

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """Masked input, filled image and original side by side: `filled` (B, 3, S, 3 S)."""
        filled = (self._filled(self._prediction(encoder, heads, views), views) + 1) / 2
        # The change of range rounds, so visible pixels are taken from the image itself.
        filled = torch.where(views["hidden"], filled, views["images"])
        return {"filled": torch.cat([_masked(heads, views), filled, views["images"]], 3)}

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """A critic that guesses is right on half of the regions."""
        return {"accuracy_on_real": 0.5, "accuracy_on_filled": 0.5} if self.adversarial else {}


def _masked(heads: nn.ModuleDict, views: Views) -> Tensor:
    """Images whose masked pixels have the mean color (released code: ImageNet's): (B, 3, S, S) in [0, 1]."""
    return torch.where(views["hidden"], heads["fill"].get_buffer("color"), views["images"])


def _last_map(encoder: Encoder, size: int) -> torch.Size:
    """Shape (C, h, w) of the last layer for views of `size` pixels."""
    training = encoder.training
    with torch.no_grad():
        last = encoder.eval().last_features(torch.zeros(1, 3, size, size))
    encoder.train(training)
    if last.ndim != 4:
        raise UserError(
            f"inpainting needs an encoder whose last layer is a map (B, C, H, W), got {tuple(last.shape)}; choose "
            "another --encoder."
        )
    return last.shape[1:]


def mean_color(source: Source, size: int) -> Tensor:
    """Mean color of up to `SURVEY` images, evenly spaced over the source: (3, 1, 1) in [0, 1]."""
    total = torch.zeros(3)
    for batch in source.sample(SURVEY):
        total += batch.warp(identity(len(batch)), size).mean((2, 3)).sum(0)
    return (total / min(SURVEY, len(source))).view(3, 1, 1)


def make_critic(side: int, width: int = 64) -> nn.Sequential:
    """(B, 3, side, side) in [-1, 1] -> (B, 1): 4 x 4 convolutions of stride 2 down to about 4 pixels, as in DCGAN.

    Unlike the paper, it uses spectral norm (Miyato et al. 2018, https://arxiv.org/abs/1802.05957) instead of batch
    norm, which keeps adversarial training stable on small images: it bounds the critic's gradient, so that its loss is
    still informative where it is confident.

    Args:
        side: input size in pixels.
        width: channels of the first layer; doubled in every further layer.
    """
    halvings = max(1, round(math.log2(side / 4)))
    widths = [3, *(width * 2**n for n in range(halvings))]
    critic = nn.Sequential()
    for inputs, outputs in pairwise(widths):
        # No biases: the released code keeps them at zero.
        critic.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False))
        critic.append(nn.LeakyReLU(0.2))
    classifier = nn.Linear(widths[-1] * (side // 2**halvings) ** 2, 1)
    # The only bias. Without any, an all-zero input has logit 0, and the critic classifies low-contrast images as real.
    nn.init.zeros_(classifier.bias)
    critic.extend([nn.Flatten(), classifier])
    for module in critic:
        if isinstance(module, nn.Conv2d | nn.Linear):
            spectral_norm(module)
    return critic
