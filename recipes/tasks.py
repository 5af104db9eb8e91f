"""Runs every pretext task, three seeds of a short run and one long run, and compares each layer with random weights.

    python -m recipes.tasks --data cifar10 --only rotation deepcluster npid pirl
    python -m recipes.tasks --data imagenette --size 96 --only rotation context jigsaw

One encoder for all but iGPT, `convnet`; the settings are the defaults of each task, some of them written out in TASKS.
The first short run of a task measures how many steps its minutes are; the other seeds take as many, the long run as
many more as it is longer. Results are added to results/tasks.json, from which the tasks' pages take their rows.

iGPT has its long run with `--only igpt --long 30`. About 16 minutes per task for the three short runs and their probes
and 17 for the long one, so a night for all.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes.experiment import IGPT, Experiment, Row, logged, parser, spread
from selftaught.api.run import Run

TASKS: dict[str, dict[str, Any]] = {
    "rotation": {},
    "context": {"color": "keep", "pixelate": 0.0},  # tiles of 24 pixels, of photos shrunk to 160: no fringe, no grain
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
"""Tasks, each with the options that results/tasks.json names, which are defaults by now."""

SMALL = {"pirl": {"transform": "rotation"}}
"""The same at less than 64 pixels, where the tiles of a jigsaw are too small: PIRL's default there."""


def main() -> None:
    """Train missing runs, then save and print the results."""
    options = parser(__doc__, "tasks")
    options.add_argument("--long", type=float, default=15.0, help="minutes of the long run; 0 for none")
    options.add_argument("--size", type=int, help="side of the views in pixels")
    options.add_argument("--limit", type=int, help="images that layers are probed on, at most")
    options.add_argument("--kept", type=Path, default=Path("results/tasks.json"))
    given = options.parse_args()
    settings = {"encoder": "convnet", "threads": given.threads} | ({"size": given.size} if given.size else {})
    source = Path(given.data).stem
    tasks = TASKS if (given.size or 0) >= 64 else {**TASKS, **SMALL}
    experiment = Experiment(given.data, given.out / source, settings, given.limit)
    names = given.only or list(TASKS)
    note = f"Layers were probed on {given.limit:,} images." if given.limit else ""
    short: dict[str, list[Run]] = {name: [] for name in names}
    steps = {}

    def found(minutes: float, name: str, runs: Sequence[Run]) -> None:
        rows = [experiment.row(run) for run in runs]
        keep(given.kept, entry(source, minutes, runs, rows, tasks[name], note))

    for seed in range(given.seeds):  # seed by seed: what is finished first says most
        for name in names:
            known = given.steps or steps.get(name)
            budget = {"steps": known} if known else {"minutes": given.minutes}
            run = experiment.run(name, seed, **{"task": name, **tasks[name], **budget})
            steps[name] = run.folder.read_config()["steps"]
            short[name].append(run)
            found(given.minutes, name, short[name])
        if seed == 0 and given.long:
            for name in names:
                more = round(steps[name] * given.long / given.minutes)
                run = experiment.run(f"{name} long", 0, **{"task": name, **tasks[name], "steps": more})
                found(given.long, name, [run])
    print(table(json.loads(given.kept.read_text()), names, source))


def entry(
    data: str, minutes: float, runs: Sequence[Run], rows: Sequence[Row], options: Mapping[str, Any], note: str = ""
) -> dict[str, Any]:
    """What some seeds of one task came to, as it is kept: how well it is solved, and what layers are worth."""
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
    about = {"data": data, "minutes": minutes, "seeds": len(runs)}
    settings = {name: config[name] for name in ("task", "encoder", "size", "threads", "steps")}
    given = {name: value for name, value in {"options": options, "solved": solved, "note": note}.items() if value}
    return {**settings, **about, **given, "layers": layers}


def keep(path: Path, found: dict[str, Any]) -> None:
    """Put an entry in the place of that of the same task, data, settings and minutes."""
    same = ("task", "data", "encoder", "size", "options", "minutes")
    entries = json.loads(path.read_text()) if path.exists() else []
    entries = [old for old in entries if any(old.get(key) != found.get(key) for key in same)] + [found]
    entries.sort(key=lambda one: (one["data"], list(TASKS).index(one["task"]), one["minutes"]))
    path.write_text(json.dumps(entries, indent=1) + "\n")


def table(entries: Sequence[dict[str, Any]], names: Sequence[str], data: str) -> str:
    """The rows of some tasks on one source; pretext accuracy is compared with chance."""
    lines = ["| task | minutes (steps) | seeds | solved | layers, trained | layers, random | gain of the best layer |"]
    lines += ["|" + "---|" * 7]
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
    """Test accuracy of the layer that is best on held-out training images; in old entries best on test images."""
    best = max(layers, key=lambda layer: layer.get(held_out, layer[accuracy]))
    return float(best[accuracy])


if __name__ == "__main__":
    main()
