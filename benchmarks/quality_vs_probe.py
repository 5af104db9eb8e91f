"""How well feature quality without labels predicts the probe: rank correlations over run folders.

    python -m benchmarks.quality_vs_probe runs/*
    python -m benchmarks.quality_vs_probe runs/* --probe knn --data cifar10

Every run must have been evaluated by `selftaught quality` and `selftaught probe` at the same step. A point is a layer
of a run; for each measure its Spearman correlation with the gain over random weights is given:

- per layer, where the points are the runs, with the 95 % interval of Bonett and Wright (Psychometrika 65, 2000), on
  Fisher's z scale with variance (1 + r^2 / 2) / (n - 3).
- over all layers of all runs. Layers of a run are not independent, so its interval is from bootstrap samples of runs.
  It mixes differences between layers, such as their channels, with differences between runs.

Runs that differ in a hyperparameter only are the use that RankMe was made for; the tables make no such distinction.
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from selftaught.analysis.quality import MEASURES
from selftaught.runs.folder import RunFolder

FEWEST = 5
"""Number of runs from which an interval is given."""
SAMPLES = 1000
"""Bootstrap samples of the runs."""
Z = 1.959964


@dataclass(frozen=True)
class Point:
    """A layer of a run."""

    run: str
    layer: str
    quality: Mapping[str, float]
    """Value by measure."""
    gain: float
    """Accuracy (or mAP) of the probe minus that of random weights at the same layer."""


@dataclass(frozen=True)
class Correlation:
    """A rank correlation and its 95 % interval; None where there are too few runs, or all values are equal."""

    value: float | None
    low: float | None
    high: float | None
    runs: int

    def __str__(self) -> str:
        if self.value is None:
            return "n.a."
        span = "no interval" if self.low is None else f"{self.low:+.2f} to {self.high:+.2f}"
        return f"{self.value:+.2f} ({span})"


def points_of(run: Path, probe: str, data: str | None) -> list[Point]:
    """The layers of a run that both evaluations have; the latest of several probes or measurements of a step."""
    folder = RunFolder(run)
    probes = [
        each
        for each in folder.read_probes()
        if each.get("probe") == probe and (data is None or Path(str(each.get("data"))).name == data)
    ]
    for measured in folder.read_qualities():
        for probed in probes:
            if probed.get("weights") == measured.get("weights") and probed.get("step") == measured.get("step"):
                return _joined(str(run), measured, probed)
    return []


def _joined(run: str, measured: Mapping[str, Any], probed: Mapping[str, Any]) -> list[Point]:
    metric = str(probed.get("metric", "accuracy"))
    gains = {row["layer"]: row[metric] - row["random"] for row in probed["layers"] if row.get("random") is not None}
    rows = {row["layer"]: row["trained"] for row in measured["rows"]}
    return [Point(run, layer, rows[layer], gains[layer]) for layer in rows if layer in gains]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's correlation; None if it is undefined."""
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return float(spearmanr(first, second).statistic)


def within_layer(points: Sequence[Point], measure: str) -> Correlation:
    """Over the runs, at one layer."""
    value = rank_correlation([point.quality[measure] for point in points], [point.gain for point in points])
    count = len(points)
    if value is None or count < FEWEST:
        return Correlation(value, None, None, count)
    z = math.atanh(min(max(value, -0.999999), 0.999999))
    margin = Z * math.sqrt((1 + value**2 / 2) / (count - 3))
    return Correlation(value, math.tanh(z - margin), math.tanh(z + margin), count)


def over_layers(points: Sequence[Point], measure: str) -> Correlation:
    """Over all layers of all runs, with an interval from bootstrap samples of the runs."""
    runs = sorted({point.run for point in points})
    values = {run: [(point.quality[measure], point.gain) for point in points if point.run == run] for run in runs}

    def correlation(chosen: Sequence[str]) -> float | None:
        pairs = [pair for run in chosen for pair in values[run]]
        return rank_correlation([pair[0] for pair in pairs], [pair[1] for pair in pairs])

    value, generator = correlation(runs), np.random.default_rng(0)
    if value is None or len(runs) < FEWEST:
        return Correlation(value, None, None, len(runs))
    draws = (correlation(generator.choice(runs, len(runs)).tolist()) for _ in range(SAMPLES))
    low, high = np.quantile([draw for draw in draws if draw is not None], [0.025, 0.975])
    return Correlation(value, float(low), float(high), len(runs))


def correlations(points: Sequence[Point]) -> dict[str, dict[str, Correlation]]:
    """Measure -> layer, or "all layers" -> correlation with the gain; layers of at least three runs."""
    layers = dict.fromkeys(point.layer for point in points)
    columns: dict[str, Callable[[str], Correlation]] = {"all layers": lambda measure: over_layers(points, measure)}
    for layer in layers:
        own = [point for point in points if point.layer == layer]
        if len(own) >= 3:
            columns[layer] = lambda measure, own=own: within_layer(own, measure)  # type: ignore[misc]
    return {measure: {name: compute(measure) for name, compute in columns.items()} for measure in MEASURES}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--probe", default="ridge", help="the probe whose gain is predicted")
    parser.add_argument("--data", help="name of the labeled images, where runs were probed on several")
    options = parser.parse_args(arguments)
    found = {run: points_of(run, options.probe, options.data) for run in options.runs}
    for run in (run for run, points in found.items() if not points):
        print(f"{run}: no `quality` and {options.probe} probe of the same weights")
    points = [point for own in found.values() for point in own]
    if not points:
        raise SystemExit("no run has both: run `selftaught quality` and `selftaught probe` first")
    print(table(correlations(points), sum(map(bool, found.values()))))


def table(found: Mapping[str, Mapping[str, Correlation]], runs: int) -> str:
    """A Markdown table: a row per measure, a column per layer."""
    columns = list(next(iter(found.values())))
    lines = [f"| {' | '.join(['measure', *columns])} |", "|---" * (1 + len(columns)) + "|"]
    lines += [f"| {measure} | {' | '.join(str(row[name]) for name in columns)} |" for measure, row in found.items()]
    note = f"Spearman correlation with the gain over random weights, and its 95 % interval; {runs} runs."
    return "\n".join([*lines, "", note])


if __name__ == "__main__":
    main()
