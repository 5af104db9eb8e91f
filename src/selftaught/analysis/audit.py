"""Does a net solve its pretext task by what images show, or by cues that tell nothing of it? The shortcut audit.

A trained net is asked its pretext question again: with images from which a cue was taken, with images in which one was
planted, and with the task's own guards (gaps, colours, light) switched off or on. Each answer is held against that of
the same images in the same views without the change, and a plant against a control that does its damage without its
pattern. What then differs is read; what does not is not, as far as so many images tell.

Why: Doersch et al. 2015, section 3.1 (a net told where patches lie by chromatic aberration alone). Noroozi and Favaro
2016 trained anew without each guard: puzzles were solved better and less was learned. Here one trained net is asked.

It names no task: what a task scores untrained it says itself (`Task.chance`), and its guards (`Task.shortcut_guards`).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from selftaught.analysis.audit_table import TRAINED, Answer, AuditTable, Kind
from selftaught.augment.cues import CUES, CueTransform
from selftaught.augment.warp import identity, resample
from selftaught.contracts import Batch, Encoder, Source, Task, evenly_spaced
from selftaught.display.progress import Meter
from selftaught.errors import UserError
from selftaught.evaluation.overlap import count_seen
from selftaught.training.randomness import seeded_rng

IMAGES = 1000
"""Images that are asked."""
GROUP = 16
"""Images asked at a time; what tasks log is the mean over them, so intervals are over such groups."""


class Changed(Batch):
    """A batch whose images were changed before anybody sees them; pictures of its targets stay as they are.

    Args:
        batch: the images.
        side: at which they are changed, in pixels: that of the source. Stored images are not resampled there; crops of
            photos are cut at that side first, where training samples the photo itself.
        change: what is done to them.
        generator: of the change's randomness.
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
    """Ask a trained net its pretext question again, with cues removed, planted and guarded against.

    Args:
        task: the question; it must log a share that has a chance level.
        encoder: trained; moved to `device` and left in eval mode, as the heads are.
        heads: trained with it.
        source: images, best those that no training saw; for a task that remembers images its own.
        images: how many are asked, evenly spread over the source.
        seeds: how often each is asked, every time in other views; answers are averaged before intervals are taken.
        device: where to compute; the CPU where None.
        pretraining_ids: (M,) int64, `Source.content_ids` of the pretraining images; None if unknown.

    Raises:
        UserError: the task logs nothing with a chance level, or there are too few images for an interval.
    """
    if seeds < 1:
        raise UserError(f"the number of seeds must be at least 1, found {seeds}: give a larger --seeds.")
    levels = task.chance(source, GROUP)
    if not levels:
        name = type(task).__name__
        raise UserError(
            f"an audit needs a task that logs a share with a chance level, found none in {name}: choose a run of "
            "another task, rotation or jigsaw for example."
        )
    metric, device = next(iter(levels)), device or torch.device("cpu")
    groups = _groups(task.auditable_indices(heads, source), images, source.name)
    encoder.to(device).eval(), heads.to(device).eval()
    asked = _questions(task)
    answers: dict[str, Tensor] = {}
    with Meter("audit", len(asked) * seeds * len(groups)) as meter:
        for name, (_, _, posed, change, _) in asked.items():
            ask = _asker(posed, encoder, heads, metric, device)
            found = torch.zeros(seeds, len(groups), dtype=torch.float64)
            for number, indices in enumerate(groups):
                batch = source.batch(indices, device)
                for seed in range(seeds):
                    draw = seed * len(groups) + number
                    changed = Changed(batch, source.side, change, torch.Generator().manual_seed(draw))
                    found[seed, number] = ask(changed, draw)
                    meter.advance()
            answers[name] = found.mean(0)
    return AuditTable(
        data=source.name,
        metric=metric,
        chance=levels[metric],
        images=groups.numel(),
        seeds=seeds,
        answers=tuple(_answer(name, kind, said, answers, to) for name, (kind, said, _, _, to) in asked.items()),
        seen=count_seen(source, groups.flatten(), pretraining_ids),
    )


Question = tuple[Kind, str, Task, CueTransform | None, str]
"""Kind, when it is asked, the task that asks, what is done to images, what the answer is held against."""


def _questions(task: Task) -> Mapping[str, Question]:
    """All that is asked, by name: nothing changed, then every cue, then the guards that are not as they are anyway."""
    asked: dict[str, Question] = {TRAINED: ("trained", TRAINED, task, None, TRAINED)}
    asked |= {name: (cue.kind, cue.condition, task, cue.change, cue.control or TRAINED) for name, cue in CUES.items()}
    for name, switched in task.shortcut_guards.items():
        kinds: tuple[Kind, Kind] = ("off", "on")
        for kind, fields in zip(kinds, switched, strict=True):
            try:
                other = replace(task, **fields)  # type: ignore[arg-type]
            except UserError:  # tiles of another size may not fit with that gap
                continue
            if other != task:
                asked[f"{name} {kind}"] = (kind, f"with the guard `{name}` switched {kind}", other, None, TRAINED)
    return asked


def _groups(known: Tensor, images: int, source: str) -> Tensor:
    """(groups, images of each), int64: evenly spread over those that are known, in no order of class."""
    count = min(images, len(known))
    size = max(2, min(GROUP, count // 8))
    if count < 2 * size:
        raise UserError(f"an audit needs four images or more, found {count} in {source}: give more of them.")
    chosen = known[evenly_spaced(count, len(known))]
    mixed = chosen[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    return mixed[: count // size * size].reshape(-1, size)


def _asker(
    task: Task, encoder: Encoder, heads: nn.ModuleDict, metric: str, device: torch.device
) -> Callable[[Batch, int], float]:
    def ask(batch: Batch, draw: int) -> float:
        with seeded_rng(draw, "audit", device=device), torch.inference_mode():
            views = task.views(batch, torch.Generator().manual_seed(draw))
            return float(task.loss(encoder, heads, views)[1][metric])

    return ask


def _answer(name: str, kind: Kind, said: str, answers: Mapping[str, Tensor], to: str) -> Answer:
    own, other = answers[name], answers[to]
    margin = 1.96 * float((own - other).std()) / len(own) ** 0.5
    return Answer(name, kind, said, float(own.mean()), to, float(other.mean()), margin)
