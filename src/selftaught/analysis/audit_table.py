"""The table that an audit makes: for programs as JSON, for people as lines and sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table

from selftaught.evaluation.overlap import seen_warning

MINOR = 0.02
"""Differences smaller than this are called small, however sure they are."""
TRAINED = "as trained"
AT_CHANCE = "Warning: the pretext accuracy is at chance, so cues not read here may be read after longer training."

Kind = Literal["trained", "removed", "planted", "control", "off", "on"]
"""Off and on: a guard of the task was switched so. Off offers a cue as a plant does, on takes one as a removal does."""


@dataclass(frozen=True)
class Answer:
    """How the pretext question was answered under one change."""

    change: str
    kind: Kind
    said: str
    """When, as the end of a sentence."""
    accuracy: float
    against: str
    """Which change it is held against; "as trained" for none."""
    expected: float
    """The accuracy under that."""
    margin: float
    """Half the width of a 95 % interval of the difference: normal, over groups of images, in the same views."""

    @property
    def difference(self) -> float:
        """To what it is held against."""
        return self.accuracy - self.expected

    @property
    def seen(self) -> bool:
        """Whether the interval leaves out zero."""
        return abs(self.difference) > self.margin

    @property
    def uses_cue(self) -> bool:
        """Whether it says that the net reads the cue: a difference, in the direction that a cue makes."""
        if not self.seen or abs(self.difference) < MINOR:
            return False
        if self.kind == "off":
            return self.difference > 0
        return self.kind == "planted" or (self.kind in ("removed", "on") and self.difference < 0)

    @property
    def meaning(self) -> str:
        """What follows, in a few words."""
        if self.kind == "trained":
            return ""
        if self.kind == "control":
            return "damage alone"
        if not self.seen:
            return "not read"
        if abs(self.difference) < MINOR:
            return "hardly read"
        if self.kind in ("removed", "on"):
            return "read, or what went with it" if self.uses_cue else "it was in the way"
        return "read" if self.uses_cue else "no help"

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.kind == "trained":
            return f"The pretext accuracy is {self.accuracy:.2f} {self.said}."
        turn = "stays near" if not self.seen else "falls to" if self.difference < 0 else "rises to"
        other = "" if self.against == TRAINED else f' under "{self.against}"'
        return (
            f"From {self.expected:.2f}{other} the accuracy {turn} {self.accuracy:.2f} {self.said} "
            f"({self.difference:+.3f} ± {self.margin:.3f}): {self.meaning}."
        )


@dataclass(frozen=True)
class AuditTable:
    """What became of the pretext accuracy."""

    data: str
    metric: str
    """What the task calls it."""
    chance: float
    images: int
    seeds: int
    answers: tuple[Answer, ...]
    """The first is that without any change."""
    seen: int | None = None
    """How many of the images were part of pretraining; None if unknown."""
    probes: tuple[str, ...] = ()
    """One sentence for each probe of the run, see `best_layers`."""

    @property
    def at_chance(self) -> bool:
        """Whether the pretext accuracy without any change is no better than chance, within a 95 % interval."""
        margin = 1.96 * (self.chance * (1 - self.chance) / self.images) ** 0.5
        return self.answers[0].accuracy <= self.chance + margin

    def to_json(self) -> dict[str, object]:
        """Plain values; `audit/*.json` holds this object and `--json` prints it."""
        fields = ("difference", "uses_cue", "meaning", "verdict")
        return {
            "data": self.data,
            "metric": self.metric,
            "chance": self.chance,
            "images": self.images,
            "seeds": self.seeds,
            "seen": self.seen,
            "spread": "margins: half of 95 % intervals of paired differences, over groups of images",
            "answers": [{**vars(a), **{name: getattr(a, name) for name in fields}} for a in self.answers],
            "probes": list(self.probes),
        }


def render(table: AuditTable) -> Table:
    """The table as rich prints it."""
    sure = [answer.change for answer in table.answers if answer.uses_cue and answer.kind in ("planted", "off")]
    perhaps = [answer.change for answer in table.answers if answer.uses_cue and answer.kind in ("removed", "on")]
    told = [
        f"Chance {table.chance:.3f}. ±: 95 % interval of the difference between the same images in the same views.",
        f"Read: {', '.join(sure) or 'none of the cues that were offered'}.",
        *([f"Read, or content that went with it: {', '.join(perhaps)}."] if perhaps else []),
        *([AT_CHANCE] if table.at_chance else []),
        *([warning] if (warning := seen_warning(table.seen, table.images, "images")) else []),
        *table.probes,
    ]
    out = Table(
        title=f"pretext {table.metric} when cues are removed or planted, {table.images:,} of {table.data}",
        caption="\n".join(told),
        caption_justify="left",
    )
    for heading in ("change", "accuracy", "difference", "to", "verdict"):
        out.add_column(heading, justify="right" if heading in ("accuracy", "difference") else "left")
    last = "trained"
    for answer in table.answers:
        kind = _group(answer.kind)
        if kind != last:
            out.add_section()
        last = kind
        apart = "" if answer.kind == "trained" else f"{answer.difference:+.3f} ± {answer.margin:.3f}"
        to = "" if answer.kind == "trained" else answer.against
        style = "bold" if answer.uses_cue else None
        out.add_row(answer.change, f"{answer.accuracy:.3f}", apart, to, answer.meaning, style=style)
    return out


def _group(kind: Kind) -> str:
    """What stands together: plants with their controls, guards."""
    return {"control": "planted", "off": "guard", "on": "guard"}.get(kind, kind)


def best_layers(probes: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """One sentence for each probe of a run (`probes/*.json`): the accuracy of its best layer, and of random weights.

    Results of earlier versions are left out: their best layers were chosen on the test images.
    """
    sentences = []
    for probe in probes:
        if not (gain := probe.get("gain")):
            continue
        rows = {row["layer"]: row for row in probe["layers"]}
        sentences.append(
            f"On {probe['data']}, the best layer ({gain['layer']}) reaches {rows[gain['layer']]['accuracy']:.3f} top-1 "
            f"accuracy ({probe['protocol']} probe); random weights reach {rows[gain['random_layer']]['random']:.3f} "
            f"({gain['random_layer']})."
        )
    return tuple(sentences)
