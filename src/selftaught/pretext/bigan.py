"""BiGAN: Learn to invert a generator: predict the latent code of an image, trained against a discriminator of pairs.

Donahue, Krähenbühl, Darrell, "Adversarial Feature Learning", ICLR 2017. https://arxiv.org/abs/1605.09782
On crops of one photo: Asano, Rupprecht, Vedaldi, "A critical analysis of self-supervision, or what we can learn from a
single image", ICLR 2020 ("MonoGAN"). https://arxiv.org/abs/1904.13132

The discriminator (called the critic) classifies whether a pair consists of an image and its code, or of noise and the
image generated from it. The encoder and the generator maximize the critic's loss; at the optimum they are inverses of
each other (theorem 2 of the paper), so the encoder learns the factors from which the generator makes images.

In each step the critic is updated first, then encoder and generator; the released code updates all at once.

Letters: B images, S pixels along a view, Z dimensions of a code.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.warp import to_device
from selftaught.contracts import Batch, Encoder, Outputs, ParameterGroup, Source, Views
from selftaught.errors import require_ranges
from selftaught.limits import CHANNELS, LR_SCALE, WIDTH
from selftaught.modules.adversarial import adversarial_groups, adversarial_loss
from selftaught.modules.cropped import CroppedTask
from selftaught.modules.generators import MAX_CHANNELS, Generator, uniform_noise
from selftaught.modules.heads import require_map
from selftaught.modules.norms import untracked
from selftaught.modules.precision import at_least_float32

POSITIONS = 4
"""Side to which the encoder's last map is pooled before the dense layer; also that of the generator's first map."""

JOINT = 512
"""Width of the critic's hidden dense layers."""


@dataclass(frozen=True)
class BiGAN(CroppedTask):
    """Predict the latent code of an image by inverting a generator."""

    # Adam with beta1 0.5, as in section 4 of DCGAN. With one learning rate for all (released code: 0.0002, as DCGAN)
    # the critic did not learn: its loss stayed at chance, generated images were noise, and no layer improved. So its
    # rate is the highest, and the encoder's is higher than the generator's, which has the easier problem.
    defaults = {  # noqa: RUF012
        "learning_rate": 9e-4,
        "momentum": 0.5,
        "beta2": 0.99,
        "weight_decay": 0.0,
        "batch_size": 32,  # adversarial training depends on the number of steps more than on the batch size
    }

    crop: float = 0.5
    """Side of the views and of generated images as a fraction of --size: 0.5 quarters the cost, so that more steps are
    possible; 1 for an encoder with a fixed input
    size."""
    latent: int = 100
    """Dimension of the noise, uniform in [-1, 1], from which images are generated (DCGAN: 100; BiGAN: 200, for views of
    64 pixels)."""
    generator_width: int = 64
    """Channels of the generator's largest map; maps of half the side have twice as many (DCGAN: 128; BiGAN: 64)."""
    critic_width: int = 64
    """Channels of the critic's largest map; maps of half the side have twice as many."""
    critic_lr_scale: float = 4 / 3
    """Factor on the learning rate for the critic (Heusel et al. 2017, two time-scale update rule)."""
    generator_lr_scale: float = 1 / 3
    """Factor on the learning rate for the generator, whose problem is easier than the encoder's."""
    normed: bool = True
    """Normalize codes to the mean and variance of the noise by a batch norm without scale and shift, which improved
    every layer. The paper's code is a plain dense layer."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_ranges(self, latent=WIDTH, generator_width=CHANNELS, critic_width=CHANNELS)
        require_ranges(self, critic_lr_scale=LR_SCALE, generator_lr_scale=LR_SCALE)

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """The code layer on the encoder's last map, the generator, and the critic of pairs."""
        require_map(encoder.last, "bigan")
        return nn.ModuleDict(
            {
                "code": Code(encoder.last.channels, self.latent, self.normed),
                "generator": Generator(self.latent, self.side, self.generator_width),
                "critic": PairCritic(self.latent, self.side, self.critic_width),
            }
        )

    def parameter_groups(self, encoder: Encoder, heads: nn.ModuleDict) -> list[ParameterGroup]:
        """One group each for the encoder and the heads."""
        scales = {"critic": self.critic_lr_scale, "generator": self.generator_lr_scale}
        return adversarial_groups(encoder, heads, "critic", scales)

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S) and the `noise` (B, Z) from which as many images are generated."""
        images = self.augmentation().views(batch, self.side, generator)
        noise = uniform_noise(len(batch), self.latent, generator)
        return {"images": images, "noise": to_device(noise, images.device)}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """The critic's loss with exchanged labels, whose gradient does not vanish where it is confident (section 3.4).

        Logged: `reconstruction_error`, the mean squared error of G(E(x)), which is not part of the loss.
        """
        images, noise = views["images"], views["noise"]
        codes = self._codes(encoder, heads, images)
        encoded, generated = self._logits(heads, images, codes, heads["generator"](noise), noise)
        with torch.no_grad(), untracked(heads["generator"]):
            error = F.mse_loss(heads["generator"](codes), images)
        return adversarial_loss(generated, encoded), {"reconstruction_error": error}

    def critic_loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Mean binary cross-entropy of the two kinds of pairs: log 2 at chance (equation 3).

        Logged: `accuracy_on_encoded` and `accuracy_on_generated`, the critic's accuracy on each kind.
        """
        images, noise = views["images"], views["noise"]
        with torch.no_grad():
            codes, made = self._codes(encoder, heads, images), heads["generator"](noise)
        encoded, generated = self._logits(heads, images, codes, made, noise)
        return adversarial_loss(encoded, generated), {
            "accuracy_on_encoded": (encoded > 0).float().mean(),
            "accuracy_on_generated": (generated < 0).float().mean(),
        }

    def _codes(self, encoder: Encoder, heads: nn.ModuleDict, images: Tensor) -> Tensor:
        """E(x): (B, 3, S, S) -> (B, Z)."""
        codes: Tensor = heads["code"](encoder.last_features(images))
        return codes

    def _logits(
        self, heads: nn.ModuleDict, images: Tensor, codes: Tensor, made: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The critic's logits for encoded and for generated pairs: (B, 1) float32 each.

        Both kinds are in one batch, because batch norm over each alone would remove their differences in mean, such as
        the mean color.
        """
        logits = heads["critic"](torch.cat([images, made]), torch.cat([codes, noise])).float()
        encoded, generated = logits.chunk(2)
        return encoded, generated

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """`generated` (B, 3, S, S), and images next to their reconstructions: `reconstructed` (B, 3, S, 2 S)."""
        images = views["images"]
        reconstructed = heads["generator"](self._codes(encoder, heads, images))
        return {
            "generated": heads["generator"](views["noise"]),
            "reconstructed": torch.cat([images, reconstructed], 3),
        }

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """A critic that guesses is right on half of the pairs."""
        return {"accuracy_on_encoded": 0.5, "accuracy_on_generated": 0.5}


class Code(nn.Module):
    """Code layer: a map (B, C, h, w) -> (B, latent), by a dense layer on the map pooled to 4 x 4 positions.

    Args:
        channels: C.
        latent: dimensions of a code.
        normed: whether each dimension is normalized over a batch to mean 0 and variance 1/3, those of noise that is
            uniform in [-1, 1].
    """

    def __init__(self, channels: int, latent: int, normed: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(channels * POSITIONS**2, latent, bias=not normed)
        self.norm = nn.BatchNorm1d(latent, affine=False) if normed else None

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, latent)."""
        codes: Tensor = self.dense(F.adaptive_avg_pool2d(features, POSITIONS).flatten(1))
        # In float32, like the noise, with which the critic compares codes.
        codes = at_least_float32(codes)
        return codes if self.norm is None else self.norm(codes) / math.sqrt(3)


class PairCritic(nn.Module):
    """Images (B, 3, size, size) in [0, 1] and codes (B, latent) -> logits (B, 1), positive for an image and its code.

    DCGAN's discriminator, with a projection of the code added to the output of each convolution, as in the released
    code of BiGAN, followed by dense layers on features and code together, as in Dumoulin et al. 2017 ("Adversarially
    Learned Inference"). Without the dense layers the critic classified pairs by their images alone, and the encoder,
    whose output is the code, learned little.

    Args:
        latent: dimensions of a code.
        size: side of the images in pixels.
        width: channels of the largest map; maps of half the side have twice as many.
    """

    def __init__(self, latent: int, size: int, width: int) -> None:
        super().__init__()
        halvings = max(1, round(math.log2(size / POSITIONS)))
        widths = [3, *(min(MAX_CHANNELS, width * 2**n) for n in range(halvings))]
        self.convolutions, self.codes, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for inputs, outputs in pairwise(widths):
            self.convolutions.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False))
            self.codes.append(nn.Linear(latent, outputs))
            # No norm after the first convolution (section 3 of DCGAN), so that the critic can use colors.
            self.norms.append(nn.BatchNorm2d(outputs) if inputs > 3 else nn.Identity())
        features = widths[-1] * (size // 2**halvings) ** 2
        layers = [nn.Linear(features + latent, JOINT), nn.LeakyReLU(0.2), nn.Linear(JOINT, JOINT), nn.LeakyReLU(0.2)]
        self.joint = nn.Sequential(*layers, nn.Linear(JOINT, 1))

    def forward(self, images: Tensor, codes: Tensor) -> Tensor:
        """(B, 3, size, size) and (B, latent) -> (B, 1)."""
        features = 2 * images - 1
        for convolution, code, norm in zip(self.convolutions, self.codes, self.norms, strict=True):
            features = F.leaky_relu(norm(convolution(features) + code(codes)[:, :, None, None]), 0.2)
        logits: Tensor = self.joint(torch.cat([features.flatten(1), codes], 1))
        return logits
