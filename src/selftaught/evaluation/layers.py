"""Layer-wise evaluation: probe every layer and compare it with random weights, raw pixels and chance."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selftaught.contracts import Encoder, Source
from selftaught.display.progress import Meter
from selftaught.errors import UserError
from selftaught.evaluation.baselines.cache import BaselineCache
from selftaught.evaluation.choice import layer_choice
from selftaught.evaluation.evaluator import Evaluator, cache_setting, pass_length, require_baselines
from selftaught.evaluation.features import (
    Pooling,
    Viewing,
    is_labeled,
    require_labels,
    require_same_classes,
    require_seeds,
)
from selftaught.evaluation.gain import Results, gain_over_random
from selftaught.evaluation.metrics import LayerMetrics, Metrics, mean_metrics, total_confusion
from selftaught.evaluation.multilabel import MultilabelMetrics, chance_of
from selftaught.evaluation.overlap import content_ids_of, count_overlap
from selftaught.evaluation.probes import Probe, make_probe, name_of
from selftaught.evaluation.rows import BaselineRow, LayerRow, Observations
from selftaught.evaluation.table import ProbeTable, data_name, mean_and_std

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
    baselines: Sequence[str] = (),
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
        baselines: further baselines of `EXTRA`, each probed once.
        pretraining_ids: (M,) int64, `Source.content_ids` of the pretraining images; None if unknown.
        cache: folder for the results of raw pixels and random weights; None disables the cache.
        encoder_setting: the settings from which `fresh` builds the encoder, part of the cache keys of random weights.
        progress: show progress on standard error.

    Raises:
        UserError: labels are missing or too few, the classes of train and test differ, or a baseline does not apply to
            this encoder.
    """
    probe = make_probe(probe) if isinstance(probe, str) else probe
    _check(train, test, seeds, initializations)
    baselines = tuple(dict.fromkeys(baselines))
    require_baselines(baselines)
    viewing = Viewing(size, device or torch.device("cpu"), dimensions or probe.dimensions, pooling)
    trained_count = 1 if probe.deterministic else seeds
    passes = trained_count + 1 + initializations + len(baselines)
    setting = cache_setting(probe, train, test, viewing)
    with Meter("probe", passes * pass_length(probe, train, test), shown=progress) as meter:
        evaluation = Evaluator(probe, train, test, viewing, BaselineCache(cache, setting), meter)
        # First, because a baseline that does not apply to this encoder is an error.
        further = tuple(evaluation.baseline(name, fresh, encoder_setting) for name in baselines)
        recalibrated = recalibrate and evaluation.calibrate(encoder)
        trained = [evaluation(encoder, seed, "trained") for seed in range(trained_count)]
        pixels = evaluation.pixels()
        random = [evaluation.random(fresh(seed), encoder_setting) for seed in range(initializations)]

    train_labels, test_labels = train.all_labels(), test.all_labels()
    chosen = is_labeled(test_labels).nonzero().flatten()
    gain = gain_over_random(trained, random)
    best = [result[gain.layer] for result in trained]
    return ProbeTable(
        data=data_name(train.name),
        metric=pixels.name,
        chance=_chance(test_labels[chosen]),
        pixels=pixels.value,
        pixels_metrics=pixels.numbers(),
        classes=tuple(require_labels(test)),
        per_class=_per_class(best),
        random_per_class=_per_class([result[gain.random_layer] for result in random]),
        **_by_class(best, test_labels[chosen]),
        layers=_rows(trained, random),
        baselines=further,
        gain=gain,
        choice=layer_choice(trained),
        train=int(is_labeled(train_labels).sum()),
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
        overlap=count_overlap(test, chosen, pretraining_ids),
        observations=_observations(trained, random, pixels, further, test_labels[chosen], content_ids_of(test, chosen)),
    )


def _check(train: Source, test: Source, seeds: int, initializations: int) -> None:
    require_same_classes(train, test)
    require_seeds(seeds)
    if initializations < 1:
        raise UserError(f"the number of random initializations must be at least 1, got {initializations}.")


def _rows(trained: Results, random: Results) -> tuple[LayerRow, ...]:
    rows = []
    for layer, first in trained[0].items():
        value, std = mean_and_std([result[layer].value for result in trained])
        random_mean, random_std = mean_and_std([result[layer].value for result in random])
        rows.append(
            LayerRow(
                layer=layer,
                value=value,
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


def _per_class(results: Sequence[Metrics]) -> tuple[float | None, ...]:
    """The metric of each class, averaged over the results; None for a class without test images."""
    return _means([result.per_class for result in results])


def _means(rows: Sequence[Sequence[float | None]]) -> tuple[float | None, ...]:
    return tuple(None if None in column else float(np.mean(column)) for column in zip(*rows, strict=True))


def _by_class(best: Sequence[Metrics], labels: Tensor) -> dict[str, Any]:
    """Further results by class at the best layer, as fields of `ProbeTable`.

    Args:
        best: its results, one for each probe seed.
        labels: (n,) or (n, k), of the test images.
    """
    if isinstance(best[0], MultilabelMetrics):
        areas = _means([result.areas_per_class for result in best if isinstance(result, MultilabelMetrics)])
        return {"areas_per_class": areas, "positives": tuple((labels > 0).sum(0).tolist())}
    return {"confusion": total_confusion([result for result in best if isinstance(result, LayerMetrics)]).tolist()}


def _chance(labels: Tensor) -> float:
    """The metric without information: always the most frequent class, or a random order."""
    return chance_of(labels) if labels.ndim == 2 else int(labels.bincount().max()) / len(labels)


def _spread(probe: Probe, seeds: int, initializations: int) -> str:
    """The meaning of each ± of the table."""
    if initializations > 1:
        sentences = [f"Random weights: mean ± standard deviation over {initializations} random initializations."]
    else:
        sentences = ["Random weights: a single random initialization."]
    if probe.deterministic:
        sentences.append("k-NN is deterministic.")
    elif seeds > 1:
        sentences.append(f"Trained: mean ± standard deviation over {seeds} probe seeds.")
    return " ".join(sentences)


def _observations(
    trained: Results,
    random: Results,
    pixels: Metrics,
    baselines: Sequence[BaselineRow],
    labels: Tensor,
    ids: Tensor | None,
) -> Observations:
    def stacked(results: Results) -> NDArray[np.generic]:
        return np.stack([[layer.observations for layer in result.values()] for result in results])

    def values(results: Results) -> NDArray[np.float64]:
        return np.array([[layer.value for layer in result.values()] for result in results])

    test_ids, own = np.zeros(0, np.int64) if ids is None else ids.numpy(), pixels.observations
    others = np.stack([row.observations for row in baselines]) if baselines else np.zeros((0, len(own)), own.dtype)
    return Observations(
        layers=tuple(trained[0]),
        trained=stacked(trained),
        random=stacked(random),
        pixels=own,
        baselines=others,
        trained_values=values(trained),
        random_values=values(random),
        labels=labels.numpy(),
        test_ids=test_ids,
    )
