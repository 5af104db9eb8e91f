"""Timing two or more sides in turn, and printing what came out: the one thing that all benchmarks share.

Sides take turns (A B, B A, A B, ...), so that a machine that slows down slows all of them; what is printed is the ratio
within each round, as median and lowest to highest over the rounds. Before the first round every side runs once for
nothing: imports, allocations and caches are nobody's fault.
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
"""Whose versions are written down."""


@dataclass(frozen=True)
class Table:
    """What several sides did in the same rounds."""

    title: str
    unit: str
    """What is counted: "images/s" or "seconds"."""
    sides: Mapping[str, Sequence[float]]
    """Side -> one number per round."""
    reference: str = "ours"
    """The reference that the others are compared with."""
    better: Literal["more", "less"] = "more"
    """Whether more of the unit is better (a rate) or less (a time)."""
    notes: Mapping[str, str] | None = None
    """Side -> note in the last column."""

    def ratios(self, side: str) -> list[float]:
        """How many times as fast the reference was as this side, round by round."""
        pairs = zip(self.sides[self.reference], self.sides[side], strict=True)
        return [mine / other if self.better == "more" else other / mine for mine, other in pairs]


def interleaved(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Let every side measure itself once per round, forwards and backwards in turn, after one round for nothing.

    Args:
        sides: name -> a function that does some work and returns its rate or its seconds.
        rounds: how many numbers are wanted of each.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-1, rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            value = sides[name]()
            if number >= 0:
                found[name].append(value)
    return found


def rate(step: Callable[[], int], seconds: float) -> Callable[[], float]:
    """A function that takes steps for so many seconds, at least three, and says how many things per second it did.

    Args:
        step: does some work and returns how many things that were.
        seconds: how long to go on.
    """

    def measured() -> float:
        begun, spent, done, steps = perf_counter(), 0.0, 0, 0
        while steps < 3 or spent < seconds:
            done += step()
            steps += 1
            spent = perf_counter() - begun
        return done / spent

    return measured


def seconds_of(work: Callable[[], object]) -> float:
    """How long it takes to do something once."""
    begun = perf_counter()
    work()
    return perf_counter() - begun


def options(about: str | None, rounds: int) -> argparse.ArgumentParser:
    """The flags that every benchmark has.

    Args:
        about: the benchmark's docstring; its first line is the help.
        rounds: by default.
    """
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--rounds", type=_positive, default=rounds, help="how often the sides take turns")
    parser.add_argument("--threads", type=_positive, help="of our arithmetic and theirs; by default torch's own choice")
    parser.add_argument("--out", type=Path, help="a folder for NAME.md and NAME.json; by default nothing is written")
    parser.add_argument("--quick", action="store_true", help="a tiny size, to see that it runs: no figures to keep")
    return parser


def parsed(parser: argparse.ArgumentParser, words: Sequence[str] | None, **quick: object) -> argparse.Namespace:
    """The flags, with the words they came from in `words`.

    Args:
        parser: of the benchmark.
        words: as typed; None for those of this process.
        quick: what `--quick` sets instead of the defaults.
    """
    parser.set_defaults(words=list(sys.argv[1:] if words is None else words))
    given = parser.parse_args(words)
    if given.quick:
        parser.set_defaults(**{"rounds": 2, **quick})
        given = parser.parse_args(words)
    if given.threads:
        torch.set_num_threads(given.threads)
    return given


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def publish(name: str, title: str, tables: Sequence[Table], remarks: Sequence[str], given: argparse.Namespace) -> None:
    """Print the results as a Markdown section and, where `--out` was given, keep it and all rounds as JSON.

    Args:
        name: of the benchmark's file.
        title: of the section.
        tables: what was measured.
        remarks: sentences below the tables.
        given: the flags.
    """
    command = shlex.join(["python", "-m", f"benchmarks.{name}", *given.words])
    text = section(title, command, tables, remarks)
    print(text)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / f"{name}.md").write_text(text)
        (given.out / f"{name}.json").write_text(json.dumps(record(title, command, tables, remarks), indent=1) + "\n")


def section(title: str, command: str, tables: Sequence[Table], remarks: Sequence[str]) -> str:
    """A section as `results/` holds them."""
    lines = [f"## {title} ({date.today().isoformat()})", "", f"    {command}", "", f"{_machine()}.", ""]
    for table in tables:
        lines += [*markdown(table), ""]
    return "\n".join([*lines, *(f"- {remark}" for remark in remarks), ""])


def markdown(table: Table) -> list[str]:
    """The lines of one table: medians, lowest to highest in brackets."""
    rounds = len(table.sides[table.reference])
    head = [table.title, table.unit, _divided(table)] + (["remarks"] if table.notes else [])
    lines = [_row(head), _row(["---", "---:", "---:"] + ["---"] * (len(head) - 3))]
    for side, values in table.sides.items():
        cells = [side, spread(values), "" if side == table.reference else spread(table.ratios(side))]
        lines.append(_row(cells + ([table.notes.get(side, "")] if table.notes else [])))
    return [*lines, "", f"Median (lowest to highest) of {rounds} interleaved rounds."]


def _divided(table: Table) -> str:
    return f"{table.reference} / this" if table.better == "more" else f"this / {table.reference}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def spread(values: Sequence[float]) -> str:
    """The median, and in brackets the lowest and the highest, to three digits."""
    return f"{_short(median(values))} ({_short(min(values))} to {_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def record(title: str, command: str, tables: Sequence[Table], remarks: Sequence[str]) -> dict[str, Any]:
    """Everything that was measured, as plain values."""
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
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
