"""BYOL: Predict the embedding of another view of the same image by a momentum encoder (the target network).

There are no negatives. A predictor on the online network and a target that is a slowly moving average of it keep the
embeddings from collapsing to a constant.

Grill, Strub, Altché, Tallec, Richemond, Buchatskaya et al., "Bootstrap Your Own Latent: A New Approach to
Self-Supervised Learning", NeurIPS 2020. https://arxiv.org/abs/2006.07733

Letters: B images, S pixels along a view, D dimensions.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Encoder, Outputs, Source, Views
from selftaught.errors import require_ranges
from selftaught.limits import FRACTION, WIDTH
from selftaught.modules.augmented import AsymmetricTask, TwoViewTask, split_views
from selftaught.modules.heads import mlp
from selftaught.modules.losses import unit_std
from selftaught.modules.momentum import cosine_momentum, momentum_copy, update_average


@dataclass(frozen=True)
class BYOL(AsymmetricTask, TwoViewTask):
    """Predict the embedding of another view of the same image by a momentum encoder."""

    defaults = {"batch_size": 128}  # noqa: RUF012

    target_momentum: float = 0.99
    """Initial momentum of the target network, which rises to 1 by a cosine (paper: 0.996 for 1,000 epochs, 0.99 for
    300)."""
    dimensions: int = 256
    """Dimension of the embeddings (paper: 256)."""
    hidden: int = 1024
    """Width of the hidden layers of projector and predictor (paper: 4096)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_ranges(self, dimensions=WIDTH, hidden=WIDTH, target_momentum=FRACTION)

    def projection(self, encoder: Encoder) -> nn.Module:
        """The projector."""
        return mlp(encoder.last.channels, self.hidden, self.dimensions)

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """Projector, predictor, and the target network: copies of encoder and projector."""
        projection = self.projection(encoder)
        prediction = mlp(self.dimensions, self.hidden, self.dimensions)
        target = momentum_copy(encoder, projection)
        return nn.ModuleDict({"projection": projection, "prediction": prediction, "target": target})

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Squared distance of unit vectors, prediction and target (equation 2), of both views.

        Logged: `std`, the standard deviation of unit target embeddings times the root of D: 0 if they collapsed, 1 if
        they are spread over all directions.
        """
        first, second = split_views(views["images"])
        embeddings = [heads["projection"](encoder(view)) for view in (first, second)]
        predictions = [heads["prediction"](each).float() for each in embeddings]
        with torch.no_grad():
            targets = [heads["target"](view).float() for view in (second, first)]
        pairs = zip(predictions, targets, strict=True)
        loss = torch.stack([2 - 2 * F.cosine_similarity(*pair).mean() for pair in pairs]).sum()
        return loss, {"std": unit_std(targets[0]), "embeddings": embeddings[0]}

    def after_step(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, outputs: Outputs, progress: float = 0.0
    ) -> None:
        """Update the target network (equation 1)."""
        momentum = cosine_momentum(self.target_momentum, progress)
        update_average(heads["target"], encoder, heads["projection"], momentum=momentum)
