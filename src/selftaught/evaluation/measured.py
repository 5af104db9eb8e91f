"""From the results of a probe to the fields of its table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from selftaught.contracts import Source
from selftaught.evaluation.choice import layer_choice
from selftaught.evaluation.features import labeled_indices, require_labels
from selftaught.evaluation.gain import Results, at_layers, gain_over_random, possible_layers
from selftaught.evaluation.intervals import over_choices
from selftaught.evaluation.metrics import LayerMetrics, Metrics, mean_metrics, total_confusion
from selftaught.evaluation.multilabel import MultilabelMetrics, chance_of
from selftaught.evaluation.overlap import content_ids_of, count_overlap
from selftaught.evaluation.rows import BaselineRow, LayerRow, Observations
from selftaught.evaluation.table import data_name, mean_and_std


@dataclass(frozen=True)
class Measured:
    """The results of all encoders on the same images."""

    trained: Results
    """One for each probe seed."""
    random: Results
    """One for each random initialization."""
    pixels: Metrics
    baselines: tuple[BaselineRow, ...]


def measured_fields(found: Measured, train: Source, test: Source, pretraining_ids: Tensor | None) -> dict[str, Any]:
    """The fields of `ProbeTable` that follow from results and images; see `probe_layers`."""
    chosen = labeled_indices(test)
    labels = test.all_labels()[chosen]
    gain = gain_over_random(found.trained, found.random)
    best = [result[gain.layer] for result in found.trained]
    return {
        "data": data_name(train.name),
        "metric": found.pixels.name,
        "chance": _chance(labels),
        "pixels": found.pixels.value,
        "pixels_metrics": found.pixels.numbers(),
        "classes": tuple(require_labels(test)),
        "per_class": _per_class(best),
        "random_per_class": _per_class([result[gain.random_layer] for result in found.random]),
        **_by_class(best, labels),
        "layers": _rows(found.trained, found.random),
        "baselines": _compared(found),
        "gain": gain,
        "choice": layer_choice(found.trained),
        "train": len(labeled_indices(train)),
        "test": len(chosen),
        "overlap": count_overlap(test, chosen, pretraining_ids),
        "observations": _observations(found, labels, content_ids_of(test, chosen)),
    }


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


def _compared(found: Measured) -> tuple[BaselineRow, ...]:
    """The baselines with the difference to the best layer."""
    ours = at_layers(found.trained, possible_layers(found.trained))
    return tuple(
        replace(row, difference=dict(zip(("value", "low", "high"), over_choices(ours, row.choices), strict=True)))
        for row in found.baselines
    )


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


def _observations(found: Measured, labels: Tensor, ids: Tensor | None) -> Observations:
    def stacked(results: Results) -> NDArray[np.generic]:
        return np.stack([[layer.observations for layer in result.values()] for result in results])

    def values(results: Results) -> NDArray[np.float64]:
        return np.array([[layer.value for layer in result.values()] for result in results])

    test_ids, own = np.zeros(0, np.int64) if ids is None else ids.numpy(), found.pixels.observations
    others = [row.choices[0].observations[0] for row in found.baselines]
    return Observations(
        layers=tuple(found.trained[0]),
        trained=stacked(found.trained),
        random=stacked(found.random),
        pixels=own,
        baselines=np.stack(others) if others else np.zeros((0, len(own)), own.dtype),
        trained_values=values(found.trained),
        random_values=values(found.random),
        labels=labels.numpy(),
        test_ids=test_ids,
    )
