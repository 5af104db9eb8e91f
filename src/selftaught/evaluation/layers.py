"""Layer-wise evaluation: probe every layer and compare it with random weights, raw pixels and chance."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selftaught.contracts import Encoder, Source
from selftaught.display.progress import Meter
from selftaught.encoders.pixels import Pixels
from selftaught.errors import UserError
from selftaught.evaluation.baselines.cache import BaselineCache, state_digest
from selftaught.evaluation.baselines.encoders import calibrate
from selftaught.evaluation.features import Pooling, Viewing, grid, require_labels, require_seeds
from selftaught.evaluation.gain import Results, gain_over_random
from selftaught.evaluation.metrics import LayerMetrics, mean_metrics, measure, total_confusion
from selftaught.evaluation.overlap import content_ids_of, count_overlap
from selftaught.evaluation.probes import Probe, make_probe, name_of
from selftaught.evaluation.table import Correctness, LayerRow, ProbeTable, data_name, mean_and_std

INITIALIZATIONS = 3
"""Default number of random initializations."""


def probe_layers(
    encoder: Encoder,
    fresh: Callable[[int], Encoder],
    train: Source,
    test: Source,
    *,
    size: int,
    seeds: int = 1,
    probe: str | Probe = "ridge",
    device: torch.device | None = None,
    dimensions: int | None = None,
    pooling: Pooling = "average",
    recalibrate: bool = False,
    initializations: int = INITIALIZATIONS,
    pretraining_ids: Tensor | None = None,
    cache: Path | None = None,
    encoder_setting: Mapping[str, object] | None = None,
    progress: bool = True,
) -> ProbeTable:
    """Probe every layer of an encoder, and of the same encoder with random weights.

    Args:
        encoder: trained; moved to `device` and left in eval mode.
        fresh: seed -> the same encoder with random weights.
        train: labeled images on which probes are trained; some are held out.
        test: labeled images of the same classes on which probes are tested.
        size: side of the views in pixels.
        seeds: number of probe seeds for the trained encoder. A seed determines the held-out images, and for probes
            trained by SGD also the order and the crops. The test accuracy of "knn" does not depend on it.
        probe: the name of a probe, see `PROBES`, or a probe with other hyperparameters.
        device: where to compute; the CPU where None.
        dimensions: see `pool`; by default that of the probe.
        pooling: see `pool`.
        recalibrate: recompute the trained encoder's batch-norm statistics on whole training images first. Needed
            after pretraining on tiles, whose statistics differ from those of whole images.
        initializations: number of random initializations to probe.
        pretraining_ids: (M,) int64, `Source.content_ids` of the pretraining images; None if unknown.
        cache: folder for the results of raw pixels and random weights; None disables the cache.
        encoder_setting: the settings from which `fresh` builds the encoder, part of the cache keys of random weights.
        progress: show progress on standard error.

    Raises:
        UserError: labels are missing or too few, or the classes of train and test differ.
    """
    probe = make_probe(probe) if isinstance(probe, str) else probe
    _check(train, test, seeds, initializations)
    viewing = Viewing(size, device or torch.device("cpu"), dimensions or probe.dimensions, pooling)
    trained_count = 1 if probe.deterministic else seeds
    passes = trained_count + 1 + initializations
    setting = _cache_setting(probe, train, test, viewing)
    with Meter("probe", passes * _pass_length(probe, train, test), shown=progress) as meter:
        evaluation = _Evaluation(probe, train, test, viewing, BaselineCache(cache, setting), meter)
        recalibrated = recalibrate and evaluation.calibrate(encoder)
        trained = [evaluation(encoder, seed, "trained") for seed in range(trained_count)]
        pixels = evaluation.pixels()
        random = [evaluation.random(fresh(seed), encoder_setting) for seed in range(initializations)]

    train_labels, test_labels = _labels(train, viewing.device), _labels(test, viewing.device)
    chosen = (test_labels >= 0).nonzero().flatten()
    gain = gain_over_random(trained, random)
    best = [result[gain.layer] for result in trained]
    return ProbeTable(
        data=data_name(train.name),
        chance=int(test_labels[chosen].bincount().max()) / len(chosen),
        pixels=pixels.accuracy,
        pixels_metrics=pixels.numbers(),
        classes=tuple(require_labels(test)),
        per_class=_per_class(best),
        random_per_class=_per_class([result[gain.random_layer] for result in random]),
        confusion=total_confusion(best).tolist(),
        layers=_rows(trained, random),
        gain=gain,
        train=int((train_labels >= 0).sum()),
        test=len(chosen),
        probe=name_of(probe),
        size=size,
        dimensions=viewing.dimensions,
        pooling=pooling,
        seeds=seeds,
        initializations=initializations,
        spread=_spread(probe, seeds, initializations),
        note=probe.note(train.side, size),
        has_parameters=any(True for _ in encoder.parameters()),
        recalibrated=recalibrated,
        seen=count_overlap(test, chosen, pretraining_ids),
        correctness=_correctness(trained, random, pixels, test_labels[chosen], content_ids_of(test, chosen)),
    )


@dataclass(frozen=True)
class _Evaluation:
    """Applies one probe to encoders, on a fixed pair of sources."""

    probe: Probe
    train: Source
    test: Source
    viewing: Viewing
    cache: BaselineCache
    meter: Meter

    def __call__(self, encoder: Encoder, seed: int, name: str) -> dict[str, LayerMetrics]:
        """Probe every layer; `name` labels the progress. Returns layer -> result."""

        def on_progress(phase: str, images: int) -> None:
            self.meter.advance(images, f"{name}: {phase}")

        # With channels last, features and pooling of a convnet took 0.55 of the time (1,280 images, one thread).
        moved = encoder.to(self.viewing.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        results = self.probe.evaluate(moved, self.train, self.test, self.viewing, seed, on_progress)
        return {layer: measure(result) for layer, result in results.items()}

    def calibrate(self, encoder: Encoder) -> bool:
        """Recompute batch-norm statistics on training images, framed as test views; see `calibrate`."""
        size, device = self.viewing.size, self.viewing.device
        window = self.probe.window(self.train.side, size)
        return calibrate(encoder.to(device), self.train, size, device, window=window)

    def pixels(self) -> LayerMetrics:
        """The result of raw pixels."""
        side = grid(3, self.viewing.size, self.viewing.dimensions)
        results = self._cached({"encoder": "pixels"}, lambda: self(Pixels(pooled_side=side), 0, "raw pixels"))
        return results["pixels"]

    def random(self, encoder: Encoder, setting: Mapping[str, object] | None) -> dict[str, LayerMetrics]:
        """The results of one encoder with random weights, always with probe seed 0."""

        def compute() -> dict[str, LayerMetrics]:
            self.calibrate(encoder)
            return self(encoder, 0, "random weights")

        if setting is None:
            return compute()
        key = {"encoder": setting, "modules": repr(encoder), "weights": state_digest(encoder)}
        return self._cached(key, compute)

    def _cached(
        self, setting: Mapping[str, object], compute: Callable[[], dict[str, LayerMetrics]]
    ) -> dict[str, LayerMetrics]:
        if self.cache.has(setting):
            self.meter.advance(_pass_length(self.probe, self.train, self.test), "baselines from the cache")
        return self.cache.get(setting, compute)


def _cache_setting(probe: Probe, train: Source, test: Source, viewing: Viewing) -> dict[str, object]:
    """Everything except the encoder that determines the results of raw pixels and random weights."""
    sources = [[source.fingerprint, len(source), source.side, source.classes] for source in (train, test)]
    views = [viewing.size, viewing.dimensions, viewing.pooling, viewing.batch_size, viewing.device.type]
    return {"sources": sources, "probe": repr(probe), "views": views, "torch": torch.__version__}


def _pass_length(probe: Probe, train: Source, test: Source) -> int:
    """Number of images that a probe processes for one encoder."""
    return probe.epochs * len(train) + len(test)


def _check(train: Source, test: Source, seeds: int, initializations: int) -> None:
    if require_labels(train) != require_labels(test):
        raise UserError(
            f"training and test images must have the same classes, but {train.name} has {train.classes} and "
            f"{test.name} has {test.classes}: use sources with the same classes."
        )
    require_seeds(seeds)
    if initializations < 1:
        raise UserError(f"the number of random initializations must be at least 1, got {initializations}.")


def _rows(trained: Results, random: Results) -> tuple[LayerRow, ...]:
    rows = []
    for layer, first in trained[0].items():
        accuracy, std = mean_and_std([result[layer].accuracy for result in trained])
        random_mean, random_std = mean_and_std([result[layer].accuracy for result in random])
        rows.append(
            LayerRow(
                layer=layer,
                accuracy=accuracy,
                std=std,
                held_out=mean_and_std([result[layer].held_out for result in trained])[0],
                random=random_mean,
                random_std=random_std,
                random_held_out=mean_and_std([result[layer].held_out for result in random])[0],
                dimensions=first.dimensions,
                penalty=first.penalty,
                metrics=mean_metrics([result[layer] for result in trained]),
                random_metrics=mean_metrics([result[layer] for result in random]),
            )
        )
    return tuple(rows)


def _per_class(results: Sequence[LayerMetrics]) -> tuple[float | None, ...]:
    """Accuracy of each class, averaged over the results; None for a class without test images."""
    columns = zip(*(result.per_class for result in results), strict=True)
    return tuple(None if None in column else float(np.mean(column)) for column in columns)


def _spread(probe: Probe, seeds: int, initializations: int) -> str:
    """What each ± of the table means."""
    if initializations > 1:
        sentences = [f"Random weights: mean ± standard deviation over {initializations} random initializations."]
    else:
        sentences = ["Random weights: a single random initialization."]
    if probe.deterministic:
        sentences.append("k-NN is deterministic.")
    elif seeds > 1:
        sentences.append(f"Accuracy: mean ± standard deviation over {seeds} probe seeds.")
    return " ".join(sentences)


def _correctness(
    trained: Results, random: Results, pixels: LayerMetrics, labels: Tensor, ids: Tensor | None
) -> Correctness:
    def stacked(results: Results) -> NDArray[np.bool_]:
        return np.stack([[layer.correct.numpy() for layer in result.values()] for result in results])

    test_ids = np.zeros(0, np.int64) if ids is None else ids.numpy()
    layers = tuple(trained[0])
    return Correctness(layers, stacked(trained), stacked(random), pixels.correct.numpy(), labels.numpy(), test_ids)


def _labels(source: Source, device: torch.device) -> Tensor:
    """(N,) int64 on the CPU; negative for images without a label."""
    return torch.cat([batch.targets["label"].cpu() for batch in source.batches(4096, device)])
