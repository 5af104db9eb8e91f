"""GAN: Classify images as real or generated, against a generator that is trained to be taken for real.

Goodfellow et al., "Generative Adversarial Nets", NIPS 2014. https://arxiv.org/abs/1406.2661
Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks"
(DCGAN), ICLR 2016. https://arxiv.org/abs/1511.06434

The discriminator's trunk is the encoder, as in section 5.1 of DCGAN. Its opponent, which the loop calls the critic, is
the generator, which makes the task harder as the encoder improves.

Letters: B images, S pixels along a view, Z numbers that a picture is generated from.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Encoder, Outcome, ParameterGroup, Source, Views
from selftaught.errors import UserError
from selftaught.modules.adversarial import adversarial_groups, adversarial_loss, require_lr_scales
from selftaught.modules.generators import GenerationGame
from selftaught.modules.heads import require_readable
from selftaught.modules.norms import untracked


@dataclass(frozen=True)
class GAN(GenerationGame):
    """Tell images from generated ones, against a generator that learns to make them."""

    # Adam with a first beta of 0.5, as in section 4 of DCGAN: with more the players swing. The rate is 0.0002 there; a
    # short look at 0.001 left the upper layers better than one at 0.0003.
    defaults = {"learning_rate": 1e-3, "momentum": 0.5, "beta2": 0.99, "weight_decay": 0.0}  # noqa: RUF012

    generator_lr_scale: float = 1.0
    """Factor on the learning rate for the generator."""

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        super().__post_init__()
        require_lr_scales(generator=self.generator_lr_scale)

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """A linear classifier of the pooled last layer, and the opponent: the generator.

        DCGAN's classifier reads the whole map. Pooled, it gives the generator a better chance on few images: in a short
        look the encoder was right on 97 % instead of 94 %, and the generator's loss 6 instead of 1.5.
        """
        if encoder.input_mode == "tokens":
            raise UserError(
                "gan needs an encoder that reads colours, found one that reads tokens, through which no generator can "
                "learn: choose another --encoder."
            )
        require_readable(encoder, self.side, "crop")
        return nn.ModuleDict({"real": nn.Linear(encoder.last.channels, 1), "generator": self.make_generator()})

    def parameter_groups(self, encoder: Encoder, heads: nn.ModuleDict) -> list[ParameterGroup]:
        """The discriminator (encoder and classifier), and the generator as its critic."""
        return adversarial_groups(encoder, heads, "generator", {"generator": self.generator_lr_scale})

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """The mean of two cross-entropies, log 2 for an encoder that cannot tell (equation 1 of Goodfellow et al.).

        Logged: `right_on_real` and `right_on_generated`, which share of either it tells.
        """
        with torch.no_grad():
            made = heads["generator"](views["noise"])
        real, generated = self._judged(encoder, heads, views["images"]), self._judged_made(encoder, heads, made)
        return adversarial_loss(real, generated), {
            "right_on_real": (real > 0).float().mean(),
            "right_on_generated": (generated < 0).float().mean(),
        }

    def critic_loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """How surely the encoder tells what is generated: -log D, whose slope does not vanish (section 3 there)."""
        generated = self._judged_made(encoder, heads, heads["generator"](views["noise"]))
        return F.softplus(-generated).mean(), {}

    def _judged(self, encoder: Encoder, heads: nn.ModuleDict, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 1) float32, above 0 where they are taken for images of the source."""
        judged: Tensor = heads["real"](encoder(images))
        return judged.float()

    def _judged_made(self, encoder: Encoder, heads: nn.ModuleDict, made: Tensor) -> Tensor:
        """The same of what was generated: a batch of its own to batch norm, as in the release of DCGAN.

        It leaves no trace in the running statistics: a probe asks about images, and finds the statistics of images.
        The price is that an encoder whose first layer is normed cannot tell by a batch's mean colour, so the generator
        learns it late. Both in one batch was no remedy: the encoder told all by step 100, and the game was over.
        """
        with untracked(encoder):
            return self._judged(encoder, heads, made)

    def show(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """`generated` (B, 3, S, S), pictures of the noise."""
        return {"generated": heads["generator"](views["noise"])}

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """Who guesses is right half of the time."""
        return {"right_on_real": 0.5, "right_on_generated": 0.5}
