"""NPID: which of all the images is this? To know one again in every crop and colour, one must see what it shows.

Each image is a class of its own, and the weights of its class are what the encoder said of it last time: the memory
bank. What looks alike is confused, and so ends side by side.

Wu, Xiong, Yu, Lin, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018.
https://arxiv.org/abs/1805.01978

Letters: B images, m negatives, D dimensions, S pixels along a view.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from selftaught.contracts import Encoder, Outcome, Views
from selftaught.errors import UserError
from selftaught.parts.bank import unit
from selftaught.parts.instances import InstanceDiscrimination, memory


@dataclass(frozen=True)
class NPID(InstanceDiscrimination):
    """Tell each image from all others."""

    proximal: float = 0.0
    """Weight of the squared distance to the own entry, which calms the bank (paper: up to 50; released code: none)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        super().__post_init__()
        if self.proximal < 0:
            raise UserError(f"--proximal must be at least 0, found {self.proximal}: leave it out.")

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """Noise contrastive estimation against the bank (section 3.2), and the proximal term (3.3)."""
        features = unit(heads["project"](encoder(views["images"])))
        recalled = memory(heads).recall(views["index"], views["drawn"])
        loss, found = self.compared(heads, features, recalled)
        if self.proximal:
            loss = loss + self.proximal * (features - recalled.own).square().sum(1)
        return loss.mean(), {**found, "features": features}

    def show(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """The images as they were compared."""
        return {"views": views["images"]}
