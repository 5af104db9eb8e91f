"""What matters in rotation: how many angles, all of them in the batch or one, which head. Three seeds, CIFAR-10.

Gidaris et al. 2018 find four angles better than two or eight (their table 2) and all angles of an image in the batch
"significantly better" than one (section 3.1). A quick check at a laptop's budget, not a reproduction of theirs.

    python recipes/rotation.py --data cifar10 --minutes 3 --out runs/rotation       (about 75 minutes on two cores)

Interrupted, the same command goes on where it stopped. The number of steps is that which the first run measures for the
minutes; every other configuration gets the steps that show as many views, since the cost is in the views.
"""

import argparse
import json
import statistics
from pathlib import Path

import selftaught
from selftaught.errors import UserError
from selftaught.run import Run

BASE = "four angles, all in the batch, linear head"
VARIANTS = {
    BASE: {},
    "0 and 180": {"angles": (0, 180)},
    "90 and 270": {"angles": (90, 270)},
    "eight angles of 45": {"angles": tuple(range(0, 360, 45))},
    "one angle per image": {"copies": "one"},
    "mlp head": {"head": "mlp"},
}
VIEWS = 256
"""Views per step, the same for all: what is compared is the question, not the batch."""
LAYER = "layer2"
"""The layer that is compared. Named beforehand: the best of several on the test images would be chosen on them."""
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Two-sided 95 % quantiles of Student's t by degrees of freedom."""


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/rotation"))
    given = parser.parse_args()
    if given.seeds - 1 not in T95:
        raise UserError(f"an interval needs two to five seeds, found {given.seeds}: give --seeds 3.")
    steps, best = None, {}
    for seed in range(given.seeds):
        for name, options in VARIANTS.items():
            run = trained(given, name, options, seed, steps)
            steps = steps or run.folder.read_config()["steps"]
            best[name, seed] = probed(run, given.data)
    print(table(best, given.seeds, steps))


def trained(given: argparse.Namespace, name: str, options: dict, seed: int, steps: int | None) -> Run:
    """The run of one configuration: as it was left, gone on with, or begun."""
    folder = given.out / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
    if (folder / "config.yaml").exists():
        run = Run(folder)
        return run if run.finished else whole(selftaught.pretrain(out=folder, resume=True))
    copies = 1 if options.get("copies") == "one" else len(options.get("angles", (0, 90, 180, 270)))
    budget = {"minutes": given.minutes} if steps is None else {"steps": steps}
    batch = VIEWS // copies
    return whole(selftaught.pretrain(given.data, out=folder, seed=seed, batch_size=batch, **budget, **options))


def whole(run: Run) -> Run:
    """The run, if it was carried out to its end; a half-trained encoder must not be probed."""
    if not run.finished:
        raise SystemExit("stopped; the same command goes on")
    return run


def probed(run: Run, data: str) -> float:
    """The accuracy of the layer that is compared, asked once."""
    kept = list(run.folder.probes.glob("*-fast.json"))
    found = json.loads(kept[0].read_text()) if kept else run.probe(data).to_json()
    return next(layer["accuracy"] for layer in found["layers"] if layer["layer"] == LAYER)


def table(best: dict[tuple[str, int], float], seeds: int, steps: int) -> str:
    """Accuracies, and differences to the base over the same seeds with a 95 % interval."""
    lines = [
        f"{steps} steps of {VIEWS} views; accuracy of {LAYER}, mean over {seeds} seeds of pretraining; "
        "difference to the first row, paired by seed, with a 95 % t interval",
        "",
        "| | accuracy | difference |",
        "|---|---|---|",
    ]
    for name in VARIANTS:
        values = [best[name, seed] for seed in range(seeds)]
        differences = [best[name, seed] - best[BASE, seed] for seed in range(seeds)]
        half = T95[seeds - 1] * statistics.stdev(differences) / seeds**0.5
        shown = "" if name == BASE else f"{statistics.fmean(differences):+.3f} ± {half:.3f}"
        lines.append(f"| {name} | {statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
