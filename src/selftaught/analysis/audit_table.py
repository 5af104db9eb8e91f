"""Results of a shortcut audit: a table of pretext accuracies, as JSON and for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table

from selftaught.evaluation.overlap import overlap_warning
from selftaught.evaluation.table import METRICS

MINOR = 0.02
"""Differences below this are reported as small, even if they are statistically significant."""
TRAINED = "as trained"
AT_CHANCE = (
    "Warning: the pretext accuracy is at chance, so cues that are not used yet may be used after longer training."
)

Kind = Literal["trained", "removed", "planted", "control", "off", "on"]
"""How the images or the task were changed.

"off" and "on" switch a guard of the task. Switching it off exposes a cue, as planting one does; switching it on removes
a cue.
"""


@dataclass(frozen=True)
class AuditRow:
    """Pretext accuracy under one change of the images or of the task."""

    change: str
    kind: Kind
    description: str
    """The change, as the end of a sentence: "with dark corners"."""
    accuracy: float
    reference: str
    """The change that this one is compared with, "as trained" for none."""
    expected: float
    """Accuracy of the reference."""
    margin: float
    """Half the width of the 95 % interval of the difference: Student's t, over groups of images, in the same views."""

    @property
    def difference(self) -> float:
        """Accuracy minus that of the reference."""
        return self.accuracy - self.expected

    @property
    def significant(self) -> bool:
        """Whether the 95 % interval excludes zero."""
        return abs(self.difference) > self.margin

    @property
    def uses_cue(self) -> bool:
        """Whether the network exploits the cue: the difference is significant, not small, and of the right sign."""
        if not self.significant or abs(self.difference) < MINOR:
            return False
        if self.kind == "off":
            return self.difference > 0
        return self.kind == "planted" or (self.kind in ("removed", "on") and self.difference < 0)

    @property
    def meaning(self) -> str:
        """The verdict in a few words, such as "cue used"."""
        if self.kind == "trained":
            return ""
        if self.kind == "control":
            return "control"
        if not self.significant:
            return "not used"
        if abs(self.difference) < MINOR:
            return "small effect"
        if self.kind in ("removed", "on"):
            return "cue (or correlated content) used" if self.uses_cue else "cue hurt"
        return "cue used" if self.uses_cue else "not used"

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        if self.kind == "trained":
            return f"Pretext accuracy {self.description}: {self.accuracy:.2f}."
        other = "" if self.reference == TRAINED else f' ("{self.reference}")'
        numbers = f"from {self.expected:.2f}{other} to {self.accuracy:.2f} {self.description}"
        interval = f"({self.difference:+.3f} ± {self.margin:.3f}, 95 % interval)"
        if not self.significant:
            return f"No significant change of pretext accuracy, {numbers} {interval}: {self.meaning}."
        verb = "falls" if self.difference < 0 else "rises"
        return f"Pretext accuracy {verb} {numbers} {interval}: {self.meaning}."


@dataclass(frozen=True)
class AuditTable:
    """Pretext accuracy under every change of an audit."""

    data: str
    metric: str
    """Name of the accuracy in the task's log."""
    chance: float
    images: int
    seeds: int
    rows: tuple[AuditRow, ...]
    """The first is without any change."""
    overlap: int | None = None
    """Number of images that were part of pretraining; None if unknown."""
    probes: tuple[str, ...] = ()
    """One sentence for each probe of the run, see `best_layers`."""

    @property
    def at_chance(self) -> bool:
        """Whether the pretext accuracy without any change is no better than chance, within a 95 % interval."""
        margin = 1.96 * (self.chance * (1 - self.chance) / self.images) ** 0.5
        return self.rows[0].accuracy <= self.chance + margin

    def to_json(self) -> dict[str, object]:
        """Plain values, as stored in `audit/*.json` and printed by `--json`."""
        return {
            "data": self.data,
            "metric": self.metric,
            "chance": self.chance,
            "images": self.images,
            "seeds": self.seeds,
            "overlap": self.overlap,
            "spread": "margins: half the width of 95 % intervals of paired differences, over groups of images",
            "rows": [
                {
                    "change": row.change,
                    "kind": row.kind,
                    "description": row.description,
                    "accuracy": row.accuracy,
                    "reference": row.reference,
                    "expected": row.expected,
                    "margin": row.margin,
                    "difference": row.difference,
                    "uses_cue": row.uses_cue,
                    "meaning": row.meaning,
                    "verdict": row.verdict,
                }
                for row in self.rows
            ],
            "probes": list(self.probes),
        }


def render(table: AuditTable) -> Table:
    """The table for the terminal."""
    captions = [
        f"Chance: {table.chance:.3f}. ±: 95 % interval of the paired difference (same images, same views).",
        *_findings(table.rows),
        *([AT_CHANCE] if table.at_chance else []),
        *([warning] if (warning := overlap_warning(table.overlap, table.images, "images")) else []),
        *table.probes,
    ]
    out = Table(
        title=f"Pretext {table.metric} with cues removed or added, on {table.images:,} images of {table.data}",
        caption="\n".join(captions),
        caption_justify="left",
    )
    for heading in ("change", "accuracy", "difference", "compared with", "verdict"):
        out.add_column(heading, justify="right" if heading in ("accuracy", "difference") else "left")
    previous = "trained"
    for row in table.rows:
        group = _group(row.kind)
        if group != previous:
            out.add_section()
        previous = group
        difference = "" if row.kind == "trained" else f"{row.difference:+.3f} ± {row.margin:.3f}"
        reference = "" if row.kind == "trained" else row.reference
        style = "bold" if row.uses_cue else None
        out.add_row(row.change, f"{row.accuracy:.3f}", difference, reference, row.meaning, style=style)
    return out


def _findings(rows: Sequence[AuditRow]) -> list[str]:
    """Which cues are used, in one or two sentences."""
    shortcuts = [row.change for row in rows if row.uses_cue and row.kind in ("planted", "off")]
    ambiguous = [row.change for row in rows if row.uses_cue and row.kind in ("removed", "on")]
    if not shortcuts and not ambiguous:
        return ["No shortcut detected."]
    return [
        f"Shortcuts detected: {', '.join(shortcuts)}." if shortcuts else "None of the added cues is used.",
        *([f"Cue (or correlated content) used: {', '.join(ambiguous)}."] if ambiguous else []),
    ]


def _group(kind: Kind) -> str:
    """Section of the table: added cues with their controls, and guards switched on or off."""
    return {"control": "planted", "off": "guard", "on": "guard"}.get(kind, kind)


def best_layers(probes: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """One sentence for each probe of a run (`probes/*.json`): the accuracy of its best layer and of random weights.

    Results of earlier versions are skipped, because their best layers were chosen on the test images.
    """
    sentences = []
    for probe in probes:
        if not (gain := probe.get("gain")):
            continue
        rows, metric = {row["layer"]: row for row in probe["layers"]}, str(probe.get("metric", "accuracy"))
        sentences.append(
            f"On {probe['data']}, the best layer ({gain['layer']}) reaches {rows[gain['layer']][metric]:.3f} "
            f"{METRICS[metric].words} ({probe['probe']} probe); random weights reach "
            f"{rows[gain['random_layer']]['random']:.3f} ({gain['random_layer']})."
        )
    return tuple(sentences)
