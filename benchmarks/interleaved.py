"""Interleaved timing of two or more sides, and its output as a table: shared by all benchmarks.

Sides take turns (A B, B A, A B, ...), so that a machine that slows down slows all of them. The printed result is the
ratio within each round, as median (lowest to highest) over the rounds. One warm-up round is not counted, because it
contains imports, allocations and cold caches.
"""

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Literal

import torch

from selftaught.training.machine import hardware

PACKAGES = ("torch", "torchvision", "timm", "pillow", "pyarrow", "scikit-learn", "lightly")
"""Packages whose versions are recorded."""


@dataclass(frozen=True)
class Table:
    """Measurements of several sides in the same rounds."""

    title: str
    unit: str
    """Unit of the values, such as "images/s" or "seconds"."""
    sides: Mapping[str, Sequence[float]]
    """Side -> one value per round."""
    reference: str = "ours"
    """Side that the others are compared with."""
    better: Literal["more", "less"] = "more"
    """Whether larger values are better (a rate) or smaller ones (a time)."""
    notes: Mapping[str, str] | None = None
    """Side -> note in the last column."""

    def ratios(self, side: str) -> list[float]:
        """Speed of the reference divided by that of this side, per round."""
        pairs = zip(self.sides[self.reference], self.sides[side], strict=True)
        return [ours / other if self.better == "more" else other / ours for ours, other in pairs]


def interleaved(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure every side once per round, in alternating order, after one warm-up round.

    Args:
        sides: name -> a function that does some work and returns its rate or its seconds.
        rounds: number of values per side.
    """
    values: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-1, rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            value = sides[name]()
            if number >= 0:
                values[name].append(value)
    return values


def rate(step: Callable[[], int], seconds: float) -> Callable[[], float]:
    """A function that runs steps for a given time, at least three, and returns items per second.

    Args:
        step: does some work and returns the number of items processed.
        seconds: duration of a measurement.
    """

    def measured() -> float:
        start, elapsed, items, steps = perf_counter(), 0.0, 0, 0
        while steps < 3 or elapsed < seconds:
            items += step()
            steps += 1
            elapsed = perf_counter() - start
        return items / elapsed

    return measured


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = perf_counter()
    work()
    return perf_counter() - start


def shared_options(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks share.

    Args:
        doc: docstring of the benchmark; its first line is the help.
        rounds: default number of rounds.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--rounds", type=_positive, default=rounds, help="number of interleaved rounds")
    parser.add_argument("--threads", type=_positive, help="CPU threads of torch, for all sides; default: that of torch")
    parser.add_argument("--out", type=Path, help="folder for NAME.md and NAME.json; default: none, only print")
    parser.add_argument("--quick", action="store_true", help="a tiny size that only checks that the benchmark runs")
    return parser


def parse_options(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, **quick: object
) -> argparse.Namespace:
    """Parse the options; the arguments themselves are in `arguments`.

    Args:
        parser: the benchmark's parser.
        arguments: command-line arguments; None for those of this process.
        quick: defaults with `--quick`.
    """
    parser.set_defaults(arguments=list(sys.argv[1:] if arguments is None else arguments))
    options = parser.parse_args(arguments)
    if options.quick:
        parser.set_defaults(**{"rounds": 2, **quick})
        options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def publish(
    name: str, title: str, tables: Sequence[Table], remarks: Sequence[str], options: argparse.Namespace
) -> None:
    """Print the results as a Markdown section; with `--out`, save it, and all rounds as JSON.

    Args:
        name: module name of the benchmark.
        title: heading of the section.
        tables: the measurements.
        remarks: sentences below the tables.
        options: the parsed options.
    """
    command = shlex.join(["python", "-m", f"benchmarks.{name}", *options.arguments])
    text = section(title, command, tables, remarks)
    print(text)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{name}.md").write_text(text)
        (options.out / f"{name}.json").write_text(json.dumps(record(title, command, tables, remarks), indent=1) + "\n")


def section(title: str, command: str, tables: Sequence[Table], remarks: Sequence[str]) -> str:
    """A Markdown section for a page of `results/`."""
    lines = [f"## {title} ({date.today().isoformat()})", "", f"    {command}", "", f"{_machine()}.", ""]
    for table in tables:
        lines += [*markdown(table), ""]
    return "\n".join([*lines, *(f"- {remark}" for remark in remarks), ""])


def markdown(table: Table) -> list[str]:
    """The lines of one table: median (lowest to highest)."""
    rounds = len(table.sides[table.reference])
    head = [table.title, table.unit, _ratio_heading(table)] + (["remarks"] if table.notes else [])
    lines = [_row(head), _row(["---", "---:", "---:"] + ["---"] * (len(head) - 3))]
    for side, values in table.sides.items():
        cells = [side, spread(values), "" if side == table.reference else spread(table.ratios(side))]
        lines.append(_row(cells + ([table.notes.get(side, "")] if table.notes else [])))
    return [*lines, "", f"Median (lowest to highest) of {rounds} interleaved rounds."]


def _ratio_heading(table: Table) -> str:
    return f"{table.reference} / this" if table.better == "more" else f"this / {table.reference}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def spread(values: Sequence[float]) -> str:
    """Median (lowest to highest), to three digits."""
    return f"{_short(median(values))} ({_short(min(values))} to {_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def record(title: str, command: str, tables: Sequence[Table], remarks: Sequence[str]) -> dict[str, Any]:
    """All measurements, with the command, machine and versions, as plain values for JSON."""
    return {
        "title": title,
        "date": date.today().isoformat(),
        "command": command,
        "machine": _machine(),
        "versions": {"python": platform.python_version(), **_versions()},
        "tables": [
            {
                "title": table.title,
                "unit": table.unit,
                "better": table.better,
                "reference": table.reference,
                "rounds": {side: list(values) for side, values in table.sides.items()},
                "ratios": {side: table.ratios(side) for side in table.sides if side != table.reference},
                "notes": dict(table.notes or {}),
            }
            for table in tables
        ],
        "remarks": list(remarks),
    }


def _machine() -> str:
    return f"{hardware(torch.device('cpu'))}, torch {torch.__version__}"


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
