"""Does it learn? Every pretext task: three seeds of a short run and one long run, each layer beside random weights.

    python -m recipes.tasks --data cifar10 --only rotation deepcluster npid pirl
    python -m recipes.tasks --data imagenette --size 96 --only rotation context jigsaw

One encoder for all that can, `convnet`; the settings are those that each task comes with, but for what TASKS says.
The first short run of a task measures how many steps its minutes are; the other seeds take as many, the long run as
many more as it is longer. What is found is added to results/tasks.json, from which the tasks' pages take their rows.

About 16 minutes per task for the three short runs and their probes and 17 for the long one, so a night for all.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes.experiment import IGPT, Experiment, Row, parser

TASKS: dict[str, dict[str, Any]] = {
    "rotation": {},
    "context": {"color": "keep", "pixelate": 0.0},  # tiles of 24 pixels, of photos shrunk to 160: no fringe, no grain
    "jigsaw": {"permutations": 100},  # those of 1000 are told apart too late
    "deepcluster": {},
    "npid": {},
    "pirl": {},
    "autoencoder": {},
    "gan": {},
    "colorization": {},
    "inpainting": {},
    "bigan": {"batch_size": 32},  # a game learns by the step
    "igpt": IGPT,
}
"""The variants: tasks, with what they need besides."""

SMALL = {"pirl": {"transform": "rotation"}}
"""The same at less than 64 pixels, where the tiles of a jigsaw are too small to show anything."""


def main() -> None:
    """Train what is missing, write down and print what was found."""
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
    short: dict[str, list[Row]] = {name: [] for name in names}
    steps = {}
    for seed in range(given.seeds):  # seed by seed: what is finished first says most
        for name in names:
            known = given.steps or steps.get(name)
            budget = {"steps": known} if known else {"minutes": given.minutes}
            run = experiment.run(name, seed, **{"task": name, **tasks[name], **budget})
            steps[name] = run.folder.read_config()["steps"]
            short[name].append(experiment.row(run))
            keep(given.kept, entry(name, source, given.minutes, steps[name], short[name], tasks[name], note))
        if seed == 0 and given.long:
            for name in names:
                more = round(steps[name] * given.long / given.minutes)
                run = experiment.run(f"{name} long", 0, **{"task": name, **tasks[name], "steps": more})
                keep(given.kept, entry(name, source, given.long, more, [experiment.row(run)], tasks[name], note))
    print(table(json.loads(given.kept.read_text()), names, source))


def entry(
    task: str, data: str, minutes: float, steps: int, rows: Sequence[Row], options: Mapping[str, Any], note: str = ""
) -> dict[str, Any]:
    """What some seeds of one task came to, as it is kept."""
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
            }
        )
    about = {"task": task, "data": data, "minutes": minutes, "steps": steps, "seeds": len(rows)}
    return {**about, **({"options": options} if options else {}), "layers": layers, **({"note": note} if note else {})}


def keep(path: Path, found: dict[str, Any]) -> None:
    """Put an entry in the place of that of the same task, data and minutes."""
    same = ("task", "data", "minutes")
    entries = json.loads(path.read_text()) if path.exists() else []
    entries = [old for old in entries if any(old[key] != found[key] for key in same)] + [found]
    entries.sort(key=lambda one: (one["data"], list(TASKS).index(one["task"]), one["minutes"]))
    path.write_text(json.dumps(entries, indent=1) + "\n")


def table(entries: Sequence[dict[str, Any]], names: Sequence[str], data: str) -> str:
    """The rows of some tasks on one source."""
    lines = ["| task | minutes (steps) | seeds | layers, trained | best | best random | gain |", "|" + "---|" * 7]
    for one in entries:
        if one["task"] not in names or one["data"] != data:
            continue
        layers = one["layers"]
        best, random = max(layer["accuracy"] for layer in layers), max(layer["random"] for layer in layers)
        shown = " / ".join(f"{layer['accuracy']:.3f}" for layer in layers)
        with_options = "".join(f" `{name}={value}`" for name, value in one.get("options", {}).items())
        lines.append(
            f"| {one['task']}{with_options} | {one['minutes']:g} ({one['steps']:,}) | {one['seeds']} | {shown} | "
            f"{best:.3f} | {random:.3f} | {best - random:+.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
