"""What the papers of the predictive and the invariant tasks found, asked again at a laptop's budget. Three seeds each.

    python -m recipes.verdicts --data imagenette --size 96 --only permutations guards
    python -m recipes.verdicts --data cifar10 --only negatives lambda

- permutations: Noroozi & Favaro 2016 find that more of them make a harder puzzle and better features.
- guards: without gap, normed tiles and colour tricks a jigsaw is solved by what is not content.
- negatives: Misra & van der Maaten 2020 (figure 7) find more of them better.
- lambda: their figure 6 has its best in the middle, between images alone (0) and transformed ones alone (1).

Every variant takes the steps that the first one takes in its minutes. The layer that is compared is named beforehand.
"""

from dataclasses import dataclass, field
from typing import Any

from recipes.experiment import Experiment, parser, solved, table

PROBED = 20_000
"""Images that layers are probed on, as in `rotation`."""


@dataclass(frozen=True)
class Question:
    """What is compared; the first variant is what the others are held against."""

    task: str
    layer: str
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)


QUESTIONS = {
    "permutations": Question(
        "jigsaw",
        "layer2",
        {"1000 permutations": {}, "100 permutations": {"permutations": 100}, "10 permutations": {"permutations": 10}},
    ),
    "guards": Question(
        "jigsaw",
        "layer2",
        {"guarded": {}, "unguarded": {"gap": 0.0, "normalize": False, "shift": 0.0, "grey": 0.0}},
    ),
    "negatives": Question(
        "npid",
        "layer3",
        {"4096 negatives": {}, "512 negatives": {"negatives": 512}, "64 negatives": {"negatives": 64}},
    ),
    "lambda": Question(
        "pirl",
        "layer3",
        {"lambda 0.5": {}, "lambda 0": {"weight": 0.0}, "lambda 1": {"weight": 1.0}},
    ),
}


def main() -> None:
    """Train what is missing, then print a table per question."""
    options = parser(__doc__, "verdicts")
    options.add_argument("--size", type=int, default=32, help="side of the views in pixels")
    given = options.parse_args()
    for name in given.only or QUESTIONS:
        question, steps, rows, pretext = QUESTIONS[name], given.steps, {}, {}
        settings = {"task": question.task, "size": given.size, "threads": given.threads}
        experiment = Experiment(given.data, given.out / name, settings, PROBED)
        for seed in range(given.seeds):
            for variant, changed in question.variants.items():
                budget = {"steps": steps} if steps else {"minutes": given.minutes}
                run = experiment.run(variant, seed, **budget, **changed)
                steps = steps or run.folder.read_config()["steps"]
                rows[variant, seed] = experiment.row(run)
                pretext.setdefault(variant, []).append(solved(run))
        base = next(iter(question.variants))
        print(f"\n{name}: {question.task}, {steps} steps, {given.seeds} seeds; pretext accuracy at the end: ", end="")
        print(", ".join(f"{sum(found) / len(found):.3f} ({variant})" for variant, found in pretext.items()) + "\n")
        print(table(rows, question.layer, {f"against {base}": base}))


if __name__ == "__main__":
    main()
