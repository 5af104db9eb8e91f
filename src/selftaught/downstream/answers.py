"""The table that an audit makes: for programs as JSON, for people as lines and sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table

MINOR = 0.02
"""Differences smaller than this are called small, however sure they are."""
TRAINED = "as trained"

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
    def reads(self) -> bool:
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
            return "read, or what went with it" if self.reads else "it was in the way"
        return "read" if self.reads else "no help"

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
    seen: bool = False
    """Whether pretraining saw these very images."""
    probes: tuple[str, ...] = ()
    """The best layer of each probe that the run has, in words."""

    def to_json(self) -> dict[str, object]:
        """Plain values; `audit/*.json` holds this object and `--json` prints it."""
        fields = ("difference", "reads", "meaning", "verdict")
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
    sure = [answer.change for answer in table.answers if answer.reads and answer.kind in ("planted", "off")]
    perhaps = [answer.change for answer in table.answers if answer.reads and answer.kind in ("removed", "on")]
    told = [
        f"Chance {table.chance:.3f}. ±: 95 % interval of the difference between the same images in the same views.",
        f"Read: {', '.join(sure) or 'none of the cues that were offered'}.",
        *([f"Read, or content that went with it: {', '.join(perhaps)}."] if perhaps else []),
        *(["These images were seen in pretraining."] if table.seen else []),
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
        style = "bold" if answer.reads else None
        out.add_row(answer.change, f"{answer.accuracy:.3f}", apart, to, answer.meaning, style=style)
    return out


def _group(kind: Kind) -> str:
    """What stands together: plants with their controls, guards."""
    return {"control": "planted", "off": "guard", "on": "guard"}.get(kind, kind)


def best_layers(probes: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What each probe of a run (`probes/*.json`) read best, in words: a pretext task is solved for its sake."""
    said = []
    for probe in probes:
        best = max(probe["layers"], key=lambda row: row["accuracy"])
        random = max(row["random"] for row in probe["layers"])
        said.append(
            f"Its best layer read {best['accuracy']:.3f} of {probe['data']} rightly ({best['layer']}, "
            f"{probe['protocol']} probe; the best with random weights {random:.3f})."
        )
    return tuple(said)
