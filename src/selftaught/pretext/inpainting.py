"""Inpainting: Reconstruct a masked region of the image from the rest of it.

Pathak, Krähenbühl, Donahue, Darrell, Efros, "Context Encoders: Feature Learning by Inpainting", CVPR 2016.
https://arxiv.org/abs/1604.07379

A hole has many fillings, and the mean of them, which least squares asks for, is blurred. So a critic may be set against
the encoder and its decoder: it learns to tell fillings from what was there, and they learn to be taken for that. It is
there for sharper pictures; the authors' own features were learned by least squares alone, so it is off unless asked
for.

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
from selftaught.contracts import Batch, Encoder, Outcome, ParameterGroup, Source, Views
from selftaught.errors import UserError
from selftaught.modules.adversarial import adversarial_groups, adversarial_loss, require_lr_scales
from selftaught.modules.crops import CropTask
from selftaught.modules.decoders import ChannelwiseDense, Decoder
from selftaught.modules.heads import require_readable

SURVEY = 2048
"""The most images that the mean colour is measured on."""


@dataclass(frozen=True)
class Inpainting(CropTask):
    """Fill a hole by least squares and, if asked for, against a critic."""

    holes: Literal["center", "blocks", "free"] = "center"
    """A square in the middle, blocks anywhere, or regions of any shape. The paper's features have the last, as with one
    place for all holes an encoder may learn what stands at its border and little else (section 3.3). In short runs at
    32 pixels the centre taught more: 0.603 of a probe on CIFAR-10 against 0.579, and 0.583 with --cells 3."""
    share: float = 0.25
    """Of the area that is hidden; by blocks, which may overlap, at most so much (the paper: up to a quarter)."""
    cells: int = 8
    """Of the noise along a view that free holes are cut from: about 8 in the release; fewer make larger holes."""
    overlap: float = 0.0
    """How far around the hole, as a share of the view's side, shown pixels are asked for too, with a weight of
    `overlap_weight`, so that fillings join what surrounds them. 7 of 227 pixels in the paper and 4 of 128 in the
    release, so 0.031; 0 by default, as most of the loss would then ask for what is seen."""
    overlap_weight: float = 10.0
    """How much an error there counts (the paper: 10); an error in the hole counts 1."""
    adversarial: float = 0.0
    """Weight of the adversarial loss; least squares have the rest. The paper fills with 0.001 and learns features with
    0. The release has a --momentum of 0.5; with 0.9, our default, the game was stable too."""
    critic_lr_scale: float = 0.1
    """Factor on the learning rate for the critic (0.1 in the released code)."""
    crop: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        super().__post_init__()
        require_maskable(max(3, self.side), self.share)
        if self.cells < 1:
            raise UserError(f"--cells must be at least 1, found {self.cells}: try 8.")
        if not 0 <= self.overlap < 0.5 or not 0 < self.overlap_weight < math.inf:
            raise UserError(
                "--overlap must lie in [0, 0.5) and --overlap-weight be above 0 and finite, found "
                f"{self.overlap} and {self.overlap_weight}: the paper has 0.031 and 10."
            )
        require_lr_scales(critic=self.critic_lr_scale)
        if not 0 <= self.adversarial < 1:
            raise UserError(f"--adversarial must lie in [0, 1), found {self.adversarial}: the paper has 0.001.")

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """Bottleneck and decoder of the last layer, the mean colour, which fills what is hidden, and the critic."""
        if self.adversarial and self.judged_side < 2:
            raise UserError(
                f"a critic needs holes of at least 2 pixels, found {self.judged_side}: give a larger --share or --size."
            )
        require_readable(encoder, self.side, "crop")
        decoder = Decoder(encoder.last, 3, self.side)
        channels, height, width = _last_map(encoder, self.side)
        fill = nn.Module()
        fill.register_buffer("color", mean_color(source, self.side))
        heads = {"bottleneck": ChannelwiseDense(channels, height, width), "decoder": decoder, "fill": fill}
        if self.adversarial:
            heads["critic"] = make_critic(self.judged_side)
        return nn.ModuleDict(heads)

    def parameter_groups(self, encoder: Encoder, heads: nn.ModuleDict) -> list[ParameterGroup]:
        """Encoder and decoder, and the critic where there is one."""
        return adversarial_groups(encoder, heads, "critic", {"critic": self.critic_lr_scale})

    @property
    def judged_side(self) -> int:
        """Pixels along what the critic sees: the hole where it is the centre, else the whole view."""
        return center_side(self.side, self.share) if self.holes == "center" else self.side

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S) and `hidden` (B, 1, S, S) of bool, True where the encoder is not to see them."""
        match self.holes:
            case "center":
                hidden = center_masks(len(batch), self.side, self.share)
            case "blocks":
                hidden = block_masks(len(batch), self.side, generator, share=self.share)
            case "free":
                hidden = free_masks(len(batch), self.side, generator, share=self.share, cells=self.cells)
        images = self.cropped(batch, generator)
        return {"images": images, "hidden": to_device(hidden, images.device)}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """Least squares on the hole, values from -1 to 1 (equation 1), and what the critic adds to it (2 and 3).

        Logged: `hole_error`, the mean absolute error in the hole, values from 0 to 1 (the paper's "mean L1 loss");
        with a critic also `l2` and `adversarial`, the two losses before they are weighted.
        """
        images, hidden = views["images"], views["hidden"]
        answer = self._answer(encoder, heads, views)
        off = answer - (2 * images - 1)
        beside = rim(hidden, round(self.overlap * self.side))
        # The weights do not divide: as in the release, the hole's own errors count the same with and without a rim.
        weights = hidden + self.overlap_weight * beside
        l2 = (weights * off.square().mean(1, keepdim=True)).sum() / (hidden | beside).sum()
        hole_error = (off.detach().abs().mean(1, keepdim=True) / 2 * hidden).sum() / hidden.sum()
        if not self.adversarial:
            return l2, {"hole_error": hole_error}
        # Not log(1 - D), as equation 2 has it, whose slope vanishes where the critic is sure: -log D, as the release.
        adversarial = F.softplus(-self._judged(heads, self._filled(answer, views))).mean()
        joint = (1 - self.adversarial) * l2 + self.adversarial * adversarial
        return joint, {"hole_error": hole_error, "l2": l2, "adversarial": adversarial}

    def critic_loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """Is it a filling? The mean of the two cross-entropies, log 2 for a critic that cannot tell (equation 2).

        Logged: `right_on_real` and `right_on_filled`, which share of either it tells.
        """
        with torch.no_grad():
            filled = self._filled(self._answer(encoder, heads, views), views)
        real, made = self._judged(heads, 2 * views["images"] - 1), self._judged(heads, filled)
        return adversarial_loss(real, made), {
            "right_on_real": (real > 0).float().mean(),
            "right_on_filled": (made < 0).float().mean(),
        }

    def _answer(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> Tensor:
        """What is made of what is shown: (B, 3, S, S) float32 from -1 to 1, the hole and all else."""
        seen = encoder.last_features(_holed(heads, views))
        decoded: Tensor = heads["decoder"](heads["bottleneck"](seen))
        return decoded.float().tanh()

    def _filled(self, answer: Tensor, views: Views) -> Tensor:
        """The answer in the hole, the truth around it: (B, 3, S, S) from -1 to 1."""
        return torch.where(views["hidden"], answer, 2 * views["images"] - 1)

    def _judged(self, heads: nn.ModuleDict, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) from -1 to 1 -> (B, 1) float32, above 0 where the critic takes them for real.

        It sees the filling alone where that is the centre, as in the paper. Holes of other shapes have no picture of
        their own: it sees the whole view with its hole filled, as in the release for random regions.
        """
        low, side = (self.side - self.judged_side) // 2, self.judged_side
        judged: Tensor = heads["critic"](pictures[..., low : low + side, low : low + side])
        return judged.float()

    def show(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """What is shown, what is filled in, what is true, side by side: `filled` (B, 3, S, 3 S)."""
        filled = (self._filled(self._answer(encoder, heads, views), views) + 1) / 2
        # Halving and doubling rounds: around the hole stands the image itself.
        filled = torch.where(views["hidden"], filled, views["images"])
        return {"filled": torch.cat([_holed(heads, views), filled, views["images"]], 3)}

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """A critic that guesses."""
        return {"right_on_real": 0.5, "right_on_filled": 0.5} if self.adversarial else {}


def _holed(heads: nn.ModuleDict, views: Views) -> Tensor:
    """The images with the mean colour where they are hidden (the release: ImageNet's): (B, 3, S, S) in [0, 1]."""
    return torch.where(views["hidden"], heads["fill"].get_buffer("color"), views["images"])


def _last_map(encoder: Encoder, size: int) -> torch.Size:
    """C, h and w of the last layer for views of `size` pixels."""
    training = encoder.training
    with torch.no_grad():
        last = encoder.eval().last_features(torch.zeros(1, 3, size, size))
    encoder.train(training)
    if last.ndim != 4:
        raise UserError(
            f"inpainting needs an encoder whose last layer is a map (B, C, H, W), found {tuple(last.shape)}: choose "
            "another --encoder."
        )
    return last.shape[1:]


def mean_color(source: Source, size: int) -> Tensor:
    """Mean red, green and blue of some images of the source, spread evenly over it: (3, 1, 1) in [0, 1]."""
    total = torch.zeros(3)
    for batch in source.sample(SURVEY):
        total += batch.warp(identity(len(batch)), size).mean((2, 3)).sum(0)
    return (total / min(SURVEY, len(source))).view(3, 1, 1)


def make_critic(side: int, width: int = 64) -> nn.Sequential:
    """(B, 3, side, side) from -1 to 1 -> (B, 1): halved by 4 x 4 convolutions down to about 4 pixels, as DCGAN's.

    What keeps the game in balance on small images is not in the paper. Spectral norm (Miyato et al. 2018,
    https://arxiv.org/abs/1802.05957) in the place of batch norm bounds the critic's slope, so that it still tells
    where to go when it is sure.

    Args:
        side: pixels along what it sees.
        width: channels of the first layer; they double with each.
    """
    halvings = max(1, round(math.log2(side / 4)))
    widths = [3, *(width * 2**n for n in range(halvings))]
    critic = nn.Sequential()
    for inputs, outputs in pairwise(widths):
        # Without biases: the release keeps them at zero.
        critic.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False))
        critic.append(nn.LeakyReLU(0.2))
    read = nn.Linear(widths[-1] * (side // 2**halvings) ** 2, 1)
    nn.init.zeros_(read.bias)  # but one, or it takes dull pictures for real: without any, what is zero is judged zero
    critic.extend([nn.Flatten(), read])
    for module in critic:
        if isinstance(module, nn.Conv2d | nn.Linear):
            spectral_norm(module)
    return critic
