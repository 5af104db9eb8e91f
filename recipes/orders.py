"""Compare layers and tasks by probe accuracy, for three claims of the papers, on the results of `recipes.tasks`.

    python -m recipes.orders --data imagenette

- The best layer of predictive tasks is an intermediate one, that of invariant tasks the last (Misra & van der Maaten
  2020).
- PIRL is more accurate than jigsaw at the last layer (the same paper).
- Rotation is more accurate than jigsaw, and jigsaw than context (Doersch et al., Noroozi & Favaro, Gidaris et al.).

Differences are paired by seed, with a 95 % t interval.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from recipes.experiment import interval

Accuracies = Mapping[str, Sequence[float]]
"""Results of one task: layer, from the first to the last -> accuracy of every seed."""

PREDICTIVE, INVARIANT = ("rotation", "context", "jigsaw"), ("npid", "pirl")
COMPARISONS: dict[str, tuple[str, str, str]] = {
    "pirl above jigsaw at the last layer": ("pirl", "jigsaw", "layer3"),
    "rotation above jigsaw at layer2": ("rotation", "jigsaw", "layer2"),
    "jigsaw above context at layer2": ("jigsaw", "context", "layer2"),
}
"""Claim -> the task expected to be more accurate, the other task, and the layer, chosen beforehand."""


def main() -> None:
    """Print one line per claim for which there are results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="imagenette", help="name of the source in the results file")
    parser.add_argument("--minutes", type=float, default=3.0, help="minutes of the runs to compare")
    parser.add_argument(
        "--results", type=Path, default=Path("results/tasks.json"), help="results file of recipes.tasks"
    )
    options = parser.parse_args()
    accuracies = {
        entry["task"]: {layer["layer"]: layer["each"] for layer in entry["layers"]}
        for entry in json.loads(options.results.read_text())
        if (entry["data"], entry["minutes"]) == (options.data, options.minutes)
    }
    print("\n".join(["| | difference |", "|---|---|", *lines(accuracies)]))


def lines(accuracies: Mapping[str, Accuracies]) -> list[str]:
    """One table row per claim: the mean difference with its interval; `accuracies` by task."""
    differences = []
    for task in PREDICTIVE + INVARIANT:
        if task in accuracies:
            *earlier_layers, last = accuracies[task].values()
            best_earlier = [max(each) for each in zip(*earlier_layers, strict=True)]
            difference = [earlier - final for earlier, final in zip(best_earlier, last, strict=True)]
            differences.append((f"{task}: best earlier layer minus the last", difference))
    for claim, (first, second, layer) in COMPARISONS.items():
        if first in accuracies and second in accuracies:
            pairs = zip(accuracies[first][layer], accuracies[second][layer], strict=False)
            differences.append((claim, [one - other for one, other in pairs]))
    return [f"| {claim} | {interval(difference)} |" for claim, difference in differences]


if __name__ == "__main__":
    main()
