"""Heads: what a task puts on an encoder and throws away afterwards."""

from typing import Literal

from torch import nn

HeadKind = Literal["linear", "mlp"]


def classifier(features: int, classes: int, kind: HeadKind = "linear", hidden: int = 512) -> nn.Module:
    """(B, features) -> (B, classes).

    Args:
        features: channels of the encoder's last layer.
        classes: how many answers there are.
        kind: "linear", or "mlp" for one hidden layer with batch norm, which keeps what only the pretext task needs
            out of the encoder.
        hidden: width of that layer.
    """
    if kind == "linear":
        return nn.Linear(features, classes)
    return nn.Sequential(
        nn.Linear(features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )
