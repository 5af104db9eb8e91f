"""The verdict on a comparison: a difference in top-1 accuracy with its 95 % interval over seeds and test images.

Runs of the same seed share what does not depend on the variant, such as the order of the images, so differences are
paired by seed as well as by test image; the two are crossed random factors, whose variances are added (see
`evaluation.intervals.paired_interval`). Over draws of few labels and probe seeds the accuracies of a run are averaged
first, so the interval does not include the variation between them.
"""

import statistics
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from selftaught.errors import UserError
from selftaught.evaluation.embedding import without_embedding
from selftaught.evaluation.intervals import half_width, over_images, paired_interval
from selftaught.studies.definition import RANDOM, Comparison
from selftaught.studies.results import Result

Verdict = Literal["supported", "contradicted", "undecided"]
Results = Mapping[str, Sequence[Result]]
"""Variant -> the result of every seed, under one evaluation."""
MOST_SEEDS = 1000
"""Numbers of seeds above this are not computed."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison."""

    name: str
    """The variant, or "random weights"."""
    place: str
    """The layer of a probe, or the way to train with labels."""
    correct: NDArray[np.float64]
    """(seeds, n): how often each test image is classified correctly, averaged over probe seeds or draws of labels."""
    seeds: tuple[int, ...]
    """The pretraining seeds; empty for the random weights of a probe and for a variant without parameters, which do not
    depend on them."""

    @property
    def mean(self) -> float:
        """Mean top-1 accuracy."""
        return float(self.correct.mean())


@dataclass(frozen=True)
class Outcome:
    """The result of a comparison."""

    comparison: Comparison
    first: Side
    second: Side
    value: float
    """Difference in top-1 accuracy."""
    low: float
    high: float
    paired: bool
    """Whether the seeds of both sides are paired."""

    @property
    def seeds(self) -> int:
        """Number of pretraining seeds; 0 if neither side depends on them."""
        return max(len(self.first.seeds), len(self.second.seeds))

    @property
    def verdict(self) -> Verdict:
        """With one seed nothing is decided: the variation between runs is unknown."""
        return "undecided" if self.seeds == 1 else judge(self.comparison, self.low, self.high)

    @property
    def seeds_to_decide(self) -> int | None:
        """How many seeds would decide, if difference and spread stay as they are; None if more seeds would not."""
        if self.seeds < 2:
            return None
        ours, theirs = self.first.correct, self.second.correct
        center, images = over_images(torch.from_numpy(ours), torch.from_numpy(theirs))
        spread = float((ours - theirs if self.paired else ours).mean(1).var(ddof=1))
        same = [images]
        if not self.paired and len(theirs) > 1:  # more seeds do not add random initializations
            same.append((float(theirs.mean(1).var(ddof=1)) / len(theirs), len(theirs) - 1))
        for seeds in range(self.seeds + 1, MOST_SEEDS + 1):
            margin = half_width([*same, (spread / seeds, seeds - 1)])
            if judge(self.comparison, center - margin, center + margin) != "undecided":
                return seeds
        return None


def judge(comparison: Comparison, low: float, high: float) -> Verdict:
    """Whether an interval supports or contradicts what was expected."""
    if comparison.expected == "equal":
        assert comparison.margin is not None
        if -comparison.margin < low and high < comparison.margin:
            return "supported"
        return "contradicted" if low > comparison.margin or high < -comparison.margin else "undecided"
    if low <= 0 <= high:
        return "undecided"
    return "supported" if (low > 0) == (comparison.expected == "higher") else "contradicted"


def compare(comparison: Comparison, results: Results, fixed: Container[str] = ()) -> Outcome | None:
    """The outcome of a comparison; None if no seed has a result on both sides.

    Args:
        comparison: what is compared.
        results: the results of its evaluation.
        fixed: variants without parameters, which have one run.

    Raises:
        UserError: the two sides were tested on other images.
    """
    first = _side(comparison.variant, comparison.layer, comparison.labels, results, fixed)
    if comparison.against in results:
        layer = comparison.against_layer or comparison.layer
        second = _side(comparison.against, layer, comparison.labels, results, fixed)
    else:
        second = _reference(comparison, results[comparison.variant])
    if first.correct.shape[1] != second.correct.shape[1]:
        raise UserError("the variants were tested on different images: give all of them one source of labeled images.")
    if first.seeds and second.seeds:  # runs may have failed
        common = sorted(set(first.seeds) & set(second.seeds))
        if not common:
            return None
        first, second = _of_seeds(first, common), _of_seeds(second, common)
    paired = not (comparison.against == RANDOM and second.place in results[comparison.variant][0].layers)
    ours, theirs = torch.from_numpy(first.correct), torch.from_numpy(second.correct)
    low, high = paired_interval(ours, theirs, by_repetition=paired)
    return Outcome(comparison, first, second, first.mean - second.mean, low, high, paired)


def best_layer(results: Sequence[Result], key: str = "held_out") -> str:
    """The layer with the best held-out accuracy, averaged over the seeds; the first one on a tie."""
    held = [result.held_out(key) for result in results]
    return max(without_embedding(held[0]), key=lambda layer: statistics.fmean(each[layer] for each in held))


def chosen_layer(rule: str, results: Sequence[Result]) -> str:
    """The layer of the encoder that a rule chooses."""
    if rule == "best":
        return best_layer(results)
    layers = without_embedding(results[0].layers)
    return {"first": layers[0], "last": layers[-1]}.get(rule, rule)


def _side(name: str, rule: str, labels: str | None, by_variant: Results, fixed: Container[str]) -> Side:
    results = by_variant[name]
    seeds = () if name in fixed else _seeds(results)
    if results[0].layers:
        layer = chosen_layer(rule, results)
        return Side(name, layer, _stacked(results, f"layer/{layer}"), seeds)
    row = results[0].rows[0]
    return Side(name, row, _stacked(results, f"{_count(labels, results)}/{row}"), seeds)


def _reference(comparison: Comparison, results: Sequence[Result]) -> Side:
    """Random weights (of a probe: the layer by the same rule, and each initialization once), or from scratch."""
    first = results[0]
    if first.layers:
        rule = comparison.against_layer or comparison.layer
        layer = best_layer(results, "random_held_out") if rule == "best" else chosen_layer(rule, results)
        return Side(RANDOM, layer, first.correct[f"random/{layer}"].astype(np.float64), ())
    row = first.row_of(comparison.against)
    if row is None:
        raise UserError(f"the evaluation has no results of {comparison.against!r}: it has {', '.join(first.rows)}.")
    key = f"{_count(comparison.labels, results)}/{row}"
    return Side(comparison.against, row, _stacked(results, key), _seeds(results))


def _seeds(results: Sequence[Result]) -> tuple[int, ...]:
    return tuple(result.seed for result in results)


def _count(labels: str | None, results: Sequence[Result]) -> str:
    counts = results[0].label_counts
    if labels is not None and labels not in counts:
        raise UserError(f"a comparison names the labels {labels!r}, but there are: {', '.join(counts)}.")
    return labels or counts[0]


def _stacked(results: Sequence[Result], key: str) -> NDArray[np.float64]:
    if key not in results[0].correct:
        raise UserError(f"the results have no {key}: remove results/ and repeat the command.")
    return np.stack([result.correct[key].mean(0) for result in results])


def _of_seeds(side: Side, seeds: Sequence[int]) -> Side:
    places = [side.seeds.index(seed) for seed in seeds]
    return Side(side.name, side.place, side.correct[places], tuple(seeds))
