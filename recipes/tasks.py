"""Train every pretext task, three short runs and one long one, and compare every layer with random weights.

    python -m recipes.tasks --data cifar10 --only rotation deepcluster npid pirl
    python -m recipes.tasks --data imagenette --size 96 --only rotation context jigsaw

The encoder is `convnet`, for iGPT `gpt`. Settings are the defaults of each task, some of them written out in TASKS. The
first short run of a task measures how many steps fit into `--minutes`; the other seeds take as many, and the long run
proportionally more. Results are added to results/tasks.json, which `docs/make.py` shows on the pages of the tasks.

The long run of iGPT takes `--only igpt --long 30`. Each task takes about 16 minutes for the three short runs and their
probes, and 17 for the long run.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes.experiment import IGPT, Experiment, Row, logged, recipe_parser, spread
from selftaught.api.run import Run

TASKS: dict[str, dict[str, Any]] = {
    "rotation": {},
    "context": {"color": "keep", "pixelate": 0.0},  # the shortcuts of full-resolution photos are absent at 160 px
    "jigsaw": {"permutations": 100},
    "deepcluster": {},
    "npid": {},
    "pirl": {},
    "autoencoder": {},
    "gan": {},
    "colorization": {},
    "inpainting": {},
    "bigan": {"batch_size": 32},
    "igpt": IGPT,
}
"""Task -> options, as named in results/tasks.json. All are defaults now."""

SMALL_IMAGES = {"pirl": {"transform": "rotation"}}
"""Options that differ below 64 px, where jigsaw tiles are too small; PIRL's default there."""


def main() -> None:
    """Train the missing runs, then save and print the results."""
    parser = recipe_parser(__doc__, "tasks")
    parser.add_argument("--long", type=float, default=15.0, help="minutes of the long run; 0 for none")
    parser.add_argument("--size", type=int, help="side of the views in pixels")
    parser.add_argument("--limit", type=int, help="maximum number of training images of a probe")
    parser.add_argument("--results", type=Path, default=Path("results/tasks.json"), help="JSON file of the results")
    options = parser.parse_args()
    settings = {"encoder": "convnet", "threads": options.threads} | ({"size": options.size} if options.size else {})
    source = Path(options.data).stem
    tasks = TASKS if (options.size or 0) >= 64 else {**TASKS, **SMALL_IMAGES}
    experiment = Experiment(options.data, options.out / source, settings, options.limit)
    names = options.only or list(TASKS)
    note = f"Layers were probed on {options.limit:,} images." if options.limit else ""
    short: dict[str, list[Run]] = {name: [] for name in names}
    steps = {}

    def save_results(minutes: float, name: str, runs: Sequence[Run]) -> None:
        rows = [experiment.row(run) for run in runs]
        save(options.results, entry(source, minutes, runs, rows, tasks[name], note))

    for seed in range(options.seeds):  # seeds in the outer loop, so that every task has a result early
        for name in names:
            num_steps = options.steps or steps.get(name)
            budget = {"steps": num_steps} if num_steps else {"minutes": options.minutes}
            run = experiment.run(name, seed, **{"task": name, **tasks[name], **budget})
            steps[name] = run.folder.read_config()["steps"]
            short[name].append(run)
            save_results(options.minutes, name, short[name])
        if seed == 0 and options.long:
            for name in names:
                long_steps = round(steps[name] * options.long / options.minutes)
                run = experiment.run(f"{name} long", 0, **{"task": name, **tasks[name], "steps": long_steps})
                save_results(options.long, name, [run])
    print(table(json.loads(options.results.read_text()), names, source))


def entry(
    data: str, minutes: float, runs: Sequence[Run], rows: Sequence[Row], options: Mapping[str, Any], note: str = ""
) -> dict[str, Any]:
    """Result of some seeds of one task, as saved: pretext accuracy, and probe accuracy of every layer."""
    config, levels = runs[0].folder.read_config(), runs[0].folder.read_status()["chance"]
    solved = {
        name: {"reached": statistics.fmean(logged(run, name) for run in runs), "chance": level}
        for name, level in levels.items()
    }
    layers = []
    for name in rows[0]:
        accuracies = [row[name]["accuracy"] for row in rows]
        layers.append(
            {
                "layer": name,
                "accuracy": statistics.fmean(accuracies),
                "std": statistics.stdev(accuracies) if len(rows) > 1 else None,
                "each": accuracies,
                "random": statistics.fmean(row[name]["random"] for row in rows),
                "held_out": statistics.fmean(row[name]["held_out"] for row in rows),
                "random_held_out": statistics.fmean(row[name]["random_held_out"] for row in rows),
            }
        )
    setup = {"data": data, "minutes": minutes, "seeds": len(runs)}
    settings = {name: config[name] for name in ("task", "encoder", "size", "threads", "steps")}
    optional = {name: value for name, value in {"options": options, "solved": solved, "note": note}.items() if value}
    return {**settings, **setup, **optional, "layers": layers}


def save(path: Path, new: dict[str, Any]) -> None:
    """Save an entry, replacing that of the same task, data, settings and minutes."""
    keys = ("task", "data", "encoder", "size", "options", "minutes")
    entries = json.loads(path.read_text()) if path.exists() else []
    entries = [old for old in entries if any(old.get(key) != new.get(key) for key in keys)] + [new]
    entries.sort(key=lambda one: (one["data"], list(TASKS).index(one["task"]), one["minutes"]))
    path.write_text(json.dumps(entries, indent=1) + "\n")


def table(entries: Sequence[dict[str, Any]], names: Sequence[str], data: str) -> str:
    """A Markdown table of some tasks on one source, with pretext accuracy (chance) and probe accuracies."""
    head = ("task", "minutes (steps)", "seeds", "pretext accuracy (chance)", "layers, trained")
    head += ("layers, random weights", "gain over best random layer")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for one in entries:
        if one["task"] not in names or one["data"] != data:
            continue
        layers = one["layers"]
        trained = " / ".join(spread(layer["each"]) for layer in layers)
        random = " / ".join(f"{layer['random']:.3f}" for layer in layers)
        gain = chosen(layers, "accuracy", "held_out") - chosen(layers, "random", "random_held_out")
        options = "".join(f" `--{name.replace('_', '-')} {value}`" for name, value in one.get("options", {}).items())
        solved = ", ".join(
            f"{name.replace('_', ' ')} {level['reached']:.3f} ({level['chance']:.3f})"
            for name, level in one.get("solved", {}).items()
        )
        lines.append(
            f"| `{one['task']}`{options} | {one['minutes']:g} ({one['steps']:,}) | {one['seeds']} | {solved} | "
            f"{trained} | {random} | **{gain:+.3f}** |"
        )
    return "\n".join(lines)


def chosen(layers: Sequence[Mapping[str, Any]], accuracy: str, held_out: str) -> float:
    """Test accuracy of the layer that is best on held-out training images; in older entries, on the test images."""
    best = max(layers, key=lambda layer: layer.get(held_out, layer[accuracy]))
    return float(best[accuracy])


if __name__ == "__main__":
    main()
