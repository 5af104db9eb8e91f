"""Feature quality: effective rank, standard deviation, alignment, uniformity and dead channels of every layer.

No labels are needed. Random weights are measured as well: part of a high rank comes from the architecture. The
definitions and their sources are in `evaluation/quality.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

import torch
from rich.table import Table

from selftaught.augment.views import two_views
from selftaught.augment.warp import identity
from selftaught.contracts import Encoder, Source, evenly_spaced, pooled
from selftaught.display.progress import Meter
from selftaught.errors import UserError
from selftaught.evaluation.baselines.encoders import calibrate, random_encoders
from selftaught.evaluation.quality import Quality, QualityStatistics
from selftaught.evaluation.table import RECALIBRATED, mean_and_std

INITIALIZATIONS = 3
"""Default number of random initializations; their mean is the baseline."""
IMAGES = 2000
"""Default number of images, more than the channels of most layers: no rank is above the number of images."""
MEASURES = ("rank", "std", "alignment", "uniformity", "dead")
"""The measured fields of `Quality`."""


@dataclass(frozen=True)
class LayerQuality:
    """Feature quality of one layer, beside random weights."""

    layer: str
    channels: int
    trained: Mapping[str, float]
    """Value by name, see `MEASURES`."""
    random: Mapping[str, float]
    """The same for random weights, means over the initializations."""
    random_std: Mapping[str, float | None]
    """Sample standard deviations over the initializations; None for a single one."""


@dataclass(frozen=True)
class QualityTable:
    """Feature quality of every layer."""

    data: str
    images: int
    recalibrated: bool
    """Whether batch-norm statistics were recomputed on these images, as pretraining used tiles."""
    rows: tuple[LayerQuality, ...]
    initializations: int

    def to_json(self) -> dict[str, object]:
        """Plain values, as stored in `quality/*.json` and printed by `--json`."""
        return {
            "data": self.data,
            "images": self.images,
            "initializations": self.initializations,
            "recalibrated": self.recalibrated,
            "rows": [vars(row) for row in self.rows],
        }


def render(table: QualityTable) -> Table:
    """The table for the terminal: one row per layer, random weights in parentheses."""
    out = Table(
        title=f"Feature quality on {table.images:,} images of {table.data}",
        caption=" ".join(captions(table)),
        caption_justify="left",
    )
    out.add_column("layer")
    for name in ("channels", "effective rank", "std", "std if isotropic", "alignment", "uniformity", "dead channels"):
        out.add_column(name, justify="right")
    for row in table.rows:
        shown = {name: _cell(row, name) for name in MEASURES}
        isotropic = f"{row.channels**-0.5:.4f}"
        out.add_row(row.layer, str(row.channels), shown.pop("rank"), shown.pop("std"), isotropic, *shown.values())
    return out


def _cell(row: LayerQuality, name: str) -> str:
    decimals = {"rank": 1, "std": 4, "dead": 0}.get(name, 3)
    return f"{row.trained[name]:.{decimals}f} ({row.random[name]:.{decimals}f})"


def captions(table: QualityTable) -> list[str]:
    """The meaning of the numbers, one sentence each."""
    number = table.initializations
    return [
        f"In parentheses: random weights, {f'mean over {number} random' if number > 1 else 'a single random'} "
        f"initialization{'s' * (number > 1)}.",
        "Effective rank: RankMe, at most the number of channels and of images.",
        "Std of unit features: 0 if all images have the same feature.",
        "Alignment: mean squared distance between two augmented views of an image.",
        "Uniformity: lower if features of different images spread more.",
        *[RECALIBRATED] * table.recalibrated,
    ]


def measure_quality(
    encoder: Encoder,
    fresh: Callable[[int], Encoder],
    source: Source,
    *,
    size: int,
    images: int = IMAGES,
    device: torch.device | None = None,
    recalibrate: bool = False,
    initializations: int = INITIALIZATIONS,
) -> QualityTable:
    """Measure the feature quality of every layer of an encoder, and of the same encoder with random weights.

    Args:
        encoder: trained; moved to `device` and left in eval mode.
        fresh: seed -> the same encoder with random weights.
        source: the images; no labels are needed.
        size: side of the views in pixels.
        images: number of images, evenly spread over the source.
        device: where to compute; the CPU where None.
        recalibrate: recompute the trained encoder's batch-norm statistics on these images first.
        initializations: number of random initializations.

    Raises:
        UserError: fewer than two images, or a feature is not finite.
    """
    count = min(images, len(source))
    if count < 2:
        raise UserError(f"feature quality needs at least 2 images, but {source.name} has {count}: add images.")
    device = device or torch.device("cpu")
    encoder = encoder.to(device)
    recalibrated = recalibrate and calibrate(encoder, source, size, device)
    with Meter("quality", (1 + initializations) * count) as meter:
        trained = quality_of_layers(encoder, source, count, size, device, meter)
        untrained = [
            quality_of_layers(random, source, count, size, device, meter)
            for random in random_encoders(fresh, initializations, source, size, device)
        ]
    rows = tuple(_row(layer, quality, [each[layer] for each in untrained]) for layer, quality in trained.items())
    return QualityTable(source.name, count, recalibrated, rows, initializations)


def quality_of_layers(
    encoder: Encoder, source: Source, count: int, size: int, device: torch.device, meter: Meter
) -> dict[str, Quality]:
    """Measure every layer in one pass over `count` images, in an order that does not depend on their content."""
    encoder.eval()
    generator = torch.Generator().manual_seed(0)
    chosen = evenly_spaced(count, len(source))[torch.randperm(count, generator=generator)]
    statistics: dict[str, QualityStatistics] = {}
    for indices in torch.split(chosen, 256):
        batch = source.batch(indices, device)
        views = torch.cat([batch.warp(identity(len(batch)), size), two_views(batch, size, generator)])
        with torch.inference_mode():
            for layer, feature in encoder.features(encoder.preprocess(views)).items():
                plain, pairs = torch.split(pooled(feature.float()), [len(batch), 2 * len(batch)])
                of_layer = statistics.setdefault(layer, QualityStatistics(plain.shape[1]))
                of_layer.add(plain, (pairs[::2], pairs[1::2]))
        meter.advance(len(batch))
    return {layer: of_layer.result() for layer, of_layer in statistics.items()}


def _row(layer: str, trained: Quality, untrained: list[Quality]) -> LayerQuality:
    random = {name: [float(getattr(each, name)) for each in untrained] for name in MEASURES}
    return LayerQuality(
        layer,
        trained.channels,
        trained={name: getattr(trained, name) for name in MEASURES},
        random={name: fmean(values) for name, values in random.items()},
        random_std={name: mean_and_std(values)[1] for name, values in random.items()},
    )
