"""The `sgd` probe: linear classifiers on the pooled features of all layers, trained together by SGD.

After Zhang et al. 2016 (section 4.1 and the released prototxt): batch normalization without scale and shift, then a
linear layer; all heads are trained on the same random crops and horizontal flips (224 of 256 pixels) and tested on the
center crop. Schedule of Goyal et al. 2019 as in VISSL: 28 epochs, learning rate 0.01 per 256 images, divided by ten
after epochs 8, 16 and 24, Nesterov momentum 0.9, weight decay 5e-4. DeepCluster and Asano et al. test on ten crops.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from selftaught.evaluation.features import Viewing, pool
from selftaught.evaluation.probes.trained import TrainedProbe


@dataclass(frozen=True)
class SGDProbe(TrainedProbe):
    """Linear classifiers trained by SGD."""

    milestones: tuple[float, ...] = (8 / 28, 16 / 28, 24 / 28)
    """Fractions of the steps after which the learning rate is multiplied by gamma."""

    def inputs(self, feature: Tensor, viewing: Viewing) -> Tensor:
        """See `TrainedProbe`: pooled to (B, d)."""
        return pool(feature, viewing.dimensions, viewing.pooling)

    def head(self, shape: torch.Size, classes: int, generator: torch.Generator) -> nn.Module:
        """See `TrainedProbe`: batch norm without scale and shift, one linear layer from N(0, 0.01), no initial bias."""
        linear = nn.Linear(shape[0], classes, device="meta").to_empty(
            device="cpu"
        )  # leaves the global generator unchanged
        with torch.no_grad():
            linear.weight.normal_(0, 0.01, generator=generator)
            linear.bias.zero_()
        # The encoder is frozen, so the feature statistics are constant: a cumulative average (momentum None) suffices.
        return nn.Sequential(nn.BatchNorm1d(shape[0], affine=False, momentum=None), linear)
