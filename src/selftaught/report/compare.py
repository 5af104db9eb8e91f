"""Runs side by side: one row for each run and each data set it was probed on, for the terminal and for the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from selftaught.report.record import Record, is_number, read_records
from selftaught.report.verdict import Kind, Verdict, judge

MISSING = "n.a."


@dataclass(frozen=True)
class Row:
    """A run, and what one probe said of it: None where it has no probe."""

    record: Record
    verdict: Verdict | None
    how: str = ""
    """What tells the probes of one run on the same images apart."""

    def cells(self) -> list[str]:
        """What stands under each of `COLUMNS`."""
        verdict, record = self.verdict, self.record
        data = f"{verdict.data}{self.how}" if verdict else MISSING
        head = [record.name, record.pretext, data, verdict.best if verdict else MISSING]
        numbers = [MISSING] * 5
        if verdict:
            gain = MISSING if verdict.gain is None else f"{verdict.gain:+.3f}"
            accuracy = fraction(verdict.accuracy) + (f" ± {verdict.std:.3f}" if verdict.std is not None else "")
            numbers = [accuracy, fraction(verdict.random), gain, fraction(verdict.pixels), fraction(verdict.chance)]
        minutes = MISSING if record.minutes is None else f"{record.minutes:,.1f}"
        return [*head, *numbers, minutes, count(record.images_seen)]


COLUMNS = (
    "run", "pretext task", "probed on", "best layer",
    "accuracy", "random", "gain", "pixels", "chance", "minutes", "images seen",
)  # fmt: skip
WORDS = 4
"""So many columns, from the left, are words; the others are numbers and stand to the right."""
GAIN = COLUMNS.index("gain")
STYLES: dict[Kind, str] = {"helped": "green", "unclear": "dim", "hurt": "red", "unknown": ""}
"""How the terminal shows a gain: dim where it is within the noise."""


def rows(records: Sequence[Record]) -> list[Row]:
    """One row for each run and probe, runs in the given order; a run without a probe has one row too."""
    found: list[Row] = []
    for record in records:
        asked = [probe.get("data") for probe in record.probes]
        found += [
            Row(record, judge(probe, record.published), how_probed(probe) if asked.count(data) > 1 else "")
            for probe, data in zip(record.probes, asked, strict=True)
        ] or [Row(record, None)]
    return found


def how_probed(probe: Mapping[str, Any]) -> str:
    """The protocol of a probe and its labels: " by knn of 5,000"."""
    labels = f" of {count(int(probe['train']))}" if is_number(probe.get("train")) else ""
    return f" by {probe.get('protocol', MISSING)}{labels}"


def compare(runs: Sequence[Path]) -> Table:
    """The runs side by side, for the terminal.

    Args:
        runs: run folders.

    Raises:
        UserError: if there is none, or one is no run folder.
    """
    table = Table(
        caption="accuracy: the best layer; random: the best one of the same encoder untrained; dim: within the noise"
    )
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if number < WORDS else "right", overflow="fold")
    for row in rows(read_records(runs)):
        cells = [Text(cell) for cell in row.cells()]  # Text: brackets in a name are no markup
        cells[GAIN].stylize(STYLES[row.verdict.kind] if row.verdict else "")
        table.add_row(*cells)
    return table


def fraction(value: float | None) -> str:
    """An accuracy as a fraction of one with three digits."""
    return MISSING if value is None else f"{value:.3f}"


def count(value: int | None) -> str:
    """A whole number with thousands set off."""
    return MISSING if value is None else f"{value:,}"
