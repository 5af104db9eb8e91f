"""The page of a study, as Markdown: conclusion, tables, figures, setting, command and cost."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftaught import figures
from selftaught.api.run import Run
from selftaught.errors import UserError, readable
from selftaught.evaluation.baselines import FIXED
from selftaught.evaluation.table import digits
from selftaught.figures.layers import Probe
from selftaught.runs.atomic import write_text
from selftaught.runs.sections import flatten, nest
from selftaught.studies.definition import FROM_SCRATCH, RANDOM, Comparison, Study, Trends
from selftaught.studies.folder import State, StudyFolder
from selftaught.studies.grid import Cell, Grid
from selftaught.studies.outcome import Outcome, Results, best_layer, compare
from selftaught.studies.results import Result
from selftaught.studies.wording import FURTHER, conclusion, further

COST = "**Cost:**"
"""Beginning of the only line that differs when a study is repeated on the same machine."""


def write_page(folder: StudyFolder, state: State, command: str) -> Path:
    """Write the page, its figures and `outcome.json`; the page of a study that was interrupted says so.

    Args:
        folder: the study's folder.
        state: what the study consists of.
        command: repeats the study.

    Returns:
        The page.
    """
    grid = state.grid
    results = [_results(folder, grid, number) for number in range(len(grid.evaluations))]
    comparisons = [grid.study.comparison, *grid.study.further]
    fixed = [variant.name for variant in grid.variants if variant.baseline in FIXED]
    outcomes = [_outcome(one, results[one.evaluation - 1], fixed) for one in comparisons]
    done, runs = folder.count_done(grid), len(grid.cells)
    so_far = "" if done == runs else f"**Preliminary: {done} of {runs} runs are done.** "
    parts = [
        f"# {grid.study.question}",
        so_far + conclusion(comparisons[0], outcomes[0]),
        *known(grid.study),
        *(["## Further comparisons", *_further(comparisons[1:], outcomes[1:])] if comparisons[1:] else []),
    ]
    for number, by_variant in enumerate(results):
        parts += _evaluation(folder, grid, number, by_variant)
    parts += ["## Setting", *_setting(folder, state, grid), "## Command", f"    {command}", _cost(folder, grid)]
    failed = [f"{cell.name}: {text}" for cell in grid.cells if (text := folder.read_failure(cell))]
    if failed:
        parts += ["## Failed runs", *failed]
    write_text(
        folder.path / "outcome.json", json.dumps(_json(state, done, runs, outcomes), indent=1) + "\n", folder.path
    )
    write_text(folder.page, "\n\n".join(parts) + "\n", folder.path)
    return folder.page


def known(study: Study) -> list[str]:
    """What was known before: the finding of a paper, with the paper, where there is either."""
    paper = f"({study.paper})" if study.paper else ""
    return [" ".join(filter(None, [study.finding, paper]))] if study.finding or paper else []


def _results(folder: StudyFolder, grid: Grid, number: int) -> dict[str, list[Result]]:
    """The results of one evaluation, by variant; a variant whose runs all failed has none."""
    results: dict[str, list[Result]] = {}
    for cell in grid.cells:
        if (read := folder.read_results(cell, grid.evaluations)) is not None:
            same = results.setdefault(cell.variant.name, [])
            same.append(replace(read[number], seed=cell.seed))
            if same[0].signature != read[number].signature:
                raise UserError(
                    f"{readable(str(folder.result(cell, number + 1)))} has other layers or test images than the other "
                    f"seeds of {cell.variant.name}: remove the files of other studies, and repeat the command."
                )
    return results


def _outcome(comparison: Comparison, results: Results, fixed: Sequence[str]) -> Outcome | None:
    """None if no seed has a result on both sides."""
    sides = [comparison.variant, comparison.against]
    return compare(comparison, results, fixed) if sides[0] in results and _has(sides[1], results) else None


def _has(against: str, results: Results) -> bool:
    return against in results or against in (RANDOM, FROM_SCRATCH)


def _further(comparisons: Sequence[Comparison], outcomes: Sequence[Outcome | None]) -> list[str]:
    rows = [further(comparison, outcome) for comparison, outcome in zip(comparisons, outcomes, strict=True)]
    note = (
        "Intervals are not corrected for the number of comparisons. The last column is right if difference and spread "
        "stay as they are."
    )
    return [table(FURTHER, rows), note]


def _evaluation(folder: StudyFolder, grid: Grid, number: int, results: Mapping[str, Sequence[Result]]) -> list[str]:
    """Heading, table and figure of one evaluation."""
    evaluation = grid.evaluations[number]
    if not results:
        return []
    first = next(iter(results.values()))[0].facts
    if evaluation.audit is not None:
        return ["## Shortcut audit", _audit_table(results)]
    source = Path(str(first["data"])).name
    heading = f"## Top-1 accuracy on {first['test']:,} test images of {source} ({evaluation.title})"
    if evaluation.probe is None:
        return [heading, _label_table(results)]
    probes = {name: _mean_probe(runs) for name, runs in results.items()}
    note = (
        "Mean ± standard deviation over seeds. Bold: the best layer by accuracy on held-out training images. Random "
        f"weights: the same encoder, mean of {first['initializations']} initializations. Chance {first['chance']:.3f}, "
        f"raw pixels {first['pixels']:.3f}; the probe was trained on {first['train']:,} labeled images."
    )
    return [heading, _layer_table(results), note, _figure(folder, number, probes, grid.study.trends)]


def _figure(folder: StudyFolder, number: int, probes: Mapping[str, Probe], trends: Trends | None) -> str:
    """Draw the accuracies, and return the Markdown that shows the figure."""
    if trends is not None and any(name in probes for line in trends.lines.values() for name in line):
        name, title = (
            f"trends-{number + 1}.svg",
            f"Top-1 accuracy of each layer by {trends.axis}; dashed: random weights",
        )
        drawn = figures.trends(probes, trends.lines, trends.ticks, trends.axis, trends.levels)
    else:
        name, title = f"layers-{number + 1}.svg", "Top-1 accuracy by layer"
        drawn = figures.layers(probes)
    write_text(folder.path / name, figures.svg(drawn), folder.path)
    return f"![{title}]({name})"


def _mean_probe(results: Sequence[Result]) -> Probe:
    """A probe as `figures.layers` takes it, averaged over the seeds.

    Raw pixels and chance are left out: an axis down to them would hide the differences between variants.
    """
    facts = results[0].facts
    layers = []
    for row in facts["layers"]:
        mean, std = _spread(results, row["layer"])
        parameters = facts["has_parameters"]
        layers.append(
            {"layer": row["layer"], "accuracy": mean, "std": std, "random": row["random"] if parameters else None}
        )
    return {"layers": layers}


def _spread(results: Sequence[Result], layer: str) -> tuple[float, float | None]:
    values = [float(result.correct[f"layer/{layer}"].mean()) for result in results]
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _layer_table(results: Mapping[str, Sequence[Result]]) -> str:
    columns = list(dict.fromkeys(layer for runs in results.values() for layer in runs[0].layers))
    rows: list[list[str]] = []
    randoms: dict[tuple[str, ...], str] = {}
    for name, runs in results.items():
        best, places = best_layer(runs), digits(runs[0].facts["test"])
        cells = []
        for layer in columns:
            text = _number(*_spread(runs, layer), places) if layer in runs[0].layers else ""
            cells.append(f"**{text}**" if layer == best else text)
        rows.append([name, str(len(runs)), *cells])
        if runs[0].facts["has_parameters"]:
            level = {row["layer"]: f"{row['random']:.{places}f}" for row in runs[0].facts["layers"]}
            randoms.setdefault(tuple(level.get(layer, "") for layer in columns), name)
    for levels, name in randoms.items():
        title = "random weights" if len(randoms) == 1 else f"random weights as for {name}"
        rows.append([title, "", *levels])
    return table(["variant", "seeds", *columns], rows)


def _label_table(results: Mapping[str, Sequence[Result]]) -> str:
    rows = []
    for name, runs in results.items():
        for count in runs[0].label_counts:
            for row in runs[0].rows:
                values = [float(result.correct[f"{count}/{row}"].mean()) for result in runs]
                spread = statistics.stdev(values) if len(values) > 1 else None
                places = digits(runs[0].facts["test"])
                rows.append([name, count, row, str(len(runs)), _number(statistics.fmean(values), spread, places)])
    return table(["variant", "labels", "training", "seeds", "accuracy"], rows)


def _audit_table(results: Mapping[str, Sequence[Result]]) -> str:
    """Changes of pretext accuracy, averaged over the seeds, and how many seeds exploit each cue."""
    rows = []
    for name, runs in results.items():
        for place, row in enumerate(runs[0].facts["rows"]):
            of_seeds = [result.facts["rows"][place] for result in runs]
            accuracy = statistics.fmean(each["accuracy"] for each in of_seeds)
            change = statistics.fmean(each["difference"] for each in of_seeds)
            used = sum(each["uses_cue"] for each in of_seeds)
            cells = ["", ""] if row["kind"] == "trained" else [f"{change:+.3f}", f"{used} of {len(runs)}"]
            rows.append([name, row["change"], f"{accuracy:.3f}", *cells])
    return table(["variant", "change", "pretext accuracy", "difference", "seeds that use the cue"], rows)


def _setting(folder: StudyFolder, state: State, grid: Grid) -> list[str]:
    """Variants with their settings, images, hardware."""
    rows = []
    for variant in grid.variants:
        cell = next(cell for cell in grid.cells if cell.variant is variant)
        own = {
            **grid.study.variants[variant.name],
            **getattr(grid.study.scales, state.scale).variants.get(variant.name, {}),
        }
        own = {key: value for key, value in own.items() if key != "source"}
        steps = _status(folder, cell).get("steps")
        data = " ".join(Path(item).name for item in variant.data)
        rows.append([variant.name, f"`{json.dumps(own)}`" if own else "", data, f"{steps:,}" if steps else ""])
    shared = nest({**flatten(grid.study.settings), **flatten(getattr(grid.study.scales, state.scale).settings)})
    lines = [table(["variant", "settings", "images", "steps"], rows)]
    lines.append(f"All variants: `{json.dumps(shared)}`; scale {state.scale}.")
    return [*lines, *([grid.study.note] if grid.study.note else [])]


def _cost(folder: StudyFolder, grid: Grid) -> str:
    states = [_status(folder, cell) for cell in grid.cells]
    machines = dict.fromkeys(str(state["hardware"]) for state in states if state.get("hardware"))
    minutes = sum(float(state.get("seconds") or 0) for state in states) / 60
    date = min((str(state["began"])[:10] for state in states if state.get("began")), default="")
    return f"{COST} {len(states)} runs, {minutes:,.1f} minutes of training on {', '.join(machines)}; {date}."


def _status(folder: StudyFolder, cell: Cell) -> Mapping[str, Any]:
    path = folder.run(cell)
    return Run(path).folder.read_status() if (path / "config.yaml").exists() else {}


def _json(state: State, done: int, runs: int, outcomes: Sequence[Outcome | None]) -> dict[str, Any]:
    return {
        "study": state.name,
        "question": state.study.question,
        "scale": state.scale,
        "seeds": state.seeds,
        "runs": runs,
        "done": done,
        "verdict": "undecided" if outcomes[0] is None else outcomes[0].verdict,
        "comparisons": [None if one is None else _outcome_json(one) for one in outcomes],
    }


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    sides = [
        {
            "name": side.name,
            "place": side.place,
            "covered": outcome.places(second=side is outcome.second),
            "accuracies": side.correct.mean(1).tolist(),
        }
        for side in (outcome.first, outcome.second)
    ]
    values = {name: getattr(outcome, name) for name in ("value", "low", "high", "verdict", "seeds_to_decide")}
    return {"expected": outcome.comparison.expected, "sides": sides, **values}


def _number(value: float, std: float | None, places: int) -> str:
    return f"{value:.{places}f}" + ("" if std is None else f" ± {std:.{places}f}")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
