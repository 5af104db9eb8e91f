"""BiGAN: Invert a generator: learn the latent code of an image, against a critic of pairs of image and code.

Donahue, Krähenbühl, Darrell, "Adversarial Feature Learning", ICLR 2017. https://arxiv.org/abs/1605.09782
On crops of one photo: Asano, Rupprecht, Vedaldi, "A critical analysis of self-supervision, or what we can learn from a
single image", ICLR 2020 ("MonoGAN"). https://arxiv.org/abs/1904.13132

The critic classifies whether a pair is an image with its encoding, or a generated image with the noise that it was
generated from. The encoder and the generator maximize the critic's loss; at the optimum they are inverses of each other
(theorem 2 of the paper), so the encoder learns the factors from which the generator makes images.

In each step the critic is updated first, then encoder and generator; the release is said to update all at once.

Letters: B images, S pixels along a view, Z numbers of a code.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Encoder, Outcome, ParameterGroup, Source, Views
from selftaught.errors import UserError
from selftaught.modules.adversarial import adversarial_groups, adversarial_loss, require_lr_scales
from selftaught.modules.generators import MOST, GenerationGame
from selftaught.modules.heads import require_map, require_readable
from selftaught.modules.norms import untracked
from selftaught.modules.precision import at_least_float32

POSITIONS = 4
"""Positions along the map that a code is read off: as many as along the one that a generator begins with."""

JOINT = 512
"""Numbers in each of the critic's dense layers."""


@dataclass(frozen=True)
class BiGAN(GenerationGame):
    """Invert a generator: learn the latent code of an image."""

    # Adam with a first beta of 0.5, as in section 4 of DCGAN. At one rate for all (the release: 0.0002, DCGAN's) the
    # critic is fooled from the start: its loss stays at chance, pictures are grain, no layer learns. So it leads. The
    # encoder follows more closely than the generator, which has the easier part.
    defaults = {  # noqa: RUF012
        "learning_rate": 9e-4,
        "momentum": 0.5,
        "beta2": 0.99,
        "weight_decay": 0.0,
        "batch_size": 32,  # what matters to a game is the number of steps
    }

    crop: float = 0.5
    """Side of the views and of generated images as a fraction of --size: a quarter of the cost buys more steps; 1 for
    an encoder with a fixed input size."""
    critic_width: int = 64
    """Channels of the critic's largest map; maps of half the side have twice as many."""
    critic_lr_scale: float = 4 / 3
    """Factor on the learning rate for the critic (Heusel et al. 2017, two time-scale update rule)."""
    generator_lr_scale: float = 1 / 3
    """Factor on the learning rate for the generator, whose part is easier than the encoder's."""
    normed: bool = True
    """Normalize codes to the mean and variance of the noise by a batch norm without gain, which improved every layer.
    The paper's code is a plain dense layer."""

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        super().__post_init__()
        if self.critic_width < 1:
            raise UserError(f"--critic-width must be at least 1, found {self.critic_width}: try 64.")
        require_lr_scales(critic=self.critic_lr_scale, generator=self.generator_lr_scale)

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """What reads the code off the encoder's last map, the generator, and the critic of pairs."""
        require_readable(encoder, self.side, "crop")
        require_map(encoder.last, "bigan")
        return nn.ModuleDict(
            {
                "code": Code(encoder.last.channels, self.latent, self.normed),
                "generator": self.make_generator(),
                "critic": PairCritic(self.latent, self.side, self.critic_width),
            }
        )

    def parameter_groups(self, encoder: Encoder, heads: nn.ModuleDict) -> list[ParameterGroup]:
        """Encoder and code, generator, critic."""
        scales = {"critic": self.critic_lr_scale, "generator": self.generator_lr_scale}
        return adversarial_groups(encoder, heads, "critic", scales)

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """The critic's loss with the answers exchanged: as section 3.4, for the slope where the critic is sure.

        Logged: `reconstruction_error`, the mean square of G(E(x)) - x, which nobody minimises.
        """
        images, noise = views["images"], views["noise"]
        codes = self._codes(encoder, heads, images)
        encoded, generated = self._judged(heads, images, codes, heads["generator"](noise), noise)
        with torch.no_grad(), untracked(heads["generator"]):
            error = F.mse_loss(heads["generator"](codes), images)
        return adversarial_loss(generated, encoded), {"reconstruction_error": error}

    def critic_loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """Which pair is it? The mean of two cross-entropies, log 2 for a critic that cannot tell (equation 3).

        Logged: `right_on_encoded` and `right_on_generated`, which share of either it tells.
        """
        images, noise = views["images"], views["noise"]
        with torch.no_grad():
            codes, made = self._codes(encoder, heads, images), heads["generator"](noise)
        encoded, generated = self._judged(heads, images, codes, made, noise)
        return adversarial_loss(encoded, generated), {
            "right_on_encoded": (encoded > 0).float().mean(),
            "right_on_generated": (generated < 0).float().mean(),
        }

    def _codes(self, encoder: Encoder, heads: nn.ModuleDict, images: Tensor) -> Tensor:
        """E(x): (B, 3, S, S) -> (B, Z)."""
        codes: Tensor = heads["code"](encoder.last_features(images))
        return codes

    def _judged(
        self, heads: nn.ModuleDict, images: Tensor, codes: Tensor, made: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the critic makes of either kind of pairs: (B, 1) float32 each.

        One batch of both, so that batch norm leaves in what tells them apart on the whole, such as their mean colour.
        """
        judged = heads["critic"](torch.cat([images, made]), torch.cat([codes, noise])).float()
        encoded, generated = judged.chunk(2)
        return encoded, generated

    def show(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """`generated` (B, 3, S, S), and images beside what is made of their codes: `reconstructed` (B, 3, S, 2 S)."""
        images = views["images"]
        again = heads["generator"](self._codes(encoder, heads, images))
        return {
            "generated": heads["generator"](views["noise"]),
            "reconstructed": torch.cat([images, again], 3),
        }

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """A critic that guesses."""
        return {"right_on_encoded": 0.5, "right_on_generated": 0.5}


class Code(nn.Module):
    """(B, C, h, w), a map -> (B, latent), by a dense layer that sees where things are.

    Args:
        channels: C.
        latent: numbers of a code.
        normed: whether each has, over a batch, mean 0 and variance 1/3, as noise that is uniform from -1 to 1.
    """

    def __init__(self, channels: int, latent: int, normed: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(channels * POSITIONS**2, latent, bias=not normed)
        self.norm = nn.BatchNorm1d(latent, affine=False) if normed else None

    def forward(self, seen: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, latent)."""
        codes: Tensor = self.dense(F.adaptive_avg_pool2d(seen, POSITIONS).flatten(1))
        # In float32, as the noise that the critic compares codes with.
        codes = at_least_float32(codes)
        return codes if self.norm is None else self.norm(codes) / math.sqrt(3)


class PairCritic(nn.Module):
    """Images (B, 3, size, size) in [0, 1] and codes (B, latent) -> (B, 1), above 0 for an image and its encoding.

    DCGAN's discriminator, with the code added to what each of its convolutions finds, as in the release of BiGAN; then
    dense layers that see both, as in its sister (Dumoulin et al. 2017, "Adversarially Learned Inference"). Without them
    pairs were told by their pictures, and the encoder, whose part is the code, learned little.

    Args:
        latent: numbers of a code.
        size: pixels along the images.
        width: channels of the largest map; each half as large has twice as many.
    """

    def __init__(self, latent: int, size: int, width: int) -> None:
        super().__init__()
        halvings = max(1, round(math.log2(size / POSITIONS)))
        widths = [3, *(min(MOST, width * 2**n) for n in range(halvings))]
        self.convolutions, self.codes, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for inputs, outputs in pairwise(widths):
            self.convolutions.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False))
            self.codes.append(nn.Linear(latent, outputs))
            # None on what stands first (section 3 of DCGAN): pictures have to be judged by their colours, too.
            self.norms.append(nn.BatchNorm2d(outputs) if inputs > 3 else nn.Identity())
        seen = widths[-1] * (size // 2**halvings) ** 2
        layers = [nn.Linear(seen + latent, JOINT), nn.LeakyReLU(0.2), nn.Linear(JOINT, JOINT), nn.LeakyReLU(0.2)]
        self.joint = nn.Sequential(*layers, nn.Linear(JOINT, 1))

    def forward(self, images: Tensor, codes: Tensor) -> Tensor:
        """(B, 3, size, size) and (B, latent) -> (B, 1)."""
        seen = 2 * images - 1
        for convolution, code, norm in zip(self.convolutions, self.codes, self.norms, strict=True):
            seen = F.leaky_relu(norm(convolution(seen) + code(codes)[:, :, None, None]), 0.2)
        judged: Tensor = self.joint(torch.cat([seen.flatten(1), codes], 1))
        return judged
