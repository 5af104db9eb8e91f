"""What the recipes share: runs that are trained once, whatever interrupts them, and tables of what they came to.

A recipe is some variants by name, each a change of the settings of `selftaught pretrain`. Every variant is trained with
every seed, in a folder of its own; a run that is there is read, one that was interrupted is gone on with. So the same
command goes on where it stopped, several may share a folder if each is given variants of its own, and the table is made
from whatever is finished.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import selftaught
from selftaught.api.run import Run
from selftaught.runs.log import read_log

T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Two-sided 95 % quantiles of Student's t by degrees of freedom."""

IGPT = {"encoder": "gpt", "size": 16, "batch_size": 32}
"""What `igpt` is trained with: 256 tokens an image."""

Row = Mapping[str, Mapping[str, float]]
"""Of one run: for each layer its `accuracy` and that of `random` weights."""


@dataclass(frozen=True)
class Experiment:
    """Runs in one folder, on one source.

    Args:
        data: what they are trained and probed on.
        out: the folder of all runs.
        settings: of `pretrain`, the same for all.
        limit: images that a layer learns from when it is probed, at most.
        probed: what they are probed on instead.
    """

    data: str
    out: Path
    settings: Mapping[str, Any]
    limit: int | None = None
    probed: str | None = None

    def run(self, name: str, seed: int, **options: Any) -> Run:
        """The run of one variant: as it was left, gone on with, or begun."""
        folder = self.out / f"{'-'.join(name.replace(',', '').split())}-{seed}"
        if not (folder / "config.yaml").exists():
            run = selftaught.pretrain(self.data, out=folder, seed=seed, **{**self.settings, **options})
        elif not Run(folder).finished:
            run = selftaught.pretrain(out=folder, resume=True)
        else:
            run = Run(folder)
        if not run.finished:  # a half-trained encoder must not be probed
            raise SystemExit("stopped; the same command goes on")
        return run

    def row(self, run: Run) -> Row:
        """The probe results of the run's layers, computed once."""
        kept = list(run.folder.probes.glob("*-ridge*.json"))
        if kept:
            found = json.loads(kept[0].read_text())
        else:
            found = run.probe(self.probed or self.data, limit=self.limit).to_json()
        return {layer["layer"]: layer for layer in found["layers"]}


def logged(run: Run, name: str) -> float:
    """The mean of what was logged under a name in the last tenth of the steps."""
    lines = read_log(run.folder.log)
    last = lines[-max(1, len(lines) // 10) :]
    return statistics.fmean(line[name] for line in last)


def parser(doc: str, out: str, **defaults: Any) -> argparse.ArgumentParser:
    """The options that every recipe has; `defaults` are of `data`, `minutes`, `seeds` and `threads`."""
    made = argparse.ArgumentParser(description=doc.splitlines()[0])
    made.add_argument("--data", default="cifar10")
    made.add_argument(
        "--minutes", type=float, default=3.0, help="of each run; the first measures how many steps they are"
    )
    made.add_argument("--steps", type=int, help="of each run, instead of minutes")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--threads", type=int, default=0, help="of each run; with 1 two recipes can run side by side")
    made.add_argument("--only", nargs="+", help="of the variants, these")
    made.add_argument("--out", type=Path, default=Path("runs") / out)
    made.set_defaults(**defaults)
    return made


def table(rows: Mapping[tuple[str, int], Row], layer: str, bases: Mapping[str, str]) -> str:
    """Accuracies of a layer, and differences to some of the variants over the seeds that both have.

    Args:
        rows: by variant and seed.
        layer: which.
        bases: column heading -> the reference variant of that column.
    """
    names = dict.fromkeys(name for name, _ in rows)
    found = {name: {seed: row[layer]["accuracy"] for (n, seed), row in rows.items() if n == name} for name in names}
    lines = [f"| | {layer} | " + " | ".join(bases) + " |", "|---" * (2 + len(bases)) + "|"]
    for name, values in found.items():
        cells = [spread(list(values.values()))]
        for base in bases.values():
            both = [] if base == name else sorted(values.keys() & found.get(base, {}).keys())
            cells.append(interval([values[seed] - found[base][seed] for seed in both]) if both else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def profile(rows: Mapping[tuple[str, int], Row]) -> str:
    """All layers: mean and spread over the seeds, compared with random weights."""
    layers = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(layers) + " |", "|---" * (1 + len(layers)) + "|"]
    for name in dict.fromkeys(name for name, _ in rows):
        found = [row for (variant, _), row in rows.items() if variant == name]
        cells = [spread([row[layer]["accuracy"] for row in found]) for layer in layers]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    random = [statistics.fmean(row[layer]["random"] for row in rows.values()) for layer in layers]
    lines.append("| random weights | " + " | ".join(f"{value:.3f}" for value in random) + " |")
    return "\n".join(lines)


def interval(values: Sequence[float]) -> str:
    """The mean of differences that are paired by seed, with the 95 % interval of Student's t."""
    if len(values) - 1 not in T95:
        return f"{statistics.fmean(values):+.3f} (no interval: {len(values)} seeds)"
    half = T95[len(values) - 1] * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):+.3f} ± {half:.3f}"


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"
