"""Heads: layers that a task adds to the encoder and that are discarded after pretraining."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Layer
from selftaught.errors import UserError

HeadKind = Literal["linear", "mlp"]


def classifier(
    features: int, classes: int, kind: HeadKind = "linear", hidden: int = 512, bias: bool = True
) -> nn.Module:
    """(B, features) -> (B, classes).

    Args:
        features: channels of the encoder's last layer.
        classes: number of classes.
        kind: "linear", or "mlp" for one hidden layer with batch norm, so that features specific to the pretext task are
            learned in the head rather than in the encoder.
        hidden: width of the hidden layer.
        bias: whether the last layer has a bias.
    """
    if kind == "linear":
        return nn.Linear(features, classes, bias=bias)
    return nn.Sequential(
        nn.Linear(features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes, bias=bias),
    )


def embedding(features: int, outputs: int, kind: HeadKind = "linear", norm: bool = True) -> nn.Module:
    """Projection (B, features) -> (B, outputs), to be L2-normalized: a `classifier`, then batch norm without scale.

    Features after a ReLU and pooling have similar directions, so all embeddings of an untrained encoder are similar;
    after subtraction of their mean they are not. With `norm` False there is no batch norm.
    """
    if not norm:
        return classifier(features, outputs, kind)
    return nn.Sequential(classifier(features, outputs, kind, bias=False), nn.BatchNorm1d(outputs, affine=False))


def mlp(
    features: int,
    hidden: int,
    outputs: int,
    *,
    layers: int = 2,
    norm: bool = True,
    output_norm: bool = False,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Projector or predictor of a joint-embedding task: (B, features) -> (B, outputs).

    Args:
        features: input dimension.
        hidden: width of the hidden layers.
        outputs: output dimension.
        layers: number of linear layers.
        norm: whether hidden layers have batch norm, before their activation.
        output_norm: whether the output has batch norm, without scale and shift.
        activation: of the hidden layers.
    """
    blocks = nn.Sequential()
    for _ in range(layers - 1):
        blocks.append(nn.Linear(features, hidden, bias=not norm))
        if norm:
            blocks.append(nn.BatchNorm1d(hidden))
        blocks.append(activation())
        features = hidden
    blocks.append(nn.Linear(features, outputs, bias=not output_norm))
    if output_norm:
        blocks.append(nn.BatchNorm1d(outputs, affine=False))
    return blocks


class Prototypes(nn.Module):
    """Cosine similarities with K learned vectors: (B, D) -> (B, K), in float32.

    Args:
        dimensions: D.
        count: K.
    """

    def __init__(self, dimensions: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(count, dimensions), dim=1))

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, D) -> (B, K), from -1 to 1."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return F.normalize(embeddings.float(), dim=1) @ F.normalize(self.weight, dim=1).T


def dense(features: int, outputs: int, affine: bool = True) -> nn.Module:
    """A fully connected layer with batch norm and ReLU: (B, features) -> (B, outputs).

    Args:
        features: input dimension.
        outputs: output dimension.
        affine: whether the norm has a learned scale and shift. Without them, no unit can become inactive: in Doersch et
            al. 2015 they did, and the outputs for all patches became alike.
    """
    return nn.Sequential(nn.Linear(features, outputs, bias=False), nn.BatchNorm1d(outputs, affine=affine), nn.ReLU())


def require_map(layer: Layer, user: str) -> None:
    """Reject a layer without positions.

    Args:
        layer: the layer.
        user: the module that needs a map, for the error message.

    Raises:
        UserError: the layer has no positions.
    """
    if layer.stride == 0:
        raise UserError(
            f"{user} needs an encoder whose last layer is a map, got one without positions; choose another --encoder."
        )
