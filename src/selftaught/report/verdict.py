"""The verdict on a probe: whether pretraining helped, based on the 95 % interval of the gain."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from selftaught.evaluation.baselines import FIXED, label
from selftaught.evaluation.overlap import overlap_warning
from selftaught.evaluation.table import METRICS, TOO_WIDE, MetricName, digits, interval_text
from selftaught.report.record import is_number, last_part

Outcome = Literal["helped", "unclear", "hurt", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """Gain and accuracies (or mAP) of a probe, as fractions from 0 to 1; None if the probe does not have them.

    Both layers were chosen by the metric on held-out training images. Probes of earlier versions have no gain, because
    their best layers were chosen by test accuracy.
    """

    data: str
    """Name of the labeled source, without its folders."""
    best: str
    """The best layer; "n.a." if none was chosen on held-out images."""
    accuracy: float | None
    std: float | None
    random_layer: str
    """The best layer of random weights."""
    random: float | None
    """Its accuracy, averaged over random initializations."""
    pixels: float | None
    chance: float | None
    gain: float | None
    """Accuracy minus that of random weights."""
    interval: tuple[float, float] | None
    """95 % interval of the gain."""
    is_uncertain: bool
    """Whether held-out images do not decide which layer is the best one, so that the interval covers several."""
    test: int | None
    """Number of test images."""
    initializations: int | None
    baselines: tuple[tuple[str, float], ...] = ()
    """Name with layer, and accuracy, of each further baseline at its best layer."""
    differences: tuple[tuple[str, Mapping[str, float]], ...] = ()
    """Name of each further baseline, and the accuracy minus that of the baseline, with its 95 % interval."""
    published: bool = False
    """Whether pretraining started from published weights. These were not probed, so the gain is not its own."""
    baseline: str = ""
    """Name of the baseline that was probed; empty for a pretraining run."""
    metric: MetricName = METRICS["accuracy"]
    """What all numbers are, accuracy or mAP."""

    @property
    def outcome(self) -> Outcome:
        """Whether pretraining, or what the baseline did to the weights, helped."""
        if self.gain is None or self.interval is None or self.published:
            return "unknown"
        return outcome_of(self.gain, *self.interval)

    @property
    def margin(self) -> float | None:
        """Half the width of the interval."""
        return (self.interval[1] - self.interval[0]) / 2 if self.interval else None

    @property
    def places(self) -> int:
        """Decimals of an accuracy, by the number of test images."""
        return digits(self.test)

    @property
    def sentence(self) -> str:
        """The verdict in one paragraph."""
        if self.outcome == "unknown":
            return f"{self._unknown()} {self._accuracies()}".strip()
        if self.outcome == "unclear":
            claim = f"No significant gain: {self._gain()} on {self._images()}."
            if self.margin is not None and self.margin > TOO_WIDE:
                images = f"{self.test:,} test images{' and the held-out ones' if self.is_uncertain else ''}"
                claim += f" {images} are too few: the 95 % interval is ±{self.margin:.2f}."
        else:
            claim = f"{self._subject()} {self.outcome}: {self._gain()} on {self._images()}."
        return " ".join([claim, self._accuracies(), *self._differences(), self._single()])

    def _differences(self) -> list[str]:
        """The differences to further baselines, one sentence each."""
        return [f"Best layer minus {name}: {interval_text(found, self.places)}." for name, found in self.differences]

    def _subject(self) -> str:
        """The cause of the gain, in words."""
        if self.baseline == "random":
            return "This random initialization"
        return _capitalized(label(self.baseline)) if self.baseline else "Pretraining"

    def _single(self) -> str:
        if self.baseline and not self.baseline.startswith("timm:"):
            return "One seed: variation between seeds is not included."
        return "One pretraining run: variation between runs is not included."

    def _unknown(self) -> str:
        if self.baseline in FIXED:
            return f"{_capitalized(label(self.baseline))}: no parameters, so a gain over random weights is not defined."
        if self.published:
            return "Gain of pretraining unknown: it started from published weights, which were not probed."
        if self.accuracy is None and self.random is None:
            return f"Gain unknown: the probe on {self.data} is from an earlier version. Run the probe again."
        return "Gain unknown: the probe has no 95 % interval."

    def _gain(self) -> str:
        assert self.gain is not None
        assert self.interval is not None
        low, high = self.interval
        return (
            f"{self.gain:+.{self.places}f} {self.metric.words} over random weights "
            f"(95 % interval {low:+.{self.places}f} to {high:+.{self.places}f})"
        )

    def _images(self) -> str:
        return f"{self.test:,} test images of {self.data}" if self.test else f"the test images of {self.data}"

    def _accuracies(self) -> str:
        """All available accuracies in one sentence."""
        parts = []
        if self.accuracy is not None:
            chosen = f"{self.best}, chosen by held-out {self.metric.short}"
            parts.append(f"{self._number(self.accuracy)} at the best layer ({chosen})")
        if self.random is not None:
            over = f", mean of {self.initializations} initializations" if (self.initializations or 0) > 1 else ""
            parts.append(f"random weights {self._number(self.random)} ({self.random_layer}{over})")
        pixels = [("raw pixels", self.pixels)] if self.pixels is not None else []
        for name, value in (*self.baselines, *pixels):
            above = self.accuracy is not None and value > self.accuracy
            parts.append(f"{name} {self._number(value)}{', above the best layer' if above else ''}")
        if self.chance is not None:
            parts.append(f"chance {self._number(self.chance)}")
        return f"{_capitalized(self.metric.short)}: {'; '.join(parts)}." if parts else ""

    def _number(self, value: float) -> str:
        return f"{value:.{self.places}f}"


def outcome_of(gain: float, low: float, high: float) -> Outcome:
    """Whether pretraining helped, by the 95 % interval of the gain."""
    if low <= 0 <= high:
        return "unclear"
    return "helped" if gain > 0 else "hurt"


def judge(probe: Mapping[str, Any], published: bool = False, baseline: str = "") -> Verdict:
    """Compare the best layer with the best layer of random weights, raw pixels and chance.

    Args:
        probe: the content of a `probes/*.json`, with at least one layer.
        published: whether training started from published weights.
        baseline: name of the baseline that was probed; empty for a pretraining run.
    """
    gain = probe.get("gain")
    gain = gain if isinstance(gain, Mapping) else {}
    rows = {str(row.get("layer")): row for row in probe["layers"]}
    best, random_layer = str(gain.get("layer", "n.a.")), str(gain.get("random_layer", "n.a."))
    low, high = optional(gain, "low"), optional(gain, "high")
    metric = metric_of(probe)
    return Verdict(
        data=last_part(str(probe.get("data", "n.a."))),
        best=best,
        accuracy=optional(rows.get(best, {}), metric),
        std=optional(rows.get(best, {}), "std"),
        random_layer=random_layer,
        random=optional(rows.get(random_layer, {}), "random"),
        pixels=optional(probe, "pixels"),
        chance=optional(probe, "chance"),
        gain=optional(gain, "value"),
        interval=(low, high) if low is not None and high is not None else None,
        is_uncertain=any(
            isinstance(names := gain.get(key), list) and len(names) > 1 for key in ("layers", "random_layers")
        ),
        test=integer(probe, "test"),
        initializations=integer(probe, "initializations"),
        baselines=tuple((f"{row['title']} ({row['layer']})", float(row[metric])) for row in probe.get("baselines", ())),
        differences=tuple(
            (str(row["title"]), found) for row in probe.get("baselines", ()) if (found := row.get("difference"))
        ),
        published=published,
        baseline=baseline,
        metric=METRICS[metric],
    )


def metric_of(probe: Mapping[str, Any]) -> str:
    """The key of the metric in the layers of a probe: "accuracy" or "map"."""
    return str(probe.get("metric") or "accuracy")


def _capitalized(text: str) -> str:
    return text if text == "mAP" else text[:1].upper() + text[1:]


def optional(numbers: Mapping[str, Any], key: str) -> float | None:
    """The finite number stored under a key, or None."""
    value = numbers.get(key)
    return float(value) if is_number(value) else None


def integer(numbers: Mapping[str, Any], key: str) -> int | None:
    """The number stored under a key as an integer, or None."""
    value = optional(numbers, key)
    return None if value is None else int(value)


def overlap_note(table: Mapping[str, Any]) -> str:
    """How many test images were in pretraining; unknown for earlier versions, which compared names only."""
    overlap = table.get("overlap")
    return overlap_warning(int(overlap) if is_number(overlap) else None, integer(table, "test") or 0)
