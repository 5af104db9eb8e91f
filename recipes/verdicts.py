"""Reproduces claims of the papers at a laptop's budget: one question each, three seeds of every variant.

    python -m recipes.verdicts --data imagenette --size 96 --only permutations guards
    python -m recipes.verdicts --data cifar10 --only negatives lambda adversary answer images side
    python -m recipes.verdicts --data market_street.jpg --probed cifar10 --only photo

- permutations: Noroozi & Favaro 2016 find that more of them make a harder puzzle and better features.
- guards: without gap, normed tiles and colour tricks a jigsaw is solved by what is not content.
- negatives: Misra & van der Maaten 2020 (figure 7) find more of them better.
- lambda: their figure 6 has its best in the middle, between images alone (0) and transformed ones alone (1).
- adversary: Pathak et al. 2016 fill sharper with a critic, and learn their features without.
- answer: Zhang et al. 2016 classify colours, since the mean of many is a dull one.
- images: Chen et al. 2020 show iGPT more than a million images. How does it fare with few?
- side: they find larger pictures better. Tokens grow with the square of the side, and steps are the same for all.
- photo: Asano et al. 2020 (their ablation on CIFAR-10) find that BiGAN learns from one photo by the scale of its crops
  above all, and best with every augmentation.

Every variant takes the steps that the first one takes in its minutes. The layer that is compared is named beforehand.
"""

from dataclasses import dataclass, field
from typing import Any

from recipes.experiment import IGPT, Experiment, logged, parser, profile, table

PROBED = 20_000
"""Images that layers are probed on, as in `rotation`."""


@dataclass(frozen=True)
class Question:
    """The variants; the first is the reference that the others are compared with."""

    task: str
    layer: str
    variants: dict[str, dict[str, Any]]
    solved: str = "accuracy"
    """What is logged of how well the task itself is solved."""
    settings: dict[str, Any] = field(default_factory=dict)
    against: tuple[str, ...] = ()
    """Further reference variants, besides the first."""


# One size and shape of the crops, upright, in the photo's colours; as large as those that the release begins with.
PLAIN = {"crop_area": (0.1875, 0.1875), "crop_ratio": (1.0, 1.0), "crop_rotation": 0.0, "crop_jitter": 0.0}
JITTER, ROTATION, SCALE = (
    {"crop_jitter": 0.4},
    {"crop_rotation": 35.0},
    {"crop_area": (0.001, 1.0), "crop_ratio": (3 / 4, 4 / 3)},
)

QUESTIONS = {
    "permutations": Question(
        "jigsaw",
        "layer2",
        {
            "1000 permutations": {"permutations": 1000},
            "100 permutations": {"permutations": 100},
            "10 permutations": {"permutations": 10},
        },
    ),
    "guards": Question(
        "jigsaw",
        "layer2",
        {"guarded": {}, "unguarded": {"gap": 0.0, "normalize": False, "shift": 0.0, "grey": 0.0}},
        settings={"permutations": 100},  # a puzzle that is solved in so few minutes
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
        settings={"transform": "rotation"},  # tiles of an image of 32 pixels are too small to show anything
    ),
    "adversary": Question(
        "inpainting", "layer2", {"least squares": {}, "with a critic": {"adversarial": 0.001}}, solved="hole_error"
    ),
    "answer": Question("colorization", "layer2", {"classes": {}, "mean": {"answer": "mean"}}, solved="ab_error"),
    "images": Question(
        "igpt",
        "block04",
        {"all images": {}, "10,000 images": {"limit": 10_000}, "2,000 images": {"limit": 2_000}},
        solved="bits",
        settings=IGPT,
    ),
    "side": Question(
        "igpt",
        "block04",
        {"16 pixels": {}, "8 pixels": {"size": 8}, "24 pixels": {"size": 24}},
        solved="bits",
        settings=IGPT,
    ),
    "photo": Question(
        "bigan",
        "layer2",
        {
            "all": {**PLAIN, **JITTER, **ROTATION, **SCALE},
            "none": PLAIN,
            "jitter": {**PLAIN, **JITTER},
            "rotation": {**PLAIN, **ROTATION},
            "scale": {**PLAIN, **SCALE},
        },
        solved="reconstruction_error",
        settings={"scale": (1.0, 1.0), "batch_size": 32},  # the task's own crops would be an augmentation too
        against=("none", "scale"),
    ),
}


def main() -> None:
    """Train what is missing, then print a table per question."""
    options = parser(__doc__, "verdicts")
    options.add_argument("--size", type=int, default=32, help="side of the views in pixels")
    options.add_argument("--probed", help="what layers are probed on, where it is not --data")
    given = options.parse_args()
    for name in given.only or QUESTIONS:
        question, steps, rows, pretext = QUESTIONS[name], given.steps, {}, {}
        settings = {"task": question.task, "size": given.size, "threads": given.threads, **question.settings}
        experiment = Experiment(given.data, given.out / name, settings, PROBED, given.probed)
        for seed in range(given.seeds):
            for variant, changed in question.variants.items():
                budget = {"steps": steps} if steps else {"minutes": given.minutes}
                run = experiment.run(variant, seed, **budget, **changed)
                steps = steps or run.folder.read_config()["steps"]
                rows[variant, seed] = experiment.row(run)
                pretext.setdefault(variant, []).append(logged(run, question.solved))
        base = next(iter(question.variants))
        print(f"\n{name}: {question.task}, {steps} steps, {given.seeds} seeds; {question.solved} at the end: ", end="")
        print(", ".join(f"{sum(found) / len(found):.3f} ({variant})" for variant, found in pretext.items()) + "\n")
        print(table(rows, question.layer, {f"against {name}": name for name in (base, *question.against)}))
        print("\n" + profile(rows))


if __name__ == "__main__":
    main()
