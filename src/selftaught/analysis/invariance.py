"""Invariance analysis: measure how far each transformation moves the features of every layer.

Every image is compared with a transformed copy of itself. A layer is invariant to the transformation if the copy is the
image's nearest neighbor, and covariant if the copy is as far away as other images are, or farther. After Misra and van
der Maaten, "Self-Supervised Learning of Pretext-Invariant Representations", CVPR 2020,
https://arxiv.org/abs/1912.01991, who show the distances between images and their jigsaw versions at the last layer.

Features are averaged over positions, as in `Encoder.forward`, because a feature map is never invariant to a rotation.
Random weights are measured as well: part of the invariance comes from the architecture.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor

from selftaught.analysis.transforms import TRANSFORMS
from selftaught.augment.warp import identity
from selftaught.contracts import Encoder, Source, evenly_spaced, pooled
from selftaught.display.progress import Meter
from selftaught.errors import UserError
from selftaught.evaluation.baselines.encoders import calibrate, random_encoders
from selftaught.evaluation.features import require_seeds
from selftaught.evaluation.table import RECALIBRATED, mean_and_std

INITIALIZATIONS = 3
"""Default number of random initializations; their mean is the baseline."""
IMAGES = 1000
"""Default number of images. The 95 % interval of a fraction near 0.5 over this many is about ±0.03."""
BINS = 40
"""Number of histogram bins, over distances from 0 to 2."""


@dataclass(frozen=True)
class Distances:
    """Distances between images and their copies under one transformation, in one layer.

    Features are normalized to unit length, so a distance is between 0 (identical) and 2 (opposite).
    """

    layer: str
    change: str
    nearer: float
    """Fraction of the other images that are closer to an image than its own copy, averaged over images.

    0: the copy is always the nearest (invariant); 0.5: it is like any other image; above: farther (covariant).
    """
    std: float | None
    """Sample standard deviation over seeds; None for one seed."""
    random: float
    """`nearer` for random weights, mean over the initializations."""
    random_std: float | None
    """Sample standard deviation over the initializations."""
    own: tuple[int, ...]
    """Histogram of the distances between images and their copies (first seed)."""
    others: tuple[int, ...]
    """Histogram of the distances between different images."""


@dataclass(frozen=True)
class InvarianceTable:
    """Which transformations every layer is invariant to."""

    data: str
    images: int
    seeds: int
    recalibrated: bool
    """Whether batch-norm statistics were recomputed on these images, as pretraining used tiles."""
    rows: tuple[Distances, ...]
    """Ordered by layer, then by transformation."""
    initializations: int = 1
    """Number of random initializations."""

    def to_json(self) -> dict[str, object]:
        """Plain values, as stored in `invariance/*.json` and printed by `--json`."""
        return {
            "data": self.data,
            "metric": "fraction of other images closer than the transformed copy",
            "chance": 0.5,
            "images": self.images,
            "seeds": self.seeds,
            "initializations": self.initializations,
            "recalibrated": self.recalibrated,
            "rows": [{**vars(row), "own": list(row.own), "others": list(row.others)} for row in self.rows],
        }


def render(table: InvarianceTable) -> Table:
    """The table for the terminal: one row per layer, one column per transformation, random weights in parentheses."""
    number = table.initializations
    over = f"mean over {number} random initializations" if number > 1 else "a single random initialization"
    captions = [
        "0: the copy is always the nearest (invariant); 0.5: like any other image; above 0.5: farther (covariant).",
        f"In parentheses: random weights, {over}.",
        *[RECALIBRATED] * table.recalibrated,
    ]
    out = Table(
        title=f"Fraction of other images closer than the transformed copy, on {table.images:,} images of {table.data}",
        caption=" ".join(captions),
        caption_justify="left",
    )
    out.add_column("layer")
    for name in TRANSFORMS:
        out.add_column(name, justify="right")
    layers: dict[str, list[str]] = {}
    for row in table.rows:
        layers.setdefault(row.layer, []).append(f"{row.nearer:.3f} ({row.random:.3f})")
    for layer, numbers in layers.items():
        out.add_row(layer, *numbers)
    return out


def invariance(
    encoder: Encoder,
    fresh: Callable[[int], Encoder],
    source: Source,
    *,
    size: int,
    images: int = IMAGES,
    seeds: int = 1,
    device: torch.device | None = None,
    recalibrate: bool = False,
    initializations: int = INITIALIZATIONS,
) -> InvarianceTable:
    """Measure the invariance of every layer of an encoder, and of the same encoder with random weights.

    Args:
        encoder: trained; moved to `device` and left in eval mode.
        fresh: seed -> the same encoder with random weights.
        source: the images; no labels are needed.
        size: side of the views in pixels.
        images: number of images, evenly spread over the source.
        seeds: number of seeds; each draws other transformations.
        device: where to compute; the CPU where None.
        recalibrate: recompute the trained encoder's batch-norm statistics on these images first.
        initializations: number of random initializations.

    Raises:
        UserError: fewer than two images, or a feature is not finite.
    """
    require_seeds(seeds)
    count = min(images, len(source))
    if count < 2:
        raise UserError(f"distances need at least 2 images, but {source.name} has {count}: add images.")
    device = device or torch.device("cpu")
    chosen = evenly_spaced(count, len(source))
    encoder = encoder.to(device)
    recalibrated = recalibrate and calibrate(encoder, source, size, device)
    with Meter("invariance", (seeds + initializations) * count) as meter:
        trained = [_measure(encoder, source, chosen, size, seed, device, meter) for seed in range(seeds)]
        untrained = [
            _measure(random, source, chosen, size, number % seeds, device, meter)
            for number, random in enumerate(random_encoders(fresh, initializations, source, size, device))
        ]
    return InvarianceTable(
        data=source.name,
        images=count,
        seeds=seeds,
        initializations=initializations,
        recalibrated=recalibrated,
        rows=tuple(_row(key, trained, untrained) for key in trained[0]),
    )


Measurements = dict[tuple[str, str], tuple[float, Tensor, Tensor]]
"""(layer, transformation) -> fraction nearer, histogram of own distances, histogram of distances to other images."""


def _measure(
    encoder: Encoder, source: Source, chosen: Tensor, size: int, seed: int, device: torch.device, meter: Meter
) -> Measurements:
    """Measure one encoder on one random draw of transformations."""
    encoder.eval()
    generator = torch.Generator().manual_seed(seed)
    collected: dict[str, dict[str, list[Tensor]]] = {}
    for indices in torch.split(chosen, 256):
        batch = source.batch(indices, device)
        views = {"image": batch.warp(identity(len(batch)), size)}
        views |= {name: transform(batch, size, generator) for name, transform in TRANSFORMS.items()}
        for name, images in views.items():
            with torch.inference_mode():
                for layer, feature in encoder.features(encoder.preprocess(images)).items():
                    unit = F.normalize(pooled(feature.float()), dim=1)
                    collected.setdefault(layer, {}).setdefault(name, []).append(unit)
        meter.advance(len(indices))
    return {
        (layer, name): distances(torch.cat(features["image"]), torch.cat(features[name]))
        for layer, features in collected.items()
        for name in TRANSFORMS
    }


def distances(images: Tensor, copies: Tensor) -> tuple[float, Tensor, Tensor]:
    """Compare the distance between an image and its copy with the distances to other images.

    Args:
        images: (n, D) of length 1.
        copies: (n, D) of length 1, in the same order.

    Returns:
        The fraction of other images closer than the own copy (ties count half), and two histograms (BINS,) int64: of
        the n distances to the own copy, and of the n (n - 1) / 2 distances between images.

    Raises:
        UserError: a feature is not finite.
    """
    if not (images.sum() + copies.sum()).isfinite():
        raise UserError(
            "the features contain infinity or NaN: the training of the encoder diverged; pretrain again with a lower "
            "--learning-rate."
        )
    own = (images - copies).norm(dim=1)
    between = torch.cdist(images, images, compute_mode="donot_use_mm_for_euclid_dist")
    nearer = (between < own[:, None]).double() + 0.5 * (between == own[:, None])
    nearer.fill_diagonal_(0)
    count = len(images)
    above = torch.triu(torch.ones(count, count, dtype=torch.bool, device=between.device), 1)
    histograms = [torch.histc(x.float().cpu().clamp(max=2), BINS, 0, 2).long() for x in (own, between[above])]
    return float(nearer.sum() / (count * (count - 1))), histograms[0], histograms[1]


def _row(key: tuple[str, str], trained: list[Measurements], untrained: list[Measurements]) -> Distances:
    nearer, std = mean_and_std([values[key][0] for values in trained])
    random, random_std = mean_and_std([values[key][0] for values in untrained])
    _, own, others = trained[0][key]
    return Distances(*key, nearer, std, random, random_std, tuple(own.tolist()), tuple(others.tolist()))
