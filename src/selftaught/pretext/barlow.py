"""Barlow Twins: Make the cross-correlation matrix of the embeddings of two views the identity.

The diagonal makes each dimension invariant to the augmentation, and the rest makes dimensions different, so that they
do not repeat each other and cannot collapse.

Zbontar, Jing, Misra, LeCun, Deny, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021.
https://arxiv.org/abs/2103.03230

Letters: B images, S pixels along a view, D dimensions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from selftaught.contracts import Encoder, Outputs, Views
from selftaught.errors import require_ranges
from selftaught.limits import POSITIVE_COEFFICIENT, WIDTH
from selftaught.modules.augmented import AsymmetricTask, TwoViewTask, split_views
from selftaught.modules.heads import mlp
from selftaught.modules.processes import gather


@dataclass(frozen=True)
class BarlowTwins(AsymmetricTask, TwoViewTask):
    """Make the cross-correlation matrix of the embeddings of two views the identity."""

    redundancy: float = 0.005
    """Weight of the elements off the diagonal (lambda in the paper: 0.005)."""
    dimensions: int = 512
    """Dimension of the embeddings and width of the projector's three layers (paper: 8192)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_ranges(self, redundancy=POSITIVE_COEFFICIENT, dimensions=WIDTH)

    def projection(self, encoder: Encoder) -> nn.Module:
        """The projector: three layers, then the batch norm that standardizes each dimension."""
        return mlp(encoder.last.channels, self.dimensions, self.dimensions, layers=3, output_norm=True)

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Squared distance of the cross-correlation matrix from the identity (equations 1 and 2).

        Logged: `correlation`, the mean of the diagonal, whose target is 1.
        """
        z1, z2 = (gather(heads["projection"](encoder(view)).float()) for view in split_views(views["images"]))
        with torch.autocast(z1.device.type, enabled=False):
            matrix = z1.T @ z2 / len(z1)
        diagonal = matrix.diagonal()
        rest = matrix.square().sum() - diagonal.square().sum()
        return (1 - diagonal).square().sum() + self.redundancy * rest, {
            "correlation": diagonal.mean(),
            "embeddings": z1,
        }
