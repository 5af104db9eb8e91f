"""Heads: what a task puts on an encoder and throws away afterwards."""

import logging
from typing import Literal

import torch
from torch import nn

from selftaught.contracts import Layer
from selftaught.errors import UserError

HeadKind = Literal["linear", "mlp"]

LITTLE = 16
"""Pixels per side below which a tile shows little: tiles of 8 pixels, of images of 32, taught nothing."""


def classifier(
    features: int, classes: int, kind: HeadKind = "linear", hidden: int = 512, bias: bool = True
) -> nn.Module:
    """(B, features) -> (B, classes).

    Args:
        features: channels of the encoder's last layer.
        classes: how many answers there are.
        kind: "linear", or "mlp" for one hidden layer with batch norm, which keeps what only the pretext task needs
            out of the encoder.
        hidden: width of that layer.
        bias: whether the answers have one.
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
    """(B, features) -> (B, outputs), to be brought to length 1: a `classifier`, then batch norm without a gain.

    Pooled features that passed a ReLU all point the same way, so an untrained encoder finds all images alike; about
    their mean they do not. Where they are without `norm` the classifier stands alone.
    """
    if not norm:
        return classifier(features, outputs, kind)
    return nn.Sequential(classifier(features, outputs, kind, bias=False), nn.BatchNorm1d(outputs, affine=False))


def dense(features: int, outputs: int, affine: bool = True) -> nn.Module:
    """A fully connected layer with batch norm and ReLU: (B, features) -> (B, outputs).

    Args:
        features: what comes in.
        outputs: what goes out.
        affine: whether the norm has a scale and a shift of its own to learn. Without, no unit can fall silent: Doersch
            et al. 2015 found that theirs did, and all patches looked alike to the head.
    """
    return nn.Sequential(nn.Linear(features, outputs, bias=False), nn.BatchNorm1d(outputs, affine=affine), nn.ReLU())


def require_map(layer: Layer, who: str) -> None:
    """Refuse a layer without positions, in the name of who must read a map.

    Raises:
        UserError: it has none.
    """
    if layer.stride == 0:
        raise UserError(
            f"{who} needs an encoder whose last layer is a map, found one without positions: choose another --encoder."
        )


def require_readable(encoder: nn.Module, side: int, what: Literal["tile", "crop", "view"] = "tile") -> None:
    """Refuse an encoder that cannot read images of `side` pixels: its strides leave nothing, or its patches do not fit.

    Says so where they are tiles in which there is little to see.

    Args:
        encoder: what is asked.
        side: pixels along what it will be shown.
        what: the word for that; tiles and crops have a flag of that name that says which share of --size they are.

    Raises:
        UserError: it cannot.
    """
    if what == "tile" and side < LITTLE:
        logging.getLogger(__name__).warning("tiles of %d pixels show little: a larger --size teaches more", side)
    training = encoder.training
    device = next((weight.device for weight in encoder.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            encoder.eval()(torch.zeros(1, 3, side, side, device=device))
    except (AssertionError, RuntimeError, ValueError) as error:  # encoders refuse in many ways
        alone, flag = ("", "--size") if what == "view" else (" alone", f"--size or --{what}")
        raise UserError(
            f"the encoder must be able to read a {what}{alone}, found that {what}s of {side} pixels are too small for "
            f"it: give a larger {flag}, or another --encoder."
        ) from error
    finally:
        encoder.train(training)
