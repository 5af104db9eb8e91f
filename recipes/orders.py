"""Ranks tasks and layers by probe accuracy and compares with the papers, on the results saved by `recipes.tasks`.

    python -m recipes.orders --data imagenette

- Prediction tasks are read best in the middle, invariant ones at the last layer (Misra & van der Maaten 2020).
- PIRL is above jigsaw at the last layer (the same).
- Context, jigsaw, rotation in this order (the tables of Doersch et al., Noroozi & Favaro and Gidaris et al.).

Differences are paired by seed, with a 95 % t interval.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from recipes.experiment import interval

Accuracies = Mapping[str, Sequence[float]]
"""Of one task: for each layer, from the first to the last, the accuracy of every seed."""

PREDICTIVE, INVARIANT = ("rotation", "context", "jigsaw"), ("npid", "pirl")
BETWEEN: dict[str, tuple[str, str, str]] = {
    "pirl above jigsaw at the last layer": ("pirl", "jigsaw", "layer3"),
    "rotation above jigsaw at layer2": ("rotation", "jigsaw", "layer2"),
    "jigsaw above context at layer2": ("jigsaw", "context", "layer2"),
}
"""Claim -> the task that should lead, the other one, and the layer at which, named beforehand."""


def main() -> None:
    """Print a line per claim that can be judged."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", default="imagenette", help="the source, as the kept results call it")
    options.add_argument("--minutes", type=float, default=3.0, help="the runs that took so long")
    options.add_argument("--kept", type=Path, default=Path("results/tasks.json"))
    given = options.parse_args()
    kept = {
        entry["task"]: {layer["layer"]: layer["each"] for layer in entry["layers"]}
        for entry in json.loads(given.kept.read_text())
        if (entry["data"], entry["minutes"]) == (given.data, given.minutes)
    }
    print("\n".join(["| | difference |", "|---|---|", *lines(kept)]))


def lines(kept: Mapping[str, Accuracies]) -> list[str]:
    """What becomes of each claim, given each task's accuracies."""
    found = []
    for task in PREDICTIVE + INVARIANT:
        if task in kept:
            *earlier, last = kept[task].values()
            inner = [max(each) for each in zip(*earlier, strict=True)]
            apart = [before - after for before, after in zip(inner, last, strict=True)]
            found.append((f"{task}: best earlier layer less the last", apart))
    for claim, (first, second, layer) in BETWEEN.items():
        if first in kept and second in kept:
            pairs = zip(kept[first][layer], kept[second][layer], strict=False)
            found.append((claim, [one - other for one, other in pairs]))
    return [f"| {claim} | {interval(apart)} |" for claim, apart in found]


if __name__ == "__main__":
    main()
