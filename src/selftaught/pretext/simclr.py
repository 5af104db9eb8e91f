"""SimCLR: Identify the other view of the same image among all views of the batch.

Two views of an image differ by crop and color, so what identifies both is what they show. Negatives are the views of
the other images of the batch, so larger batches are harder and better.

Chen, Kornblith, Norouzi, Hinton, "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020.
https://arxiv.org/abs/2002.05709

The optimizer is the general one; the paper's is LARS, for batches of 4,096.

Letters: B images, S pixels along a view.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from selftaught.contracts import Encoder, Outputs, Source, Views
from selftaught.errors import require_ranges
from selftaught.limits import TEMPERATURE, WIDTH
from selftaught.modules.augmented import TwoViewTask
from selftaught.modules.heads import mlp
from selftaught.modules.losses import nt_xent


@dataclass(frozen=True)
class SimCLR(TwoViewTask):
    """Identify the other view of the same image among all views of the batch."""

    defaults = {"batch_size": 256}  # noqa: RUF012
    shortcut_guards: ClassVar[Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]]] = {
        "color": ({"jitter": (0.0,) * 4, "grayscale": 0.0}, {"jitter": (0.4, 0.4, 0.4, 0.1), "grayscale": 0.2}),
        "crop": ({"view_area": (1.0, 1.0)}, {"view_area": (0.2, 1.0)}),
    }

    temperature: float = 0.2
    """Temperature of the cosine similarities (paper: 0.1 on ImageNet, 0.5 on CIFAR-10)."""
    dimensions: int = 128
    """Dimension of the embeddings (paper: 128)."""
    hidden: int = 512
    """Width of the projector's hidden layer (paper: 2048, the channels of its encoder)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_ranges(self, temperature=TEMPERATURE, dimensions=WIDTH, hidden=WIDTH)

    def projection(self, encoder: Encoder) -> nn.Module:
        """The projector g: two layers, both with batch norm, as in the released code."""
        return mlp(encoder.last.channels, self.hidden, self.dimensions, output_norm=True)

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """NT-Xent (equation 1), averaged over all views."""
        embeddings = heads["projection"](encoder(views["images"]))
        loss, accuracy = nt_xent(embeddings, self.temperature)
        return loss, {"accuracy": accuracy, "embeddings": embeddings[::2]}

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """1 / (2 B - 1): a random view is as likely to be the most similar as any other."""
        return {"accuracy": 1 / (2 * batch_size - 1)}
