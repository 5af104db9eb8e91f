"""Shortcut audit: measure whether a network solves its pretext task by low-level cues instead of image content.

The pretext accuracy of a trained network is measured again on images from which a cue was removed, on images to which
one was added, and with the task's own guards (gaps, color, brightness) switched off or on. Every accuracy is compared
with that of the same images in the same views without the change; an added cue is compared with a control that degrades
the image equally but without the cue's pattern. A significant difference means that the network uses the cue. Without
one, any use of it is too small to be detected with this number of images.

Sources: Doersch et al. 2015, section 3.1 (a network located patches by chromatic aberration alone). Noroozi and Favaro
2016 retrained without each guard: puzzles were solved better, and less was learned. Here a single trained network is
evaluated.

The audit does not depend on the task: chance level and guards come from `Task.chance` and `Task.shortcut_guards`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from selftaught.analysis.audit_table import TRAINED, AuditRow, AuditTable, Kind
from selftaught.augment.cues import CUES, CueTransform
from selftaught.augment.warp import identity, resample
from selftaught.contracts import Batch, Encoder, Source, Task, evenly_spaced
from selftaught.display.progress import Meter
from selftaught.errors import UserError
from selftaught.evaluation.features import require_seeds
from selftaught.evaluation.intervals import half_width
from selftaught.evaluation.overlap import count_overlap
from selftaught.training.randomness import seeded_rng

IMAGES = 1000
"""Default number of images."""
GROUP = 16
"""Images per group. Tasks log the mean over a batch, so the intervals are over groups of this size."""


class Changed(Batch):
    """A batch whose images are changed before views are taken; images in its targets are not.

    Args:
        batch: the images.
        side: side in pixels at which images are changed: that of the source. Stored images are not resampled; crops of
            photos are cut at this side first, where training samples the photo itself.
        change: the function applied to the images; None for no change.
        generator: for the randomness of the change.
    """

    def __init__(self, batch: Batch, side: int, change: CueTransform | None, generator: torch.Generator) -> None:
        self.index, self.targets, self.population = batch.index, batch.targets, batch.population
        images = batch.warp(identity(len(batch)), side)
        self._batch, self._images = batch, images if change is None else change(images, generator)

    def warp(self, matrix: Tensor, size: int, of: str = "image") -> Tensor:
        """See `Batch`."""
        return resample(self._images, matrix, size) if of == "image" else self._batch.warp(matrix, size, of)


def audit(
    task: Task,
    encoder: Encoder,
    heads: nn.ModuleDict,
    source: Source,
    *,
    images: int = IMAGES,
    seeds: int = 1,
    device: torch.device | None = None,
    pretraining_ids: Tensor | None = None,
) -> AuditTable:
    """Measure the pretext accuracy with cues removed, added and guarded against.

    Args:
        task: the pretext task; it must log an accuracy that has a chance level.
        encoder: trained; moved to `device` and left in eval mode, as the heads are.
        heads: trained with the encoder.
        source: the images, preferably not used in pretraining; for an index-based task, its own.
        images: number of images, evenly spread over the source.
        seeds: number of random views per image; accuracies are averaged over them before intervals are computed.
        device: where to compute; the CPU where None.
        pretraining_ids: (M,) int64, `Source.content_ids` of the pretraining images; None if unknown.

    Raises:
        UserError: the task logs nothing with a chance level, or there are too few images for an interval.
    """
    require_seeds(seeds)
    levels = task.chance(source, GROUP)
    if not levels:
        raise _no_accuracy(task)
    metric, device = next(iter(levels)), device or torch.device("cpu")
    groups = _groups(task.auditable_indices(heads, source), images, source.name)
    encoder.to(device).eval(), heads.to(device).eval()
    variants = _variants(task)
    accuracies: dict[str, Tensor] = {}
    with Meter("audit", len(variants) * seeds * len(groups)) as meter:
        for name, variant in variants.items():
            measure = _accuracy_function(variant.task, encoder, heads, metric, device)
            values = torch.zeros(seeds, len(groups), dtype=torch.float64)
            for number, indices in enumerate(groups):
                batch = source.batch(indices, device)
                for seed in range(seeds):
                    draw = seed * len(groups) + number
                    changed = Changed(batch, source.side, variant.change, torch.Generator().manual_seed(draw))
                    values[seed, number] = measure(changed, draw)
                    meter.advance()
            accuracies[name] = values.mean(0)
    return AuditTable(
        data=source.name,
        metric=metric,
        chance=levels[metric],
        images=groups.numel(),
        seeds=seeds,
        rows=tuple(_row(name, variant, accuracies) for name, variant in variants.items()),
        overlap=count_overlap(source, groups.flatten(), pretraining_ids),
    )


class Variant(NamedTuple):
    """One condition under which the pretext accuracy is measured."""

    kind: Kind
    description: str
    """The condition, as the end of a sentence."""
    task: Task
    change: CueTransform | None
    """Applied to the images; None for no change."""
    reference: str
    """Name of the variant that this one is compared with."""


def _variants(task: Task) -> Mapping[str, Variant]:
    """All variants by name: no change, then every cue, then every guard switched to the setting it does not have."""
    variants = {TRAINED: Variant("trained", TRAINED, task, None, TRAINED)}
    variants |= {
        name: Variant(cue.kind, cue.condition, task, cue.change, cue.control or TRAINED) for name, cue in CUES.items()
    }
    for name, settings in task.shortcut_guards.items():
        kinds: tuple[Kind, Kind] = ("off", "on")
        for kind, fields in zip(kinds, settings, strict=True):
            try:
                other = replace(task, **fields)  # type: ignore[arg-type]
            except UserError:  # tiles of another size may not fit with that gap
                continue
            if other != task:
                description = f"with the guard `{name}` switched {kind}"
                variants[f"{name} {kind}"] = Variant(kind, description, other, None, TRAINED)
    return variants


def _groups(indices: Tensor, images: int, source: str) -> Tensor:
    """(groups, images per group) int64: evenly spaced over `indices`, then shuffled so that groups mix the classes."""
    count = min(images, len(indices))
    size = max(2, min(GROUP, count // 8))
    if count < 2 * size:
        raise UserError(f"an audit needs at least 4 images, but {source} has {count}: add images.")
    chosen = indices[evenly_spaced(count, len(indices))]
    mixed = chosen[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    return mixed[: count // size * size].reshape(-1, size)


def _accuracy_function(
    task: Task, encoder: Encoder, heads: nn.ModuleDict, metric: str, device: torch.device
) -> Callable[[Batch, int], float]:
    def measure(batch: Batch, draw: int) -> float:
        with seeded_rng(draw, "audit", device=device), torch.inference_mode():
            views = task.views(batch, torch.Generator().manual_seed(draw))
            outputs = task.loss(encoder, heads, views)[1]
            if metric not in outputs:  # the accuracy of a critic
                raise _no_accuracy(task)
            return float(outputs[metric])

    return measure


def _no_accuracy(task: Task) -> UserError:
    return UserError(
        f"an audit needs a task that logs an accuracy with a chance level, but {type(task).__name__} has none: "
        "choose a run of another task, such as rotation or jigsaw."
    )


def _row(name: str, variant: Variant, accuracies: Mapping[str, Tensor]) -> AuditRow:
    own, other = accuracies[name], accuracies[variant.reference]
    margin = half_width([(float((own - other).var()) / len(own), len(own) - 1)])
    return AuditRow(
        change=name,
        kind=variant.kind,
        description=variant.description,
        accuracy=float(own.mean()),
        reference=variant.reference,
        expected=float(other.mean()),
        margin=margin,
    )
