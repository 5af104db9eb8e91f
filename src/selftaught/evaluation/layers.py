"""Layer-wise evaluation: probe every layer and compare it with random weights, raw pixels and chance."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

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
from selftaught.evaluation.features import Pooling, Viewing, require_labels, require_seeds
from selftaught.evaluation.gain import Results, gain_over_random
from selftaught.evaluation.metrics import LayerMetrics, mean_metrics, total_confusion
from selftaught.evaluation.overlap import content_ids_of, count_overlap
from selftaught.evaluation.probes import Probe, make_probe, name_of
from selftaught.evaluation.rows import BaselineRow, Correctness, LayerRow
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
        baselines=further,
        gain=gain,
        choice=layer_choice(trained),
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
        overlap=count_overlap(test, chosen, pretraining_ids),
        correctness=_correctness(trained, random, pixels, further, test_labels[chosen], content_ids_of(test, chosen)),
    )


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
    """The meaning of each ± of the table."""
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
    trained: Results,
    random: Results,
    pixels: LayerMetrics,
    baselines: Sequence[BaselineRow],
    labels: Tensor,
    ids: Tensor | None,
) -> Correctness:
    def stacked(results: Results) -> NDArray[np.bool_]:
        return np.stack([[layer.correct.numpy() for layer in result.values()] for result in results])

    test_ids = np.zeros(0, np.int64) if ids is None else ids.numpy()
    others = np.stack([row.correct for row in baselines]) if baselines else np.zeros((0, len(labels)), np.bool_)
    return Correctness(
        tuple(trained[0]), stacked(trained), stacked(random), pixels.correct.numpy(), others, labels.numpy(), test_ids
    )
