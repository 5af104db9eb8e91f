"""Does a layer see past a change, or does it tell how the image was changed? Invariant or covariant, layer by layer.

Of every image a copy is made, changed in one of several ways. A layer that is invariant puts the copy beside its image;
one that is covariant puts it as far off as another image, or farther. After Misra and van der Maaten, "Self-Supervised
Learning of Pretext-Invariant Representations", CVPR 2020, https://arxiv.org/abs/1912.01991, who show the distances of
images to their jigsaws at the last layer.

Features are averaged over positions, as `Encoder.forward` does: where in the image something is said is not the
question (a map is never invariant to a turn). Random weights are asked the same: much comes with the architecture.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor

from selftaught.analysis.transforms import CHANGES
from selftaught.augment.warp import identity
from selftaught.contracts import Encoder, Source, evenly_spaced, pooled
from selftaught.errors import UserError
from selftaught.evaluation.baselines.encoders import calibrate
from selftaught.evaluation.features import require_seeds
from selftaught.evaluation.table import RECALIBRATED, mean_and_std

INITIALIZATIONS = 3
"""Random initializations that are measured; their mean is the baseline."""
IMAGES = 1000
"""Images that are measured: every image is one draw, so a share near a half is known to within three hundredths."""
BINS = 40
"""Of the histograms, over distances from 0 to 2."""


@dataclass(frozen=True)
class Distances:
    """How far the copies of one kind are from their images in one layer. Unit features: 0 the same, 2 opposite."""

    layer: str
    change: str
    nearer: float
    """Share of the other images that are nearer to an image than its own copy is, averaged over images: 0 where the
    copy is always the nearest (invariant), 0.5 where it is like any other image, more where farther (covariant)."""
    std: float | None
    random: float
    """The same with random weights, mean over the initializations."""
    random_std: float | None
    """Over the initializations."""
    own: tuple[int, ...]
    """How many images have their copy at 0 to 2 / BINS, ... (first seed)."""
    others: tuple[int, ...]
    """How many pairs of different images are at these distances."""


@dataclass(frozen=True)
class InvarianceTable:
    """What every layer sees past."""

    data: str
    images: int
    seeds: int
    recalibrated: bool
    """Whether batch statistics were set anew on these images, because pretraining had shown tiles."""
    rows: tuple[Distances, ...]
    """Layer by layer, and in each every kind of change."""
    initializations: int = 1
    """Random initializations that were measured."""

    def to_json(self) -> dict[str, object]:
        """Plain values; `invariance/*.json` holds this object and `--json` prints it."""
        return {
            "data": self.data,
            "metric": "share of other images nearer than the own copy",
            "chance": 0.5,
            "images": self.images,
            "seeds": self.seeds,
            "initializations": self.initializations,
            "recalibrated": self.recalibrated,
            "rows": [{**vars(row), "own": list(row.own), "others": list(row.others)} for row in self.rows],
        }


def render(table: InvarianceTable) -> Table:
    """The table as rich prints it: a row for each layer, a column for each change, random weights in brackets."""
    number = table.initializations
    over = f"mean over {number} random initializations" if number > 1 else "a single random initialization"
    captions = [
        "0: the copy is always nearest (invariant); 0.5: like any other image; more: farther (covariant).",
        f"In parentheses: random weights, {over}.",
        *[RECALIBRATED] * table.recalibrated,
    ]
    out = Table(
        title=f"share of other images nearer than the own copy (random weights), {table.images:,} of {table.data}",
        caption=" ".join(captions),
        caption_justify="left",
    )
    out.add_column("layer")
    for change in CHANGES:
        out.add_column(change, justify="right")
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
    """Compare images with transformed copies, in every layer of an encoder and of the same encoder with random weights.

    Args:
        encoder: trained; moved to `device` and left in eval mode.
        fresh: seed -> the same encoder with random weights.
        source: the images; no labels are needed.
        size: side of the views in pixels.
        images: number of images, evenly spread over the source.
        seeds: number of seeds; each draws other transformations.
        device: where to compute; the CPU where None.
        recalibrate: recompute the trained encoder's batch-norm statistics on these images first.
        initializations: how many encoders with random weights are measured.

    Raises:
        UserError: fewer than two images, or a feature is not finite.
    """
    require_seeds(seeds)
    count = min(images, len(source))
    if count < 2:
        raise UserError(f"distances need at least 2 images, but {source.name} has {count}: give more.")
    device = device or torch.device("cpu")
    chosen = evenly_spaced(count, len(source))
    encoder = encoder.to(device)
    renewed = recalibrate and calibrate(encoder, source, size, device)
    trained = [_asked(encoder, source, chosen, size, seed, device) for seed in range(seeds)]
    untrained = []
    for initialization in range(initializations):
        random = fresh(initialization).to(device)
        calibrate(random, source, size, device)
        untrained.append(_asked(random, source, chosen, size, initialization % seeds, device))
    return InvarianceTable(
        data=source.name,
        images=count,
        seeds=seeds,
        initializations=initializations,
        recalibrated=renewed,
        rows=tuple(_row(key, trained, untrained) for key in trained[0]),
    )


Found = dict[tuple[str, str], tuple[float, Tensor, Tensor]]
"""(layer, change) -> share nearer, histogram of own distances, histogram of the others."""


def _asked(encoder: Encoder, source: Source, chosen: Tensor, size: int, seed: int, device: torch.device) -> Found:
    """One encoder, one draw of copies."""
    encoder.eval()
    generator = torch.Generator().manual_seed(seed)
    seen: dict[str, dict[str, list[Tensor]]] = {}
    for indices in torch.split(chosen, 256):
        batch = source.batch(indices, device)
        views = {"image": batch.warp(identity(len(batch)), size)}
        views |= {name: change(batch, size, generator) for name, change in CHANGES.items()}
        for name, images in views.items():
            with torch.inference_mode():
                for layer, feature in encoder.features(encoder.preprocess(images)).items():
                    unit = F.normalize(pooled(feature.float()), dim=1)
                    seen.setdefault(layer, {}).setdefault(name, []).append(unit)
    return {
        (layer, change): distances(torch.cat(features["image"]), torch.cat(features[change]))
        for layer, features in seen.items()
        for change in CHANGES
    }


def distances(images: Tensor, copies: Tensor) -> tuple[float, Tensor, Tensor]:
    """Hold every copy against the other images.

    Args:
        images: (n, D) of length 1.
        copies: (n, D) of length 1, in the same order.

    Returns:
        The share of other images nearer than the own copy (equally near counts half), and two histograms (BINS,) int64:
        of the n distances to the own copy, and of those of the n (n - 1) / 2 pairs of images.
    """
    if not (images.sum() + copies.sum()).isfinite():
        raise UserError(
            "features must be finite, found infinity or NaN: the encoder's training has diverged, train it again with "
            "a lower learning rate."
        )
    own = (images - copies).norm(dim=1)
    apart = torch.cdist(images, images, compute_mode="donot_use_mm_for_euclid_dist")
    nearer = (apart < own[:, None]).double() + 0.5 * (apart == own[:, None])
    nearer.fill_diagonal_(0)
    count = len(images)
    above = torch.triu(torch.ones(count, count, dtype=torch.bool, device=apart.device), 1)
    histograms = [torch.histc(x.float().cpu().clamp(max=2), BINS, 0, 2).long() for x in (own, apart[above])]
    return float(nearer.sum() / (count * (count - 1))), histograms[0], histograms[1]


def _row(key: tuple[str, str], trained: list[Found], untrained: list[Found]) -> Distances:
    nearer, std = mean_and_std([found[key][0] for found in trained])
    random, random_std = mean_and_std([found[key][0] for found in untrained])
    _, own, others = trained[0][key]
    return Distances(*key, nearer, std, random, random_std, tuple(own.tolist()), tuple(others.tolist()))
