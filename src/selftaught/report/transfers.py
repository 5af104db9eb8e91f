"""Detection and segmentation in the report: metrics of every encoder, by class as well, and pictures of predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from selftaught.report.embed import Picture, picture
from selftaught.report.record import Record, is_number, last_part
from selftaught.report.verdict import overlap_note

MISSING = "n.a."
MAX_CLASSES = 40
"""Maximum number of classes that are listed; the worst ones are kept."""


@dataclass(frozen=True)
class TransferSection:
    """One table of a detection or segmentation."""

    title: str
    headings: Sequence[tuple[str, bool]]
    """Headings of the columns, and whether they are numbers."""
    rows: Sequence[Sequence[str]]
    """Encoder, metrics, difference to the last row, and its 95 % interval."""
    class_headings: Sequence[tuple[str, bool]]
    class_rows: Sequence[Sequence[str]]
    """Class, and the first metric of every encoder; empty for results of earlier versions."""
    notes: Sequence[str]
    picture: Picture | None
    """Test images with annotations and predictions."""


def make_transfers(record: Record, limit: int) -> list[TransferSection]:
    """The sections of a run; `limit` is the maximum bytes of a picture."""
    return [
        TransferSection(
            title=f"{str(table['transfer']).capitalize()} on {table['data']}",
            headings=[("encoder", False), *((heading, True) for heading in headings(table))],
            rows=cells(table),
            class_headings=[("class", False), *((str(row["name"]), True) for row in table["rows"])],
            class_rows=class_cells(table),
            notes=notes(table),
            picture=picture(path, record.path, limit) if path else None,
        )
        for table, path in record.transfers
    ]


def headings(table: Mapping[str, Any]) -> list[str]:
    """Headings of the metrics, and of the difference if there is one."""
    return [*map(str, table["metrics"].values()), *(["difference", "95 % interval"] if table["differences"] else [])]


def cells(table: Mapping[str, Any]) -> list[list[str]]:
    """One row for every encoder."""
    differences = {each["of"]: each for each in table["differences"]}
    rows = []
    for row in table["rows"]:
        found = [str(row["name"]), *(_with_std(row["metrics"][metric]) for metric in table["metrics"])]
        if table["differences"]:
            found += _difference(differences.get(row["name"]))
        rows.append(found)
    return rows


def _with_std(summary: Mapping[str, Any]) -> str:
    std = summary.get("std")
    return f"{summary['mean']:.3f}" + (f" ± {std:.3f}" if is_number(std) else "")


def _difference(compared: Mapping[str, Any] | None) -> list[str]:
    if compared is None:
        return ["", ""]
    return [f"{compared['value']:+.3f}", f"{compared['low']:+.3f} to {compared['high']:+.3f}"]


def class_cells(table: Mapping[str, Any]) -> list[list[str]]:
    """One row for every class, those with the lowest values of the first encoder first."""
    names, by_class = table.get("classes") or [], table.get("by_class") or {}
    columns: list[list[float | None]] = [by_class.get(row["name"]) or [] for row in table["rows"]]
    if not names or not all(columns):
        return []
    first = columns[0]
    order = sorted(range(len(names)), key=lambda k: (first[k] is None, first[k] or 0.0))[:MAX_CLASSES]
    return [
        [str(names[k]), *(MISSING if (value := column[k]) is None else f"{value:.3f}" for column in columns)]
        for k in order
    ]


def notes(table: Mapping[str, Any]) -> list[str]:
    """Sentences on the differences, and how the numbers were measured."""
    metric = str(next(iter(table["metrics"].values())))
    found = [_sentence(each, metric) for each in table["differences"]]
    counts = {len(row["metrics"][name]["values"]) for row in table["rows"] for name in table["metrics"]}
    seeds = max(counts)
    spread = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    parts = [
        f"{count:,} {name} images" for name in ("train", "validation", "test") if is_number(count := table.get(name))
    ]
    steps = f"; {int(table['steps']):,} steps" if is_number(table.get("steps")) else ""
    found.append(
        f"{metric} and others: {spread}; {', '.join(parts)}{steps}. Intervals are paired by test image and seed; "
        "variation between pretraining runs is not included."
    )
    return [*found, *filter(None, [overlap_note(table)]), *map(str, table.get("notes") or [])]


def _sentence(compared: Mapping[str, Any], metric: str) -> str:
    value, low, high = (float(compared[key]) for key in ("value", "low", "high"))
    interval = f"95 % interval {low:+.3f} to {high:+.3f}"
    if low <= 0 <= high:
        return f"Not decided: {compared['of']} and {compared['over']} differ by {value:+.3f} {metric} ({interval})."
    word = "better" if value > 0 else "worse"
    return f"{compared['of']} is {word} than {compared['over']}: {value:+.3f} {metric} ({interval})."


def transfer_tables(records: Sequence[Record]) -> list[Table]:
    """The tables of all runs for the terminal, each under its data set."""
    found = []
    for record in records:
        for table, _ in record.transfers:
            kind = str(table["transfer"]).capitalize()
            out = Table(
                title=Text(f"{kind} on {last_part(str(table['data']))}, from {record.name}"),
                caption=Text("\n".join(notes(table))),
                caption_justify="left",
            )
            out.add_column("encoder", overflow="fold")
            for heading in headings(table):
                out.add_column(Text(heading), justify="right")
            for row in cells(table):
                out.add_row(*map(Text, row))
            found.append(out)
    return found
