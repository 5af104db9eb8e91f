"""Turns a freshly built encoder into a baseline, by name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

import torch

from selftaught.contracts import Encoder, Source
from selftaught.errors import unknown
from selftaught.evaluation.baselines.encoders import calibrate
from selftaught.evaluation.baselines.kmeans_init import Kind, initialize

BASELINES: Mapping[str, str] = MappingProxyType(
    {
        "random": "random weights",
        "kmeans": "k-means initialization",
        "pca": "PCA initialization",
        "dictionary": "dictionary of patches",
        "scattering": "scattering",
        "pixels": "raw pixels",
        "timm:NAME": "published weights",
    }
)
"""Name -> what it is, for tables."""
FIXED = ("dictionary", "scattering", "pixels")
"""Baselines that are encoders of their own, without parameters."""


def title(name: str) -> str:
    """The description of a baseline in tables.

    Raises:
        UserError: there is no such baseline.
    """
    if _kind(name) not in BASELINES:
        raise unknown("baseline", name, BASELINES)
    return label(name)


def label(name: str) -> str:
    """The description of a baseline in tables; an unknown name, such as one of a later version, is not changed."""
    return BASELINES.get(_kind(name), name)


def _kind(name: str) -> str:
    return "timm:NAME" if name.startswith("timm:") else name


def own_encoder(name: str) -> bool:
    """Whether a baseline is an encoder of its own, so that no other can be chosen."""
    return name in FIXED or name.startswith("timm:")


def prepare(
    name: str, encoder: Encoder, source: Source, size: int, device: torch.device, seed: int, window: float = 1.0
) -> None:
    """Turn an encoder with initial weights into a baseline.

    Args:
        name: of `BASELINES`. "kmeans" and "pca" compute weights from images. For all but published weights, the
            batch-norm statistics are then computed on images.
        encoder: after `fit`; moved to `device`; left in eval mode.
        source: the images, without their labels.
        size: side of the views in pixels.
        device: where to compute.
        seed: random seed of k-means.
        window: side of the center crop as a fraction of the image.

    Raises:
        UserError: there is no such baseline, or it does not apply to this encoder.
    """
    title(name)
    encoder.to(device).eval()
    if name in ("kmeans", "pca"):
        initialize(encoder, source, size, device, torch.Generator().manual_seed(seed), cast(Kind, name), window)
    if not name.startswith("timm:"):
        calibrate(encoder, source, size, device, window=window)
