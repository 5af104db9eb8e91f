"""Instance discrimination (NPID): Classify each image as itself among all images, by noise-contrastive estimation.

Each image is a class, whose weight vector is the image's last embedding, kept in a memory bank. Visually similar images
are hard to discriminate, so their embeddings become similar.

The defaults differ from the paper where its choices need hundreds of epochs: exponentials are normalized by each
image's own sum over the negatives (as in PIRL and InfoNCE) instead of a constant Z, the projection ends in a batch
norm, and the bank starts with features instead of noise. The paper's method is

    --nce-normalizer constant --no-projection-norm --bank-init random --bank-momentum 0

with 4096 negatives, temperature 0.07 and 128 dimensions, which are defaults, and the proximal term by `--proximal`.

Wu, Xiong, Yu, Lin, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018.
https://arxiv.org/abs/1805.01978

Letters: B images, m negatives, D dimensions, S pixels along a view.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from selftaught.contracts import Encoder, Outcome, Views
from selftaught.errors import UserError
from selftaught.modules.bank import unit
from selftaught.modules.instances import InstanceDiscrimination, memory


@dataclass(frozen=True)
class NPID(InstanceDiscrimination):
    """Discriminate each image from all others."""

    proximal: float = 0.0
    """Weight of the squared distance between a feature and its bank entry, which smooths training (paper: up to 50;
    released code: none)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        if self.proximal < 0:
            raise UserError(f"--proximal must be at least 0, got {self.proximal}.")

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """Noise-contrastive estimation against the bank (section 3.2), and the proximal term (3.3)."""
        features = unit(heads["project"](encoder(views["images"])))
        entries = memory(heads).recall(views["index"], views["drawn"])
        loss, logged = self.compared(heads, features, entries)
        if self.proximal:
            loss = loss + self.proximal * (features - entries.own).square().sum(1)
        return loss.mean(), {**logged, "features": features}

    def show(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """The augmented images."""
        return {"views": views["images"]}
