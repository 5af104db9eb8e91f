"""Feature extraction: the pooled features of every layer for all labeled images, in one pass.

Feature maps are pooled on a g x g grid to about the same number of dimensions at every layer (Zhang et al. 2016), so
that no layer has an advantage only because its map is larger. Images without a label (negative) are skipped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.augment.warp import identity
from selftaught.contracts import Batch, Encoder, Source, pooled
from selftaught.errors import UserError, require_between
from selftaught.limits import LEARNING_RATE, SEEDS
from selftaught.modules.processes import join_parts, processes

Pooling = Literal["average", "max", "bilinear"]
"""Ways to pool feature maps, see `pool_to`."""

DIMENSIONS = 9600
"""Default limit. It gives the layers of AlexNet the sizes of the papers: 9600, 9216, 9600, 9600, 9216."""


@dataclass(frozen=True)
class Features:
    """Pooled features of some images, for every layer."""

    layers: dict[str, Tensor]
    """Name -> (n, d) float32 on the device; d differs by layer."""
    index: Tensor
    """(n,) int64 on the CPU: indices of the images in the source."""
    labels: Tensor
    """(n,) int64, or (n, k) int8 where images may have several classes, on the device; see `labels_of`."""

    def of(self, rows: Tensor) -> "Features":
        """Select images: `rows` is (n,) bool on the CPU."""
        mask = rows.to(self.labels.device)
        return Features({name: x[mask] for name, x in self.layers.items()}, self.index[rows], self.labels[mask])

    def first(self, count: int) -> "Features":
        """The first `count` images."""
        layers = {name: x[:count] for name, x in self.layers.items()}
        return Features(layers, self.index[:count], self.labels[:count])


def grid(channels: int, side: int, dimensions: int = DIMENSIONS) -> int:
    """The largest g with channels * g * g <= dimensions and g <= side; at least 1."""
    g = 1
    while g < side and channels * (g + 1) ** 2 <= dimensions:
        g += 1
    return g


def pool(feature: Tensor, dimensions: int = DIMENSIONS, kind: Pooling = "average") -> Tensor:
    """Pool a feature to at most `dimensions` dimensions, or to one per channel if there are more channels.

    Args:
        feature: (B, C, H, W), pooled on a grid; (B, L, D), averaged over positions as in iGPT (Chen et al. 2020,
            section 3.3); or (B, D), unchanged.
        dimensions: maximum number of dimensions.
        kind: see `pool_to`.

    Returns:
        (B, d) float32.
    """
    if feature.ndim != 4:
        return pooled(feature.float())
    g = grid(feature.shape[1], min(feature.shape[-2:]), dimensions)
    return pool_to(feature.float(), g, kind).flatten(1)


def pool_to(maps: Tensor, side: int, kind: Pooling) -> Tensor:
    """Pool maps to side x side positions: (B, C, H, W) -> (B, C, side, side).

    Args:
        maps: the maps.
        side: side of the result.
        kind: "average" is the pooling of Caron et al. 2018 and, for ResNets, of Goyal et al. 2019; "max" that of
            Gidaris et al. 2018 and of Asano et al. 2020; "bilinear" resizes as Zhang et al. 2016 (a position
            of the result is interpolated from the four around it, so others may be ignored).
    """
    if kind == "bilinear":
        return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)
    return F.adaptive_max_pool2d(maps, side) if kind == "max" else F.adaptive_avg_pool2d(maps, side)


@dataclass(frozen=True)
class Viewing:
    """Size of the views, device, and pooling of the features."""

    size: int
    """Side of the views in pixels."""
    device: torch.device
    dimensions: int = DIMENSIONS
    pooling: Pooling = "average"
    batch_size: int = 256
    """Images per forward pass."""
    rows: int = 2048
    """Maximum number of images per yield of `layer_features`; large matrix products are more efficient."""


def layer_features(encoder: Encoder, source: Source, viewing: Viewing) -> Iterator[Features]:
    """Yield the features of every labeled image once, in order, from whole images.

    Args:
        encoder: on the device; set to eval mode.
        source: the images.
        viewing: view size, device and pooling.

    Raises:
        UserError: the source has no labels, or a feature is not finite.
    """
    require_labels(source)
    encoder.eval()
    pending: list[Features] = []
    for features in _by_batch(encoder, source, viewing):
        if pending and sum(len(part.index) for part in pending) + len(features.index) > viewing.rows:
            yield _joined(pending)
            pending = []
        pending.append(features.of(is_labeled(features.labels).cpu()))
    if pending:
        yield _joined(pending)


def _by_batch(encoder: Encoder, source: Source, viewing: Viewing) -> Iterator[Features]:
    """The features of every batch, in order.

    Several processes take turns: each computes every `count`-th batch, and all get the features of all. So a batch has
    the same images whatever the number of processes, and the same features.
    """
    those, size = processes(), min(viewing.batch_size, viewing.rows)
    if those.count == 1:
        yield from (_extracted(encoder, batch, viewing) for batch in source.batches(size, viewing.device))
        return
    batches = torch.split(torch.arange(len(source)), size)
    for start in range(0, len(batches), those.count):
        group = batches[start : start + those.count]
        sizes = [*map(len, group), *[0] * (those.count - len(group))]
        # Without a batch of its own, a process computes features that are not used, for their shapes.
        own = group[those.rank] if those.rank < len(group) else group[0][:1]
        found = _extracted(encoder, source.batch(own, viewing.device), viewing).first(sizes[those.rank])
        with torch.inference_mode():
            layers = {name: torch.split(join_parts(x, sizes), sizes) for name, x in found.layers.items()}
            index, labels = (torch.split(join_parts(x, sizes), sizes) for x in (found.index, found.labels))
        for place in range(len(group)):
            yield Features({name: parts[place] for name, parts in layers.items()}, index[place], labels[place])


def _extracted(encoder: Encoder, batch: Batch, viewing: Viewing) -> Features:
    with torch.inference_mode():
        outputs = encoder.features(encoder.preprocess(batch.warp(identity(len(batch)), viewing.size)))
        layers = {name: pool(feature, viewing.dimensions, viewing.pooling) for name, feature in outputs.items()}
    return Features(layers, batch.index.cpu(), labels_of(batch))


def _joined(parts: list[Features]) -> Features:
    layers = {name: torch.cat([part.layers[name] for part in parts]) for name in parts[0].layers}
    for name, x in layers.items():
        if not x.sum().isfinite():
            raise UserError(
                f"the features of layer {name} contain infinity or NaN: the training of the encoder diverged; "
                "pretrain again with a lower --learning-rate."
            )
    return Features(layers, torch.cat([part.index for part in parts]), torch.cat([part.labels for part in parts]))


def labels_of(batch: Batch) -> Tensor:
    """The labels of a batch: (B,) int64, or (B, k) int8 where images may have several classes; see `Batch.targets`."""
    return batch.targets["label"] if "label" in batch.targets else batch.targets["multilabel"]


def is_labeled(labels: Tensor) -> Tensor:
    """Whether each image has a label: (n,) or (n, k) -> (n,) bool."""
    return (labels if labels.ndim == 1 else labels[:, 0]) >= 0


def labeled_indices(source: Source) -> Tensor:
    """(n,) int64: the images that have a label."""
    return is_labeled(source.all_labels()).nonzero().flatten()


def require_seeds(seeds: int) -> None:
    """Refuse a number of seeds below 1, or one so large that it is a typo."""
    require_between("--seeds", seeds, *SEEDS)


def require_rates(learning_rates: Sequence[float]) -> None:
    """Refuse no learning rates to choose from, or one that is not positive."""
    if not learning_rates:
        raise UserError("--learning-rates expects one or more numbers, got none; try 0.001.")
    for rate in learning_rates:
        require_between("--learning-rates", rate, *LEARNING_RATE, hint="; try 0.001")


def require_labels(source: Source) -> tuple[str, ...]:
    """The names of the classes.

    Raises:
        UserError: the source has no labels, or only one class.
    """
    if source.classes is None or not {"label", "multilabel"} & source.targets:
        raise UserError(
            f"a probe or evaluation needs labels, but {source.name} has none: "
            "use a --data folder with one subfolder per class, at least two, or give the labels with --labels file.csv."
        )
    if len(source.classes) < 2:
        raise UserError(
            f"a probe or evaluation needs at least 2 classes, but {source.name} has {len(source.classes)}: "
            "use --data with images of several classes."
        )
    return source.classes


def require_same_classes(train: Source, test: Source) -> tuple[str, ...]:
    """The names of the classes of training and test images.

    Raises:
        UserError: one of them has no labels, or only one class, or the classes differ.
    """
    classes = require_labels(train)
    if classes != require_labels(test):
        raise UserError(
            f"training and test images must have the same classes, but {train.name} has {_few(classes)} and "
            f"{test.name} has {_few(test.classes or ())}: use sources with the same classes."
        )
    return classes


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def require_one_label(source: Source, what: str) -> tuple[str, ...]:
    """The names of the classes, where every image has one.

    Args:
        source: the images.
        what: what needs them, for the message: "a probe".

    Raises:
        UserError: the source has no labels, only one class, or several classes per image.
    """
    if "multilabel" in source.targets:
        raise UserError(
            f"{what} needs one class per image, but {source.name} has several per image: use `selftaught probe`, or "
            "give --labels a file with one label per image."
        )
    return require_labels(source)
