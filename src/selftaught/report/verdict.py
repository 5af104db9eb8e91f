"""What a probe says, in one sentence, and no better than it is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from selftaught.report.record import is_number, last_part

Kind = Literal["helped", "unclear", "hurt", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """The numbers that decide, all accuracies as fractions of one; None where the probe does not say."""

    data: str
    """What was probed on, without its folders."""
    best: str
    """The layer that reads best."""
    accuracy: float | None
    std: float | None
    random: float | None
    """What random weights of the same encoder read at their own best layer."""
    pixels: float | None
    chance: float | None
    margin: float | None
    """Gains up to this size prove nothing: two standard errors of the difference."""
    published: bool = False
    """Whether training began with published weights, which were not probed: who gained what cannot be told."""

    @property
    def gain(self) -> float | None:
        """How much the best layer reads better than the best layer of random weights."""
        return self.accuracy - self.random if self.accuracy is not None and self.random is not None else None

    @property
    def kind(self) -> Kind:
        """Whether pretraining helped."""
        if self.gain is None or self.published:
            return "unknown"
        if abs(self.gain) <= (self.margin or 0):
            return "unclear"
        return "helped" if self.gain > 0 else "hurt"

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self.accuracy is None:
            return f"The probe on {self.data} holds no accuracy, so nothing can be said."
        claims: dict[Kind, str] = {"unknown": "What pretraining gave is not known, as random weights were not probed"}
        if self.published:
            claims["unknown"] = "What this pretraining added to the published weights that it began with is not known"
        elif self.gain is not None:
            margin = "" if self.margin is None else f" (± {self.margin:.3f})"
            claims |= {
                "helped": f"Pretraining helped, by {self.gain:.3f}",
                "unclear": f"Pretraining shows no clear gain, as {self.gain:+.3f} is within the noise{margin}",
                "hurt": f"Pretraining did not help, as random weights read better by {-self.gain:.3f}",
            }
        found = f"the best layer, {self.best}, reads {self.accuracy:.3f} of the test images of {self.data} right"
        if self.random is not None:
            found += f"; random weights of the same encoder {self.random:.3f} at their best"
        if self.pixels is not None:
            found += f"; raw pixels {self.pixels:.3f}{', more than any layer' if self.pixels > self.accuracy else ''}"
        if self.chance is not None:
            found += f"; chance {self.chance:.3f}"
        return f"{claims[self.kind]}: {found}."


def judge(probe: Mapping[str, Any], published: bool = False) -> Verdict:
    """Compare the best layer with random weights at their own best, raw pixels and chance.

    Args:
        probe: what a `probes/*.json` holds, with at least one layer.
        published: whether training began with published weights.
    """
    trained, random = best_layer(probe, "accuracy"), best_layer(probe, "random")
    return Verdict(
        data=last_part(str(probe.get("data", "n.a."))),
        best=str(trained["layer"]),
        accuracy=optional(trained, "accuracy"),
        std=optional(trained, "std"),
        random=optional(random, "random"),
        pixels=optional(probe, "pixels"),
        chance=optional(probe, "chance"),
        margin=noise(trained, random, probe.get("test")),
        published=published,
    )


def best_layer(probe: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The layer whose number of that name is largest: the first of equals, missing ones last."""
    best: Mapping[str, Any] = probe["layers"][0]
    for layer in probe["layers"][1:]:
        found, so_far = optional(layer, key), optional(best, key)
        if found is not None and (so_far is None or found > so_far):
            best = layer
    return best


def noise(trained: Mapping[str, Any], random: Mapping[str, Any], tested: object) -> float | None:
    """Two standard errors of the difference between two accuracies, or None where nothing is known of their spread.

    Adds the binomial variance p (1 - p) / n of reading n test images, for either, and the variances over repeated
    probes. Both were read on the same images, so the truth is a little tighter: this errs towards "no clear gain".
    """
    variance, known = 0.0, False
    for layer, mean, std in ((trained, "accuracy", "std"), (random, "random", "random_std")):
        accuracy, spread = optional(layer, mean), optional(layer, std)
        if accuracy is not None and isinstance(tested, int) and tested > 0:
            variance, known = variance + accuracy * (1 - accuracy) / tested, True
        if spread is not None:
            variance, known = variance + spread**2, True
    return 2 * math.sqrt(max(variance, 0.0)) if known else None


def optional(numbers: Mapping[str, Any], key: str) -> float | None:
    """A finite number by its name, or None."""
    value = numbers.get(key)
    return float(value) if is_number(value) else None
