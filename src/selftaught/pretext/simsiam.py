"""SimSiam: Predict the embedding of another view of the same image by the same network, without its gradient.

As BYOL without a momentum encoder: the stop-gradient and the predictor alone keep the embeddings from collapsing.

Chen, He, "Exploring Simple Siamese Representation Learning", CVPR 2021. https://arxiv.org/abs/2011.10566

The paper trains with SGD and keeps the predictor's learning rate constant; here it follows the schedule.

Letters: B images, S pixels along a view, D dimensions.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Encoder, Outputs, Source, Views
from selftaught.errors import require_ranges
from selftaught.limits import WIDTH
from selftaught.modules.augmented import TwoViewTask, split_views
from selftaught.modules.heads import mlp
from selftaught.modules.losses import unit_std


@dataclass(frozen=True)
class SimSiam(TwoViewTask):
    """Predict the embedding of another view of the same image by the same network, without its gradient."""

    defaults = {"batch_size": 128}  # noqa: RUF012

    dimensions: int = 512
    """Dimension of the embeddings and width of the projector (paper: 2048)."""
    bottleneck: int = 128
    """Width of the predictor's hidden layer (paper: 512, a quarter of the embeddings)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_ranges(self, dimensions=WIDTH, bottleneck=WIDTH)

    def projection(self, encoder: Encoder) -> nn.Module:
        """The projector: three layers, batch norm on all; the paper uses two layers on CIFAR-10."""
        return mlp(encoder.last.channels, self.dimensions, self.dimensions, layers=3, output_norm=True)

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """Projector and predictor."""
        projection = self.projection(encoder)
        prediction = mlp(self.dimensions, self.bottleneck, self.dimensions)
        return nn.ModuleDict({"projection": projection, "prediction": prediction})

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Negative cosine similarity of prediction and embedding, averaged over both directions (equation 2).

        Logged: `std` of unit embeddings, 0 if they collapsed, 1 if they are spread over all directions.
        """
        z1, z2 = (heads["projection"](encoder(view)).float() for view in split_views(views["images"]))
        p1, p2 = (heads["prediction"](z).float() for z in (z1, z2))
        similarity = F.cosine_similarity(p1, z2.detach()).mean() + F.cosine_similarity(p2, z1.detach()).mean()
        return -similarity / 2, {"std": unit_std(z1), "embeddings": z1}
