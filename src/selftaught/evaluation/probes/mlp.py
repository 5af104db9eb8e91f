"""The `mlp` probe: a classifier with two hidden layers on the feature map of every layer.

The non-linear classifier of Gidaris et al. 2018 on CIFAR-10: two fully connected layers of 200 units with batch norm
and ReLU, then a linear layer; learning rate 0.1 at 128 images, divided by five after epochs 20, 40 and 45 of 50 (the
released configuration), Nesterov momentum 0.9, weight decay 5e-4. The paper flattens whole maps; here maps with more
than 9,600 numbers are pooled first, as for the other probes.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from selftaught.errors import require_ranges
from selftaught.evaluation.features import Viewing, pool
from selftaught.evaluation.probes.trained import TrainedProbe
from selftaught.limits import WIDTH


@dataclass(frozen=True)
class MLPProbe(TrainedProbe):
    """Classifiers with two hidden layers, trained by SGD."""

    epochs: int = 50
    """Number of passes over the training images."""
    learning_rate: float = 0.2
    """Learning rate per 256 images of a batch."""
    milestones: tuple[float, ...] = (0.4, 0.8, 0.9)
    """Fractions of the steps after which the learning rate is multiplied by gamma."""
    gamma: float = 0.2
    """Factor on the learning rate at each milestone."""
    hidden: int = 200
    """Units of each hidden layer."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        require_ranges(self, hidden=WIDTH)

    def inputs(self, feature: Tensor, viewing: Viewing) -> Tensor:
        """See `TrainedProbe`: pooled to (B, d)."""
        return pool(feature, viewing.dimensions, viewing.pooling)

    def head(self, shape: torch.Size, classes: int, generator: torch.Generator) -> nn.Module:
        """See `TrainedProbe`."""
        sizes = (shape[0], self.hidden, self.hidden)
        blocks: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            linear = nn.Linear(inputs, outputs, bias=False, device="meta").to_empty(
                device="cpu"
            )  # batch norm cancels a bias
            blocks += [linear, nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
        return initialized(
            nn.Sequential(*blocks, nn.Linear(self.hidden, classes, device="meta").to_empty(device="cpu")), generator
        )


def initialized(head: nn.Module, generator: torch.Generator) -> nn.Module:
    """Draw convolutions and linear layers from He's normal distribution (fan out, as in the release); no biases."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return head
