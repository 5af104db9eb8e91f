"""Every layer probed, beside random weights of the same encoder, raw pixels and chance."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from selftaught.contracts import Encoder, Source
from selftaught.downstream.baselines import Pixels, calibrate
from selftaught.downstream.fast import FAST_DIMENSIONS, Reading, fast
from selftaught.downstream.features import DIMENSIONS, Kind, Viewing, require_labels
from selftaught.downstream.knn import knn
from selftaught.downstream.paper import Recipe, paper
from selftaught.downstream.table import ProbeTable, Row, mean_and_spread
from selftaught.errors import UserError, unknown

Protocol = Literal["fast", "paper", "knn"]
Tick = Callable[[str, int], None]
Spreads = dict[str, tuple[float, float | None]]
"""Layer -> mean and standard deviation of its accuracy over several probes."""


def probe_layers(
    encoder: Encoder,
    fresh: Callable[[int], Encoder],
    train: Source,
    test: Source,
    *,
    size: int,
    seeds: int = 1,
    protocol: Protocol = "fast",
    device: torch.device | None = None,
    dimensions: int | None = None,
    kind: Kind = "average",
    recipe: Recipe | None = None,
    recalibrate: bool = False,
    baselines: ProbeTable | None = None,
    progress: bool = True,
) -> ProbeTable:
    """Probe every layer of an encoder and of its random self.

    Args:
        encoder: trained; moved to `device` and left in eval mode.
        fresh: seed -> the same encoder with random weights.
        train: labelled images that teach the probe.
        test: labelled images of the same classes that judge it.
        size: side of the views in pixels.
        seeds: how many probes; each holds out other images (fast) or shuffles and crops otherwise (paper), and draws
            other random weights. The trained encoder is the same in all of them, and so is its reading by "knn".
        protocol: "fast" (see `fast`), "paper" (see `paper`) or "knn" (see `knn`).
        device: where to compute; the CPU where None.
        dimensions: see `pool`; where None `DIMENSIONS` for paper, `FAST_DIMENSIONS` for the others.
        kind: see `pool`.
        recipe: of the paper protocol.
        recalibrate: set the trained encoder's batch statistics on whole training images first: for one that was shown
            tiles, whose statistics are not those of whole images.
        baselines: an earlier table of the same untrained encoder, images and settings, from which the figures of random
            weights and raw pixels are taken: they would come out the same, and cost more than half of the time.
        progress: show a bar on standard error.

    Raises:
        UserError: labels are missing, too few, or not those of the other source.
        ValueError: the baselines are of something else.
    """
    _check(train, test, seeds, protocol)
    dimensions = dimensions or (DIMENSIONS if protocol == "paper" else FAST_DIMENSIONS)
    viewing = Viewing(size, device or torch.device("cpu"), dimensions, kind)
    epochs = (recipe or Recipe()).epochs if protocol == "paper" else 1
    total = (seeds if baselines else 2 * seeds + 1) * (epochs * len(train) + len(test))

    with _bar(total, progress) as show:
        probe = _Probe(train, test, viewing, protocol, recipe, show)
        renewed = recalibrate and calibrate(encoder.to(viewing.device), train, size, viewing.device)
        trained = [probe(encoder, seed, "trained") for seed in range(seeds)]
        pixels, random = _known(baselines) if baselines else probe.baselines(fresh, seeds)

    counts = [_class_counts(source, viewing.device) for source in (train, test)]
    table = ProbeTable(
        data=train.name.removesuffix(" (train)"),
        chance=int(counts[1].max()) / int(counts[1].sum()),
        pixels=pixels,
        layers=tuple(
            Row(layer, *spread, *random[layer], trained[0][layer].dimensions, trained[0][layer].penalty)
            for layer, spread in _spreads(trained).items()
        ),
        spread=_spread(seeds, protocol),
        train=int(counts[0].sum()),
        test=int(counts[1].sum()),
        protocol=protocol,
        dimensions=dimensions,
        seeds=seeds,
        recalibrated=renewed,
    )
    if baselines and baselines.setting != table.setting:
        raise ValueError(f"baselines of another probe: {baselines.setting}, not {table.setting}")
    return table


@dataclass(frozen=True)
class _Probe:
    """All but whom it asks."""

    train: Source
    test: Source
    viewing: Viewing
    protocol: Protocol
    recipe: Recipe | None
    show: Tick

    def __call__(self, subject: Encoder, seed: int, name: str) -> dict[str, Reading]:
        """Layer -> how well it was read."""

        def tick(doing: str, images: int) -> None:
            self.show(f"{name}: {doing}", images)

        # Channels last: a convnet's features and their pooling took 0.55 of the time (1,280 images, one thread).
        subject = subject.to(self.viewing.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.protocol == "fast":
            return fast(subject, self.train, self.test, self.viewing, seed, tick)
        if self.protocol == "knn":
            return knn(subject, self.train, self.test, self.viewing, tick)
        return paper(subject, self.train, self.test, self.viewing, seed, tick, self.recipe)

    def baselines(self, fresh: Callable[[int], Encoder], seeds: int) -> tuple[float, Spreads]:
        """What raw pixels and the layers of random weights are worth."""
        pixels = self(Pixels(self.viewing.dimensions), 0, "pixels")["pixels"].accuracy
        random = []
        for seed in range(seeds):
            untrained = fresh(seed).to(self.viewing.device)
            calibrate(untrained, self.train, self.viewing.size, self.viewing.device)
            random.append(self(untrained, seed, "random"))
        return pixels, _spreads(random)


def _known(table: ProbeTable) -> tuple[float, Spreads]:
    """The same, as an earlier table has it."""
    return table.pixels, {row.layer: (row.random, row.random_std) for row in table.layers}


def _check(train: Source, test: Source, seeds: int, protocol: str) -> None:
    if require_labels(train) != require_labels(test):
        raise UserError(
            f"the images that judge a probe must have the classes of those that teach it, found {test.classes} in "
            f"{test.name} and {train.classes} in {train.name}: give sources with the same classes."
        )
    if seeds < 1:
        raise UserError(f"the number of probes must be at least 1, found {seeds}: give a larger --seeds.")
    if protocol not in get_args(Protocol):
        raise unknown("protocol", protocol, get_args(Protocol))


def _spreads(readings: list[dict[str, Reading]]) -> Spreads:
    """Of several probes."""
    return {layer: mean_and_spread([of[layer].accuracy for of in readings]) for layer in readings[0]}


def _spread(seeds: int, protocol: Protocol) -> str:
    if seeds == 1:
        return "One probe, so no spread is known."
    if protocol == "knn":
        return f"± is the standard deviation over {seeds} random weights; neighbours leave nothing to chance."
    what = "images held out to choose the penalty" if protocol == "fast" else "order and crops of the images"
    return (
        f"± is the standard deviation over {seeds} probes: of the trained encoder over the {what} "
        f"(it was trained once, so not over trainings); of random weights over other weights too."
    )


def _class_counts(source: Source, device: torch.device) -> torch.Tensor:
    """(k,) images of each class."""
    assert source.classes is not None
    counts = torch.zeros(len(source.classes), dtype=torch.int64)
    for batch in source.batches(4096, device):
        labels = batch.targets["label"]
        counts += labels[labels >= 0].bincount(minlength=len(counts)).cpu()
    return counts


@contextmanager
def _bar(total: int, shown: bool) -> Iterator[Tick]:
    """Shows how many images have been read and how long the rest will take; gone when done or interrupted."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown)
    with bar:
        task = bar.add_task("probe", total=total)
        yield lambda doing, images: bar.update(task, description=doing, advance=images)
