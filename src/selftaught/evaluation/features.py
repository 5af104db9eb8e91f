"""The features of every layer of an encoder for every image, in one pass.

Maps are pooled on a g x g grid to about as many numbers at every layer (Zhang et al. 2016), so that a layer is not
better read only because its map is larger. Images without a label (below 0) are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.augment.warp import identity
from selftaught.contracts import Encoder, Source, pooled
from selftaught.errors import UserError

MAX_SEEDS = 1000
"""An upper bound that catches typos: each seed is a whole probe, audit or set of transformations."""

Pooling = Literal["max", "average"]

DIMENSIONS = 9600
"""With this every layer of AlexNet gets the size that the papers give it: 9600, 9216, 9600, 9600, 9216."""


@dataclass(frozen=True)
class Features:
    """Some images as the layers see them."""

    layers: dict[str, Tensor]
    """Name -> (n, d) float32 on the device; d differs by layer."""
    index: Tensor
    """(n,) int64 on the CPU: which images of the source."""
    labels: Tensor
    """(n,) int64 on the device."""

    def of(self, rows: Tensor) -> "Features":
        """A part of them: `rows` is (n,) bool on the CPU."""
        here = rows.to(self.labels.device)
        return Features({name: x[here] for name, x in self.layers.items()}, self.index[rows], self.labels[here])


def grid(channels: int, side: int, dimensions: int = DIMENSIONS) -> int:
    """The largest g with channels * g * g <= dimensions and g <= side; at least 1."""
    g = 1
    while g < side and channels * (g + 1) ** 2 <= dimensions:
        g += 1
    return g


def pool(feature: Tensor, dimensions: int = DIMENSIONS, kind: Pooling = "average") -> Tensor:
    """Shrink a feature to at most `dimensions` numbers, unless it has more channels than that.

    Args:
        feature: (B, C, H, W), pooled on a grid; (B, L, D), averaged over positions as iGPT's (Chen et al. 2020,
            section 3.3); or (B, D), left alone.
        dimensions: the most numbers wanted.
        kind: "max" is the pooling of Gidaris et al. 2018 and of Asano et al. 2020; "average" that of Caron et al. 2018
            and, for ResNets, of Goyal et al. 2019.

    Returns:
        (B, d) float32.
    """
    if feature.ndim != 4:
        return pooled(feature.float())
    g = grid(feature.shape[1], min(feature.shape[-2:]), dimensions)
    shrink = F.adaptive_max_pool2d if kind == "max" else F.adaptive_avg_pool2d
    return shrink(feature.float(), g).flatten(1)


@dataclass(frozen=True)
class Viewing:
    """Size of the views, device, and pooling of the features."""

    size: int
    """Side of the views in pixels."""
    device: torch.device
    dimensions: int = DIMENSIONS
    pooling: Pooling = "average"
    batch_size: int = 256
    """Images that the encoder sees at a time."""
    rows: int = 2048
    """Images per yield of `layer_features`, at most: matrix products like many."""


def layer_features(encoder: Encoder, source: Source, viewing: Viewing) -> Iterator[Features]:
    """Every labelled image once, in order, seen whole by an encoder in eval mode (in which it is left).

    Args:
        encoder: on the device.
        source: the images.
        viewing: how they are shown.

    Raises:
        UserError: the source has no labels, or a feature is not finite.
    """
    require_labels(source)
    encoder.eval()
    waiting: list[Features] = []
    for batch in source.batches(min(viewing.batch_size, viewing.rows), viewing.device):
        with torch.inference_mode():
            seen = encoder.features(encoder.preprocess(batch.warp(identity(len(batch)), viewing.size)))
            layers = {name: pool(feature, viewing.dimensions, viewing.pooling) for name, feature in seen.items()}
        features = Features(layers, batch.index.cpu(), batch.targets["label"])
        if waiting and sum(len(part.index) for part in waiting) + len(batch) > viewing.rows:
            yield _joined(waiting)
            waiting = []
        waiting.append(features.of((features.labels >= 0).cpu()))
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[Features]) -> Features:
    layers = {name: torch.cat([part.layers[name] for part in parts]) for name in parts[0].layers}
    for name, x in layers.items():
        if not x.sum().isfinite():
            raise UserError(
                f"the features of layer {name} contain infinity or NaN: the training of the encoder diverged; "
                "pretrain again with a lower --learning-rate."
            )
    return Features(layers, torch.cat([part.index for part in parts]), torch.cat([part.labels for part in parts]))


def require_seeds(seeds: int) -> None:
    """Refuse a number of seeds below 1, or one so large that it is a typo."""
    if not 1 <= seeds <= MAX_SEEDS:
        raise UserError(f"--seeds must be from 1 to {MAX_SEEDS:,}, got {seeds:,}.")


def require_labels(source: Source) -> tuple[str, ...]:
    """The names of the classes.

    Raises:
        UserError: the source has no labels, or only one class.
    """
    if source.classes is None or "label" not in source.targets:
        raise UserError(
            f"a probe needs labels, but {source.name} has none: "
            "give --data a folder with one subfolder per class, or the labels with --labels file.csv."
        )
    if len(source.classes) < 2:
        raise UserError(
            f"a probe needs at least 2 classes, but {source.name} has {len(source.classes)}: "
            "give --data images of several classes."
        )
    return source.classes
