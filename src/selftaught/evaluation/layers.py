"""Layer-wise evaluation: probe every layer and compare it with random weights, raw pixels and chance."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from selftaught.contracts import Encoder, Source
from selftaught.display.progress import Meter
from selftaught.errors import UserError
from selftaught.evaluation.baseline_rows import Baselines, select
from selftaught.evaluation.baselines.cache import BaselineCache
from selftaught.evaluation.embedding import NOTE, Projected, Projection
from selftaught.evaluation.evaluator import Evaluator, cache_setting, pass_length
from selftaught.evaluation.features import Pooling, Viewing, require_same_classes, require_seeds
from selftaught.evaluation.measured import Measured, measured_fields
from selftaught.evaluation.overlap import duplicate_warning
from selftaught.evaluation.probes import Probe, make_probe, name_of
from selftaught.evaluation.table import ProbeTable

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
    baselines: Sequence[str] | None = (),
    projection: Projection | None = None,
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
        baselines: further baselines, each probed once; see `baseline_rows.select`.
        projection: the projection head of the encoder's task, whose output is a further layer; None for no such layer.
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
    has_parameters = encoder.has_parameters
    drawn = range(initializations if has_parameters else 0)  # scattering is the same with any initialization
    selection = select(() if baselines is None and not has_parameters else baselines)
    viewing = Viewing(size, device or torch.device("cpu"), dimensions or probe.dimensions, pooling)
    trained_count = 1 if probe.deterministic else seeds
    passes = trained_count + 1 + len(drawn) + len(selection.names)
    setting = cache_setting(probe, train, test, viewing)
    with Meter("probe", passes * pass_length(probe, train, test), shown=progress) as meter:
        evaluation = Evaluator(probe, train, test, viewing, BaselineCache(cache, setting), meter)
        # First, because a baseline that does not apply to this encoder is an error.
        further, left_out = Baselines(evaluation, fresh, encoder_setting).rows(selection)
        whole = encoder if projection is None else Projected(encoder, projection.trained)
        recalibrated = recalibrate and evaluation.calibrate(whole)
        trained = [evaluation(whole, seed, "trained") for seed in range(trained_count)]
        pixels = evaluation.pixels()
        random = [evaluation.random(_projected(fresh(seed), projection, seed), encoder_setting) for seed in drawn]
        measured = Measured(trained=trained, random=random or trained, pixels=pixels, baselines=further)
    notes = (probe.note(train.side, size), NOTE if projection else "", *left_out, duplicate_warning(train, test))
    return ProbeTable(
        **measured_fields(measured, train, test, pretraining_ids),
        probe=name_of(probe),
        size=size,
        dimensions=viewing.dimensions,
        pooling=pooling,
        seeds=trained_count,
        settings=asdict(probe),  # type: ignore[call-overload]  # probes are dataclasses
        initializations=initializations,
        spread=_spread(probe, seeds, initializations),
        note="\n".join(filter(None, notes)),
        has_parameters=has_parameters,
        recalibrated=recalibrated,
    )


def _projected(encoder: Encoder, projection: Projection | None, seed: int) -> Encoder:
    """An encoder with random weights, and its projection head with random weights if there is one."""
    return encoder if projection is None else Projected(encoder, projection.fresh(seed))


def _check(train: Source, test: Source, seeds: int, initializations: int) -> None:
    require_same_classes(train, test)
    require_seeds(seeds)
    if initializations < 1:
        raise UserError(f"the number of random initializations must be at least 1, got {initializations}.")


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
