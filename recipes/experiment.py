"""Shared by all recipes: runs that are trained once and resumed after an interruption, and tables of their results.

A recipe has named variants, each a change of the settings of `selftaught pretrain`. Every variant is trained with every
seed, in a run folder of its own. A finished run is loaded and an interrupted one is resumed, so repeating a command
continues it. Several commands may share a folder if each trains other variants (`--only`).
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
"""Settings of `igpt`: 256 tokens per image."""

Row = Mapping[str, Mapping[str, float]]
"""Probe results of one run: layer -> its `accuracy`, that of `random` weights, and others."""


@dataclass(frozen=True)
class Experiment:
    """Runs in one folder, on one source.

    Args:
        data: source that the runs are trained and probed on.
        out: folder of the run folders.
        settings: settings of `pretrain` that all runs share.
        limit: maximum number of training images of a probe.
        probe_data: source for probing, if not `data`.
    """

    data: str
    out: Path
    settings: Mapping[str, Any]
    limit: int | None = None
    probe_data: str | None = None

    def run(self, name: str, seed: int, **options: Any) -> Run:
        """The run of one variant and seed: loaded if finished, else resumed or started."""
        folder = self.out / f"{'-'.join(name.replace(',', '').split())}-{seed}"
        if not (folder / "config.yaml").exists():
            run = selftaught.pretrain(self.data, out=folder, seed=seed, **{**self.settings, **options})
        elif not Run(folder).finished:
            run = selftaught.pretrain(out=folder, resume=True)
        else:
            run = Run(folder)
        if not run.finished:  # only finished runs are probed
            raise SystemExit("Interrupted. Repeat the command to continue.")
        return run

    def row(self, run: Run) -> Row:
        """Probe results of every layer, computed once per run."""
        files = list(run.folder.probes.glob("*-ridge*.json"))
        if files:
            probe = json.loads(files[0].read_text())
        else:
            probe = run.probe(self.probe_data or self.data, limit=self.limit).to_json()
        return {layer["layer"]: layer for layer in probe["layers"]}


def logged(run: Run, name: str) -> float:
    """Mean of a logged value over the last tenth of the log lines."""
    lines = read_log(run.folder.log)
    last = lines[-max(1, len(lines) // 10) :]
    return statistics.fmean(line[name] for line in last)


def recipe_parser(doc: str, out: str, **defaults: Any) -> argparse.ArgumentParser:
    """A parser with the options that all recipes share; `defaults` replaces defaults."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--data", default="cifar10", help="images to pretrain on, and to probe on")
    parser.add_argument(
        "--minutes",
        type=float,
        default=3.0,
        help="minutes per run; the first run measures the number of steps, and all others take as many",
    )
    parser.add_argument("--steps", type=int, help="number of steps per run, instead of minutes")
    parser.add_argument("--seeds", type=int, default=3, help="number of pretraining seeds")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads per run; default: that of torch")
    parser.add_argument("--only", nargs="+", help="variants to train; default: all")
    parser.add_argument("--out", type=Path, default=Path("runs") / out, help="folder of the run folders")
    parser.set_defaults(**defaults)
    return parser


def table(rows: Mapping[tuple[str, int], Row], layer: str, references: Mapping[str, str]) -> str:
    """Accuracy of a layer for each variant, and differences to reference variants, paired by seed.

    Args:
        rows: (variant, seed) -> probe results.
        layer: name of the layer.
        references: column heading -> reference variant of that column.
    """
    names = dict.fromkeys(name for name, _ in rows)
    accuracies = {
        name: {seed: row[layer]["accuracy"] for (n, seed), row in rows.items() if n == name} for name in names
    }
    lines = [f"| | {layer} | " + " | ".join(references) + " |", "|---" * (2 + len(references)) + "|"]
    for name, values in accuracies.items():
        cells = [spread(list(values.values()))]
        for reference in references.values():
            shared_seeds = [] if reference == name else sorted(values.keys() & accuracies.get(reference, {}).keys())
            cells.append(
                interval([values[seed] - accuracies[reference][seed] for seed in shared_seeds]) if shared_seeds else ""
            )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def profile(rows: Mapping[tuple[str, int], Row]) -> str:
    """Accuracy of every layer for each variant, as mean ± standard deviation over seeds, and that of random weights."""
    layers = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(layers) + " |", "|---" * (1 + len(layers)) + "|"]
    for name in dict.fromkeys(name for name, _ in rows):
        variant_rows = [row for (variant, _), row in rows.items() if variant == name]
        cells = [spread([row[layer]["accuracy"] for row in variant_rows]) for layer in layers]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    random = [statistics.fmean(row[layer]["random"] for row in rows.values()) for layer in layers]
    lines.append("| random weights | " + " | ".join(f"{value:.3f}" for value in random) + " |")
    return "\n".join(lines)


def interval(values: Sequence[float]) -> str:
    """Mean of differences paired by seed, with its 95 % interval (Student's t)."""
    if len(values) - 1 not in T95:
        return f"{statistics.fmean(values):+.3f} (no interval: {len(values)} seeds)"
    margin = T95[len(values) - 1] * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):+.3f} ± {margin:.3f}"


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"
