"""Analyses and evaluations with labels in the report: a figure with sentences each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from selftaught import figures
from selftaught.evaluation.finetune_table import spread_over
from selftaught.evaluation.table import digits, interval_text
from selftaught.report.compare import count
from selftaught.report.embed import inline
from selftaught.report.probe_section import with_std
from selftaught.report.record import Record
from selftaught.report.verdict import integer, overlap_note

NO_SHORTCUT = "No shortcut detected."

QUALITY_NOTE = (
    "Effective rank: RankMe. Relative std: standard deviation of unit features over that of isotropic features; 0 if "
    "all images have the same feature. Alignment: mean squared distance between two augmented views of an image. "
    "Uniformity: lower if features of different images spread more. Dead channels have the same activation for all "
    "images."
)


@dataclass(frozen=True)
class Analysis:
    """A shortcut audit, an evaluation with few labels, or an analysis of invariance or feature quality."""

    title: str
    figure: Markup
    verdicts: Sequence[str]


def gather_analyses(record: Record, salt: str) -> list[Analysis]:
    """Evaluations with labels, shortcut audits, and analyses of invariance and feature quality of a run."""
    analyses = [label_analysis(table, f"{salt}-labels{index}") for index, table in enumerate(record.finetunes)]
    for index, table in enumerate(record.audits):
        figure = inline(figures.audit(table), f"{salt}-audit{index}", "pretext accuracy with each cue removed or added")
        verdicts = [str(row["verdict"]) for row in table["rows"] if row.get("uses_cue")]
        analyses.append(Analysis(f"Shortcut audit on {table['data']}", figure, verdicts or [NO_SHORTCUT]))
    for index, table in enumerate(record.invariances):
        figure = inline(figures.invariance(table), f"{salt}-invariance{index}", "invariance of every layer")
        analyses.append(Analysis(f"Invariance of every layer on {table['data']}", figure, []))
    for index, table in enumerate(record.qualities):
        figure = inline(figures.quality(table), f"{salt}-quality{index}", "feature quality of every layer")
        title = f"Feature quality of every layer on {count(table['images'])} images of {table['data']}"
        analyses.append(Analysis(title, figure, [QUALITY_NOTE]))
    return analyses


def label_analysis(table: Mapping[str, Any], salt: str) -> Analysis:
    """Fine-tuning, or a probe with few labels: accuracy by number of labels."""
    first, test = table["results"][0]["rows"][0]["name"], integer(table, "test")
    title = f"{'Fine-tuning' if first == 'fine-tuned' else 'Probe with few labels'} on {table['data']}"
    figure = inline(figures.label_curve(table), salt, "accuracy by number of labeled images")
    notes = []
    for result in table["results"]:
        rows = [f"{row['name']} {with_std(row, 'accuracy', 'std', test)}" for row in result["rows"]]
        places = digits(test)
        compared = [f"{first} minus {each['over']} {interval_text(each, places)}" for each in result["differences"]]
        images = f"{result['name']} ({count(int(result['images']))} images)"
        notes.append(f"{images}: {', '.join(rows)}{''.join(f'; {each}' for each in compared)}.")
    repetitions = len(table["results"][0]["rows"][0].get("accuracies") or [None])
    spread = f"{spread_over(repetitions, str(table['repeated']))} Bars are 95 % intervals."
    crossing = [str(table["crossing"]["sentence"])] if table.get("crossing") else []
    also = [text for text in (str(table.get("note") or ""), overlap_note(table)) if text]
    return Analysis(title, figure, [*crossing, *notes, spread, *also])
