"""The verdict on a comparison: a difference in top-1 accuracy with its 95 % interval over seeds and test images.

Runs of the same seed share what does not depend on the variant, such as the order of the images, so differences are
paired by seed as well as by test image; the two are crossed random factors, whose variances are added (see
`evaluation.intervals.paired_interval`). Draws of few labels and seeds of fine-tuning, which are the same for every run,
are a third factor. Where the best layers are compared, the interval is the union of those of all layers that held-out
images do not exclude, as for the gain of a probe (`evaluation.gain`).
"""

import statistics
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from selftaught.errors import UserError, readable, unknown
from selftaught.evaluation.embedding import without_embedding
from selftaught.evaluation.gain import candidates
from selftaught.evaluation.intervals import half_width, over_images
from selftaught.studies.definition import RANDOM, RULES, Comparison
from selftaught.studies.results import Result, matching_label

Verdict = Literal["supported", "contradicted", "undecided"]
Results = Mapping[str, Sequence[Result]]
"""Variant -> the result of every seed, under one evaluation."""
MOST_SEEDS = 1000
"""Numbers of seeds above this are not computed."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison, at one layer."""

    name: str
    """The variant, or "random weights"."""
    place: str
    """The layer of a probe, or the way to train with labels."""
    correct: NDArray[np.float64]
    """(seeds, n): how often each test image is classified correctly, averaged over draws of labels or seeds of
    fine-tuning."""
    accuracies: NDArray[np.float64]
    """(seeds, r): top-1 accuracy with each draw or seed of fine-tuning; r is 1 for a probe."""
    seeds: tuple[int, ...]
    """The pretraining seeds; empty for the random weights of a probe and for a variant without parameters, which do not
    depend on them."""

    @property
    def mean(self) -> float:
        """Mean top-1 accuracy."""
        return float(self.correct.mean())


@dataclass(frozen=True)
class Difference:
    """The difference in top-1 accuracy of two sides."""

    first: Side
    second: Side
    paired: bool
    """Whether the seeds of both sides are paired."""

    @property
    def value(self) -> float:
        """The difference of the means."""
        return self.first.mean - self.second.mean

    def interval(self, seeds: int) -> tuple[float, float]:
        """The 95 % interval, with the difference and the spread of the seeds there are.

        Args:
            seeds: number of pretraining seeds; with one, or none, the variation between them is not included.
        """
        center, parts, spread = self._parts
        margin = half_width([*parts, (spread / seeds, seeds - 1)] if seeds > 1 else parts)
        return max(center - margin, -1.0), min(center + margin, 1.0)

    @cached_property
    def _parts(self) -> tuple[float, list[tuple[float, int]], float]:
        """The center, what the variance consists of beside pretraining seeds, and the variance between these."""
        first, second = self.first, self.second
        center, images = over_images(torch.from_numpy(first.correct), torch.from_numpy(second.correct))
        parts = [images]
        difference = first.accuracies - second.accuracies if self.paired else first.accuracies
        if not self.paired and len(second.accuracies) > 1:  # random initializations, which more seeds do not add to
            parts.append(_over(second.accuracies.mean(1)))
        if difference.shape[1] > 1:
            parts.append(_over(difference.mean(0)))
        return center, parts, float(difference.mean(1).var(ddof=1)) if len(difference) > 1 else 0.0


def _over(means: NDArray[np.float64]) -> tuple[float, int]:
    """The variance of the mean of some repetitions, and its degrees of freedom."""
    return float(means.var(ddof=1)) / len(means), len(means) - 1


@dataclass(frozen=True)
class Outcome:
    """The result of a comparison."""

    comparison: Comparison
    differences: tuple[Difference, ...]
    """That of the chosen layers, then those of the other layers that held-out images do not exclude."""
    repeated: str = ""
    """What `repetitions` counts: "draws of labels" or "seeds of fine-tuning"; empty for a probe."""

    @property
    def first(self) -> Side:
        """The first side, at the chosen layer."""
        return self.differences[0].first

    @property
    def second(self) -> Side:
        """The second side, at the chosen layer."""
        return self.differences[0].second

    @property
    def value(self) -> float:
        """Difference in top-1 accuracy."""
        return self.differences[0].value

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.interval(self.seeds)[0]

    @property
    def high(self) -> float:
        """Its upper end."""
        return self.interval(self.seeds)[1]

    @property
    def paired(self) -> bool:
        """Whether the seeds of both sides are paired."""
        return self.differences[0].paired

    @property
    def seeds(self) -> int:
        """Number of pretraining seeds; 0 if neither side depends on them."""
        return max(len(self.first.seeds), len(self.second.seeds))

    @property
    def repetitions(self) -> int:
        """Number of draws of labels, or of seeds of fine-tuning; 1 for a probe."""
        return self.first.accuracies.shape[1]

    def places(self, second: bool = False) -> list[str]:
        """The layers of a side that the interval covers, the chosen one first."""
        return list(dict.fromkeys((each.second if second else each.first).place for each in self.differences))

    def interval(self, seeds: int) -> tuple[float, float]:
        """The union of the intervals of all differences, see `Difference.interval`."""
        intervals = [each.interval(seeds) for each in self.differences]
        return min(low for low, _ in intervals), max(high for _, high in intervals)

    @property
    def verdict(self) -> Verdict:
        """With one seed nothing is decided: the variation between runs is unknown."""
        return "undecided" if self.seeds == 1 else judge(self.comparison, *self.interval(self.seeds))

    @property
    def seeds_to_decide(self) -> int | None:
        """How many seeds would decide, if difference and spread stay as they are; None if more seeds would not."""
        if self.seeds < 2:
            return None
        further = range(self.seeds + 1, MOST_SEEDS + 1)
        return next((n for n in further if judge(self.comparison, *self.interval(n)) != "undecided"), None)


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
    firsts = _sides(comparison.variant, comparison.layer, comparison.labels, results, fixed)
    if comparison.against in results:
        layer = comparison.against_layer or comparison.layer
        seconds = _sides(comparison.against, layer, comparison.labels, results, fixed)
    else:
        seconds = _references(comparison, results[comparison.variant])
    first, second = firsts[0], seconds[0]
    if first.correct.shape[1] != second.correct.shape[1]:
        raise UserError("the variants were tested on different images: give all of them one source of labeled images.")
    if first.seeds and second.seeds:  # runs may have failed
        common = sorted(set(first.seeds) & set(second.seeds))
        if not common:
            return None
        firsts, seconds = ([_of_seeds(side, common) for side in sides] for sides in (firsts, seconds))
    paired = not (comparison.against == RANDOM and second.place in results[comparison.variant][0].layers)
    differences = tuple(Difference(one, other, paired) for one in firsts for other in seconds)
    repeated = {"draws": "draws of labels", "seeds": "seeds of fine-tuning"}
    return Outcome(comparison, differences, repeated.get(results[comparison.variant][0].repeated, ""))


def best_layer(results: Sequence[Result], key: str = "held_out") -> str:
    """The layer with the best held-out accuracy, averaged over the seeds; the first one on a tie."""
    held = [result.held_out(key) for result in results]
    return max(without_embedding(held[0]), key=lambda layer: statistics.fmean(each[layer] for each in held))


def chosen_layer(rule: str, results: Sequence[Result]) -> str:
    """The layer of the encoder that a rule chooses."""
    return _chosen_layers(rule, results)[0]


def _chosen_layers(rule: str, results: Sequence[Result], random: bool = False) -> list[str]:
    """The layer that a rule chooses; for "best", then those that held-out images do not exclude. Or of random weights.

    Random weights are the same for all seeds.
    """
    layers = without_embedding(results[0].layers)
    if rule != "best":
        if rule not in (*RULES, *layers):
            raise unknown("layer", readable(rule), [*layers, *RULES])
        return [{"first": layers[0], "last": layers[-1]}.get(rule, rule)]
    best = best_layer(results, "random_held_out" if random else "held_out")
    possible = candidates([each.facts for each in results], "random_layers" if random else "layers")
    return [best, *(layer for layer in layers if layer in possible and layer != best)]


def _sides(name: str, rule: str, labels: str | None, by_variant: Results, fixed: Container[str]) -> list[Side]:
    """A variant at each layer that is compared, the chosen one first; with few labels there is one."""
    results = by_variant[name]
    seeds = () if name in fixed else _seeds(results)
    if results[0].layers:
        layers = _chosen_layers(rule, results)
        return [_stacked(name, layer, results, f"layer/{layer}", seeds) for layer in layers]
    row = results[0].rows[0]
    return [_stacked(name, row, results, f"{_count(labels, results)}/{row}", seeds)]


def _references(comparison: Comparison, results: Sequence[Result]) -> list[Side]:
    """Random weights (of a probe: layers by the same rule, and each initialization once), or from scratch."""
    first = results[0]
    if first.layers:
        rule = comparison.against_layer or comparison.layer
        sides = []
        for layer in _chosen_layers(rule, results[:1], random=True):
            if f"random/{layer}" not in first.correct:
                raise UserError(f"{comparison.variant!r} has no parameters, so there are no random weights to compare.")
            correct = first.correct[f"random/{layer}"].astype(np.float64)
            sides.append(Side(RANDOM, layer, correct, correct.mean(1, keepdims=True), ()))
        return sides
    row = first.row_of(comparison.against)
    if row is None:
        raise UserError(f"the evaluation has no results of {comparison.against!r}: it has {', '.join(first.rows)}.")
    key = f"{_count(comparison.labels, results)}/{row}"
    return [_stacked(comparison.against, row, results, key, _seeds(results))]


def _seeds(results: Sequence[Result]) -> tuple[int, ...]:
    return tuple(result.seed for result in results)


def _count(labels: str | None, results: Sequence[Result]) -> str:
    counts = results[0].label_counts
    return counts[0] if labels is None else matching_label(labels, counts)


def _stacked(name: str, place: str, results: Sequence[Result], key: str, seeds: tuple[int, ...]) -> Side:
    if key not in results[0].correct:
        raise UserError(f"the results have no {key}: remove results/ and repeat the command.")
    correct = np.stack([result.correct[key].mean(0) for result in results])
    accuracies = np.stack([result.correct[key].mean(1) for result in results])
    return Side(name, place, correct, accuracies, seeds)


def _of_seeds(side: Side, seeds: Sequence[int]) -> Side:
    rows = [side.seeds.index(seed) for seed in seeds]
    return Side(side.name, side.place, side.correct[rows], side.accuracies[rows], tuple(seeds))
