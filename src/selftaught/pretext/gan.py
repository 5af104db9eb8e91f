"""GAN: Classify images as real or generated, against a generator trained to make them indistinguishable.

Goodfellow et al., "Generative Adversarial Nets", NIPS 2014. https://arxiv.org/abs/1406.2661
Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks"
(DCGAN), ICLR 2016. https://arxiv.org/abs/1511.06434

The encoder is the trunk of the discriminator, as in section 5.1 of DCGAN. The training loop's critic, the model with an
optimizer of its own, is the generator here; its images get harder to classify as the encoder improves.

Letters: B images, S pixels along a view, Z dimensions of the noise.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.warp import to_device
from selftaught.contracts import Batch, Encoder, Outputs, ParameterGroup, Source, Views
from selftaught.errors import UserError, require_ranges
from selftaught.limits import CHANNELS, LR_SCALE, WIDTH
from selftaught.modules.adversarial import adversarial_groups, adversarial_loss
from selftaught.modules.cropped import CroppedTask
from selftaught.modules.generators import Generator, uniform_noise
from selftaught.modules.norms import untracked


@dataclass(frozen=True)
class GAN(CroppedTask):
    """Classify images as real or generated, against a generator."""

    # Adam with beta1 0.5, as in section 4 of DCGAN: with larger values training oscillates. The paper's learning rate
    # is 0.0002; in short runs 0.001 gave better upper layers than 0.0003.
    defaults = {"learning_rate": 1e-3, "momentum": 0.5, "beta2": 0.99, "weight_decay": 0.0}  # noqa: RUF012

    latent: int = 100
    """Dimension of the noise, uniform in [-1, 1], from which images are generated (DCGAN: 100; BiGAN: 200, for views of
    64 pixels)."""
    generator_width: int = 64
    """Channels of the generator's largest map; maps of half the side have twice as many (DCGAN: 128; BiGAN: 64)."""
    generator_lr_scale: float = 1.0
    """Factor on the learning rate for the generator."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_ranges(self, latent=WIDTH, generator_width=CHANNELS, generator_lr_scale=LR_SCALE)

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """A linear classifier on the pooled last layer, and the generator.

        DCGAN's classifier is on the whole map. Pooling helps the generator when images are few: in short runs the
        discriminator's accuracy was 97 % with the map and 94 % with pooling, the generator's loss 6 and 1.5.
        """
        if encoder.input_mode == "tokens":
            raise UserError(
                "gan needs an encoder with color input, got one with token input, through which the generator gets no "
                "gradient; choose another --encoder."
            )
        return nn.ModuleDict(
            {
                "real": nn.Linear(encoder.last.channels, 1),
                "generator": Generator(self.latent, self.side, self.generator_width),
            }
        )

    def parameter_groups(self, encoder: Encoder, heads: nn.ModuleDict) -> list[ParameterGroup]:
        """The discriminator (encoder and classifier), and the generator as its critic."""
        return adversarial_groups(encoder, heads, "generator", {"generator": self.generator_lr_scale})

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S) and the `noise` (B, Z) from which as many images are generated."""
        images = self.augmentation().views(batch, self.side, generator)
        noise = uniform_noise(len(batch), self.latent, generator)
        return {"images": images, "noise": to_device(noise, images.device)}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Mean binary cross-entropy: log 2 at chance (equation 1 of Goodfellow et al.).

        Logged: `accuracy_on_real` and `accuracy_on_generated`, the accuracy on real and on generated images.
        """
        with torch.no_grad():
            made = heads["generator"](views["noise"])
        real, generated = self._logits(encoder, heads, views["images"]), self._generated_logits(encoder, heads, made)
        return adversarial_loss(real, generated), {
            "accuracy_on_real": (real > 0).float().mean(),
            "accuracy_on_generated": (generated < 0).float().mean(),
        }

    def critic_loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """The generator's loss, -log D, whose gradient does not vanish (section 3 of Goodfellow et al.)."""
        generated = self._generated_logits(encoder, heads, heads["generator"](views["noise"]))
        return F.softplus(-generated).mean(), {}

    def _logits(self, encoder: Encoder, heads: nn.ModuleDict, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 1) float32 logits, positive for real."""
        logits: Tensor = heads["real"](encoder(images))
        return logits.float()

    def _generated_logits(self, encoder: Encoder, heads: nn.ModuleDict, made: Tensor) -> Tensor:
        """Logits of generated images, as a separate batch for batch norm, as in the released code of DCGAN.

        They do not update the running statistics, which must be those of images for probes. A drawback: an encoder
        whose first layer has batch norm cannot use a batch's mean color, so the generator learns the color late. With
        both kinds in one batch the discriminator classified all images correctly by step 100, and training stalled.
        """
        with untracked(encoder):
            return self._logits(encoder, heads, made)

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """`generated` (B, 3, S, S), images generated from the noise."""
        return {"generated": heads["generator"](views["noise"])}

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """A discriminator that guesses is right on half of the images."""
        return {"accuracy_on_real": 0.5, "accuracy_on_generated": 0.5}
