"""Comparison of groups of runs: mean and spread over pretraining seeds, and paired 95 % intervals between groups.

Runs that differ in the seed only are one group. A further run of the same seed, such as a copy, is not part of it,
because it does not show the variation between seeds. Groups are compared if they were probed in the same way, with the
same settings of the probe, on the same test images; their view sizes may differ. The layer of a group is the one with
the best accuracy on held-out training images, averaged over its runs, and so is the group that all others are compared
with: test images choose nothing.
"""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftaught.errors import readable
from selftaught.evaluation.baselines import FIXED
from selftaught.evaluation.embedding import without_embedding
from selftaught.evaluation.gain import candidates
from selftaught.evaluation.intervals import Measured, over_choices
from selftaught.evaluation.table import METRICS, TOO_WIDE, MetricName, digits
from selftaught.report.probe_names import probe_labels
from selftaught.report.record import Record, is_number, last_part
from selftaught.report.verdict import metric_of
from selftaught.runs.folder import RunFolder

IRRELEVANT = ("seed", "device", "threads", "minutes", "data", "labels")
"""Settings in which the runs of a group may differ: the images are compared by their content instead."""
IMAGES = "images"
"""Key of the digest of the pretraining images among the settings of a run."""
COMPARED = ("metric", "probe", "settings", "pooling", "dimensions", "train", "test")
"""Facts that must agree for two probes to be comparable."""
PROBE_KEYS = ("data", "size", "seeds", "recalibrated", *COMPARED)
"""Those of the probes of one group."""


@dataclass(frozen=True)
class GroupResult:
    """A group of runs under one probe."""

    name: str
    """Name of the run, or of the first one and the number of others."""
    probe: str
    """The probe and its images."""
    layer: str
    """The layer with the best held-out accuracy, averaged over the runs."""
    held_out: float
    choices: tuple[Measured, ...]
    """The metric of every run, averaged over the probe seeds: at `layer`, then at the others that are not
    significantly worse on the held-out images of a run."""
    random_choices: tuple[Measured, ...]
    """The same of every initialization of random weights; empty for encoders without parameters."""
    test: int
    """Number of test images."""
    metric: MetricName
    protocol: str
    """How and on which test images the runs were probed; groups with another protocol are not compared."""
    members: tuple[tuple[Record, Mapping[str, Any]], ...] = field(compare=False, repr=False)
    """The runs, each with the probe in question."""

    @property
    def own(self) -> Measured:
        """The metric of every run at `layer`."""
        return self.choices[0]

    @property
    def random(self) -> Measured | None:
        """That of every random initialization at its best layer; None for encoders without parameters."""
        return self.random_choices[0] if self.random_choices else None

    def gain(self) -> tuple[float, float, float]:
        """The gain over random weights, with its 95 % interval; the encoders must have parameters."""
        return over_choices(self.choices, self.random_choices)

    @property
    def accuracies(self) -> list[float]:
        """The metric of each run."""
        return [float(value) for value in self.own.values]

    @property
    def mean(self) -> float:
        """Mean accuracy over the runs."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the runs; None for a single one."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None


def group_results(records: Sequence[Record]) -> list[GroupResult]:
    """The groups of some runs, one for each way in which their runs were probed."""
    groups: dict[str, list[tuple[Record, Mapping[str, Any], Mapping[str, NDArray[Any]]]]] = {}
    seeds: Counter[str] = Counter()
    for record in records:
        for probe in record.probes:
            arrays = RunFolder(record.path).read_correctness(probe)
            if arrays is not None:
                key = json.dumps([_setting(record), [str(probe.get(name)) for name in PROBE_KEYS], _images(arrays)])
                same_seed = f"{key} {record.config.get('seed')}"
                groups.setdefault(f"{key} {seeds[same_seed]}", []).append((record, probe, arrays))
                seeds[same_seed] += 1
    labels = probe_labels([members[0][1] for members in groups.values()])
    return [_result(members, label) for members, label in zip(groups.values(), labels, strict=True)]


def sentences(groups: Sequence[GroupResult]) -> list[str]:
    """One sentence for each group against the best one by held-out accuracy, for each probe and its test images."""
    texts = []
    for same in _comparable(groups):
        best = max(same, key=lambda group: group.held_out)
        texts += [_sentence(best, other) for other in same if other is not best]
        if len(same) > 2:
            texts.append(f"{best.probe}: the {len(same) - 1} intervals are not corrected for multiple comparisons.")
    return texts


def _comparable(groups: Sequence[GroupResult]) -> list[list[GroupResult]]:
    """The groups of each protocol; the first one of each set of runs, which may have been probed at several sizes."""
    sets: dict[str, dict[Path, GroupResult]] = {}
    for group in groups:
        sets.setdefault(group.protocol, {}).setdefault(group.members[0][0].path, group)
    return [list(same.values()) for same in sets.values() if len(same) > 1]


def _sentence(best: GroupResult, other: GroupResult) -> str:
    value, low, high = over_choices(best.choices, other.choices)
    count, words = best.test, best.metric.words
    places, margin = digits(count), (high - low) / 2
    interval = f"95 % interval {low:+.{places}f} to {high:+.{places}f}"
    if low > 0 or high < 0:
        first, second = (best, other) if value > 0 else (other, best)
        low, high = (low, high) if value > 0 else (-high, -low)
        claim = (
            f"{first.name} is better than {second.name} by {abs(value):.{places}f} {words} "
            f"(95 % interval {low:.{places}f} to {high:.{places}f})"
        )
    else:
        claim = f"not decided: {best.name} and {other.name} differ by {value:+.{places}f} {words} ({interval})"
    text = f"{best.probe}: {claim}. {_seeds(best, other)}{_only_difference(best, other)}"
    if low <= 0 <= high and margin > TOO_WIDE:
        text += f" The interval is ±{margin:.2f}: {count:,} test images and these seeds are too few to decide."
    return text


def _only_difference(best: GroupResult, other: GroupResult) -> str:
    """The setting in which two groups differ, if it is only one: why runs are not seeds of one group."""
    ours, theirs = (_setting(group.members[0][0]) for group in (best, other))
    differing = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
    if len(differing) != 1 or differing == [IMAGES]:
        return ""
    values = (readable(settings.get(differing[0], "none")) for settings in (ours, theirs))
    return f" They differ in {readable(differing[0].replace('_', ' '))} only: {' and '.join(values)}."


def _seeds(first: GroupResult, second: GroupResult) -> str:
    counts = [len(group.own.values) for group in (first, second)]
    if max(counts) == 1:
        return "One run each: variation between runs is not included."
    if min(counts) > 1:
        return f"Variation between {counts[0]} and {counts[1]} seeds is included."
    single = (first, second)[counts.index(1)].name
    return f"{single} is a single run: its variation between runs is not included."


def _result(members: Sequence[tuple[Record, Mapping[str, Any], Mapping[str, NDArray[Any]]]], label: str) -> GroupResult:
    """The result of some runs; `label` names their probe."""
    record, probe, first = members[0]
    layers = first["layers"].tolist()
    held = [_column(each, "held_out") for _, each, _ in members]
    means = {layer: statistics.fmean(values[layer] for values in held) for layer in layers}
    chosen = without_embedding(layers)
    layer = max(chosen, key=means.__getitem__)
    random_held = _column(probe, "random_held_out")
    random_layer = max(chosen, key=random_held.__getitem__)
    resampled = metric_of(probe) == "map"

    def measured(name: str) -> Measured:
        place = layers.index(name)
        return Measured(
            np.array([arrays["trained_values"][:, place].mean() for _, _, arrays in members]),
            np.stack([arrays["trained"][:, place].mean(0) for _, _, arrays in members]),
            resampled,
        )

    def random(name: str) -> Measured:
        place = layers.index(name)
        return Measured(first["random_values"][:, place], first["random"][:, place].astype(np.float64), resampled)

    probes = [each for _, each, _ in members]
    others, random_others = candidates(probes, "layers"), candidates(probes[:1], "random_layers")
    choices = [layer, *(name for name in chosen if name != layer and name in others)]
    random_choices = [random_layer, *(name for name in chosen if name != random_layer and name in random_others)]
    more = f" (mean of {len(members)} seeds)" if len(members) > 1 else ""
    return GroupResult(
        name=f"{record.name}{more}",
        probe=f"{_data(probe, first)}{label}",
        layer=layer,
        held_out=means[layer],
        choices=tuple(map(measured, choices)),
        random_choices=() if record.baseline in FIXED else tuple(map(random, random_choices)),
        test=len(first["labels"]),
        metric=METRICS[metric_of(probe)],
        protocol=json.dumps([_data(probe, first), [str(probe.get(name)) for name in COMPARED], _images(first)]),
        members=tuple((record, probe) for record, probe, _ in members),
    )


def _data(probe: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """The labeled source, without its folders if the test images are identified by their content."""
    return last_part(str(probe.get("data"))) if len(arrays["test_ids"]) else str(probe.get("data"))


def _column(probe: Mapping[str, Any], name: str) -> dict[str, float]:
    """A number of every layer; 0 if missing."""
    return {row["layer"]: float(row[name]) if is_number(row.get(name)) else 0.0 for row in probe["layers"]}


def _setting(record: Record) -> dict[str, str]:
    relevant = {name: str(value) for name, value in sorted(record.config.items()) if name not in IRRELEVANT}
    return relevant | {IMAGES: str(record.state.get("fingerprint"))}


def _images(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = blake2b(arrays["labels"].tobytes(), digest_size=8)
    digest.update(arrays["test_ids"].tobytes())
    return digest.hexdigest()
