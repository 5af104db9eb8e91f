"""Comparison of runs: a table with one row per run and probe, for the terminal and the HTML report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from selftaught.evaluation.table import digits
from selftaught.report.groups import GroupResult, group_results, sentences
from selftaught.report.probe_names import MISSING, probe_labels
from selftaught.report.record import Record, is_number, read_records
from selftaught.report.transfers import transfer_tables
from selftaught.report.verdict import Outcome, Verdict, judge, metric_of, outcome_of


@dataclass(frozen=True)
class ComparisonRow:
    """A run and the verdict of one of its probes, or None for a run without probes."""

    record: Record
    probe: Mapping[str, Any] | None = None
    verdict: Verdict | None = None
    details: str = ""
    """Probe and number of labels, if the run has several probes on the same images."""

    @property
    def outcome(self) -> Outcome:
        """Whether pretraining helped."""
        return self.verdict.outcome if self.verdict else "unknown"

    @property
    def data(self) -> str:
        """The labeled images of the probe."""
        return f"{self.verdict.data}{self.details}" if self.verdict else MISSING

    def cells(self) -> list[str]:
        """The text of every column in `COLUMNS`."""
        verdict, record = self.verdict, self.record
        head = [record.name, record.pretext, self.data, verdict.best if verdict else MISSING]
        minutes = MISSING if record.minutes is None else f"{record.minutes:,.1f}"
        return [*head, *(_numbers(verdict) if verdict else [MISSING] * 5), minutes, count(record.images_processed)]


@dataclass(frozen=True)
class SeedsRow:
    """The mean over several runs that differ in the seed only."""

    group: GroupResult
    first: ComparisonRow
    """The row of the first of these runs."""

    @property
    def outcome(self) -> Outcome:
        """Whether pretraining helped, on average over the seeds."""
        if self.group.random is None or (self.first.verdict and self.first.verdict.published):
            return "unknown"
        return outcome_of(*self.group.gain())

    def cells(self) -> list[str]:
        """The text of every column in `COLUMNS`."""
        group, first = self.group, self.first.cells()
        places = digits(group.test)
        accuracy = f"{group.mean:.{places}f}" + ("" if group.std is None else f" ± {group.std:.{places}f}")
        random, gain = MISSING, MISSING
        if group.random is not None:
            value, low, high = group.gain()
            random = fraction(group.random.mean, group.test)
            gain = f"{value:+.{places}f}{_bounds(low, high, places)}"
        head = [group.name, self.first.record.pretext, self.first.data, group.layer]
        return [*head, accuracy, random, gain, *first[GAIN + 1 : GAIN + 3], "", ""]


COLUMNS = (
    "run", "pretext task", "probed on", "best layer",
    "accuracy", "random", "gain", "pixels", "chance", "minutes", "images processed",
)  # fmt: skip
TEXT_COLUMNS = 4
"""Number of leading text columns, aligned left; the other columns are numbers, aligned right."""
GAIN = COLUMNS.index("gain")
STYLES: dict[Outcome, str] = {"helped": "green", "unclear": "dim", "hurt": "red", "unknown": ""}
"""Terminal style of a gain by its outcome."""
CAPTION = (
    "accuracy: best layer, chosen by accuracy on held-out training images (± standard deviation over probe seeds); mAP "
    "instead where images may have several classes; "
    "random: the same for random weights, mean over initializations; gain: accuracy minus random, with its 95 % "
    "interval, over all layers not significantly worse than the best one on held-out images; it does not "
    "include variation between pretraining runs (dim or gray: the interval includes zero)"
)
SEEDS_CAPTION = (
    "mean of seeds: runs that differ in the seed only, at the layer with the best mean held-out accuracy, with the "
    "standard deviation over pretraining seeds; its 95 % interval includes the variation between them"
)


def all_rows(records: Sequence[Record], groups: Sequence[GroupResult]) -> list[ComparisonRow | SeedsRow]:
    """The rows of the table: those of `rows`, and one for every group of several seeds after its last run."""
    found: list[ComparisonRow | SeedsRow] = []
    several = [group for group in groups if len(group.members) > 1]
    first_rows: dict[int, ComparisonRow] = {}
    for row in rows(records):
        found.append(row)
        for number, group in enumerate(several):
            places = [place for place, (_, probe) in enumerate(group.members) if probe is row.probe]
            if 0 in places:
                first_rows[number] = row
            if len(group.members) - 1 in places:
                found.append(SeedsRow(group, first_rows[number]))
    return found


def caption(groups: Sequence[GroupResult]) -> str:
    """The caption of the table."""
    return "; ".join([CAPTION, *([SEEDS_CAPTION] if any(len(group.members) > 1 for group in groups) else [])])


def rows(records: Sequence[Record]) -> list[ComparisonRow]:
    """One row per run and probe, in the given order of runs; a run without probes has one row."""
    table: list[ComparisonRow] = []
    for record in records:
        verdicts = [judge(probe, record.published, record.baseline) for probe in record.probes]
        names = [verdict.data for verdict in verdicts]  # a path and a link to it have the same name
        labels = probe_labels(record.probes, ("size", "seeds", "labels", "recalibrated"))
        for probe, label, verdict in zip(record.probes, labels, verdicts, strict=True):
            details = label if names.count(verdict.data) > 1 or metric_of(probe) == "map" else ""
            table.append(ComparisonRow(record, probe, verdict, details + overlap(probe)))
        if not record.probes:
            table.append(ComparisonRow(record))
    return table


def baseline_sentences(records: Sequence[Record]) -> list[str]:
    """The further baselines of the probes, each set once, with the runs that it is for."""
    runs: dict[str, list[str]] = {}
    for row in rows(records):
        if row.verdict and row.verdict.baselines:
            values = (f"{name} {fraction(value, row.verdict.test)}" for name, value in row.verdict.baselines)
            runs.setdefault(f"{row.verdict.data}{row.details}: {'; '.join(values)}.", []).append(row.record.name)
    return [f"Baselines of {', '.join(names)} on {found}" for found, names in runs.items()]


def overlap(probe: Mapping[str, Any]) -> str:
    """A note that test images were part of the pretraining set, or nothing."""
    overlap, test = probe.get("overlap"), probe.get("test")
    if not (is_number(overlap) and is_number(test) and overlap):
        return ""
    return f"; {count(int(overlap))} of {count(int(test))} test images were part of pretraining"


def compare(runs: Sequence[str | Path]) -> Group:
    """Compare runs for the terminal: a table, and sentences with further baselines and differences.

    The tables of detection and segmentation follow.

    Args:
        runs: run folders.

    Raises:
        UserError: no run is given, or one is not a run folder.
    """
    records = read_records([Path(run) for run in runs])
    groups = group_results(records)
    found = (Text(f"\n{sentence}") for sentence in [*baseline_sentences(records), *sentences(groups)])
    return Group(run_table(records, groups), *found, *transfer_tables(records))


def run_table(records: Sequence[Record], groups: Sequence[GroupResult] = ()) -> Table:
    """One row per run and probe, and per group of several seeds."""
    table = Table(caption=caption(groups), caption_justify="left")
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if number < TEXT_COLUMNS else "right", overflow="fold")
    for row in all_rows(records, groups):
        cells = [Text(cell) for cell in row.cells()]  # Text: brackets in names are not interpreted as markup
        cells[GAIN].stylize(STYLES[row.outcome])
        table.add_row(*cells)
    return table


def _numbers(verdict: Verdict) -> list[str]:
    """Accuracy, random, gain, pixels and chance."""
    test = verdict.test
    accuracy, gain = fraction(verdict.accuracy, test), MISSING
    if verdict.accuracy is not None and verdict.std is not None:
        accuracy += f" ± {verdict.std:.{verdict.places}f}"
    if verdict.gain is not None:
        gain = f"{verdict.gain:+.{verdict.places}f}"
        gain += "" if verdict.interval is None else _bounds(*verdict.interval, verdict.places)
    return [
        accuracy,
        fraction(verdict.random, test),
        gain,
        fraction(verdict.pixels, test),
        fraction(verdict.chance, test),
    ]


def _bounds(low: float, high: float, places: int) -> str:
    return f" ({low:+.{places}f} to {high:+.{places}f})"


def fraction(value: float | None, test: int | None = None) -> str:
    """An accuracy between 0 and 1, rounded according to the number of test images."""
    return MISSING if value is None else f"{value:.{digits(test)}f}"


def count(value: int | None) -> str:
    """An integer with thousands separators."""
    return MISSING if value is None else f"{value:,}"
