"""Runs side by side: one row for each run and each probe of it, for the terminal and for the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from selftaught.report.record import Record, is_number, read_records
from selftaught.report.verdict import Outcome, Verdict, digits, judge

MISSING = "n.a."


@dataclass(frozen=True)
class ComparisonRow:
    """A run and one of its probes; no verdict where it has no probe."""

    record: Record
    verdict: Verdict | None
    details: str = ""
    """What distinguishes several probes of one run on the same images."""

    def cells(self) -> list[str]:
        """What stands under each of `COLUMNS`."""
        verdict, record = self.verdict, self.record
        data = f"{verdict.data}{self.details}" if verdict else MISSING
        head = [record.name, record.pretext, data, verdict.best if verdict else MISSING]
        minutes = MISSING if record.minutes is None else f"{record.minutes:,.1f}"
        return [*head, *(_numbers(verdict) if verdict else [MISSING] * 5), minutes, count(record.images_seen)]


COLUMNS = (
    "run", "pretext task", "probed on", "best layer",
    "accuracy", "random", "gain", "pixels", "chance", "minutes", "images seen",
)  # fmt: skip
WORDS = 4
"""So many columns, from the left, are words; the others are numbers and stand to the right."""
GAIN = COLUMNS.index("gain")
STYLES: dict[Outcome, str] = {"helped": "green", "unclear": "dim", "hurt": "red", "unknown": ""}
"""How the terminal shows a gain."""
CAPTION = (
    "accuracy: best layer by accuracy on held-out training images (± standard deviation over probe seeds); random: the "
    "same for random weights, mean over initializations; gain: difference with its 95 % interval, which does not "
    "include variation between pretraining runs (dim or grey: it includes zero)"
)


def rows(records: Sequence[Record]) -> list[ComparisonRow]:
    """One row for each run and probe, runs in the given order; a run without a probe has one row too."""
    found: list[ComparisonRow] = []
    for record in records:
        data = [probe.get("data") for probe in record.probes]
        labels = tell_apart(record.probes)
        found += [
            ComparisonRow(
                record, judge(probe, record.published), (label if data.count(name) > 1 else "") + overlap(probe)
            )
            for probe, name, label in zip(record.probes, data, labels, strict=True)
        ] or [ComparisonRow(record, None)]
    return found


def overlap(probe: Mapping[str, Any]) -> str:
    """A note that test images were part of the pretraining set, or nothing."""
    seen, test = probe.get("seen"), probe.get("test")
    if not (is_number(seen) and is_number(test) and seen):
        return ""
    return f"; {count(int(seen))} of {count(int(test))} test images were part of pretraining"


def tell_apart(probes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Protocol and labels of each probe, " (knn, 5,000 labels)"; also the view size and seeds where those differ."""
    varying = [key for key in ("size", "seeds") if len({str(probe.get(key)) for probe in probes}) > 1]
    return [probe_details(probe, varying) for probe in probes]


def probe_details(probe: Mapping[str, Any], more: Sequence[str] = ()) -> str:
    """Protocol and number of labels of a probe: " (knn, 5,000 labels)"."""
    parts = [str(probe.get("protocol", MISSING))]
    if is_number(probe.get("train")):
        parts.append(f"{count(int(probe['train']))} labels")
    parts += [f"{key} {probe[key]}" for key in more if probe.get(key) is not None]
    return f" ({', '.join(parts)})"


def compare(runs: Sequence[str | Path]) -> Table:
    """The runs side by side, for the terminal.

    Args:
        runs: run folders.

    Raises:
        UserError: if there is none, or one is no run folder.
    """
    table = Table(caption=CAPTION, caption_justify="left")
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if number < WORDS else "right", overflow="fold")
    for row in rows(read_records([Path(run) for run in runs])):
        cells = [Text(cell) for cell in row.cells()]  # Text: brackets in a name are no markup
        cells[GAIN].stylize(STYLES[row.verdict.outcome] if row.verdict else "")
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
        gain += "" if verdict.margin is None else f" ± {verdict.margin:.{verdict.places}f}"
    return [
        accuracy,
        fraction(verdict.random, test),
        gain,
        fraction(verdict.pixels, test),
        fraction(verdict.chance, test),
    ]


def fraction(value: float | None, test: int | None = None) -> str:
    """An accuracy as a fraction of one, with the digits that so many test images deserve."""
    return MISSING if value is None else f"{value:.{digits(test)}f}"


def count(value: int | None) -> str:
    """A whole number with thousands separators."""
    return MISSING if value is None else f"{value:,}"
