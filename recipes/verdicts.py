"""Check claims of the papers at a small budget: one question per claim, three seeds per variant.

    python -m recipes.verdicts --data imagenette --size 96 --only permutations guards
    python -m recipes.verdicts --data cifar10 --only negatives lambda adversary answer images side
    python -m recipes.verdicts --data market_street.jpg --probe-data cifar10 --only photo

- permutations: more permutations give a harder puzzle and better features (Noroozi & Favaro 2016).
- guards: without gaps, normalized tiles and color augmentation, jigsaw is solved by shortcuts (the same paper).
- negatives: more negatives are better (Misra & van der Maaten 2020, figure 7).
- lambda: the best weight lies between original images only (0) and transformed images only (1) (their figure 6).
- adversary: an adversarial loss gives sharper completions, but not the features (Pathak et al. 2016).
- answer: classifying colors avoids the desaturated mean of a regression (Zhang et al. 2016).
- images: iGPT was trained on more than a million images (Chen et al. 2020). What does it reach with few?
- side: larger images are better (the same paper). The number of tokens grows with the square of the side; the number of
  steps is equal.
- photo: for BiGAN on one photo, the scale of the crops is the most important augmentation, and all augmentations
  together are best (Asano et al. 2020, their ablation on CIFAR-10).

Every variant takes as many steps as the first one takes in the given minutes. The compared layer was chosen beforehand.
"""

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from recipes.experiment import IGPT, Experiment, logged, profile, recipe_parser, table

PROBE_IMAGES = 20_000
"""Number of training images of the probes, as in `rotation`."""


@dataclass(frozen=True)
class Question:
    """Task, layer and variants; the first variant is the reference."""

    task: str
    layer: str
    variants: dict[str, dict[str, Any]]
    metric: str = "accuracy"
    """Logged value that measures the pretext task."""
    settings: dict[str, Any] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    """Further reference variants, in addition to the first."""


# Crops of one size and shape, not rotated, without color jitter; of the size at which the released script starts.
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
        {"guarded": {}, "unguarded": {"gap": 0.0, "normalize": False, "shift": 0.0, "grayscale": 0.0}},
        settings={"permutations": 100},  # few enough to be learned in minutes
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
        settings={"transform": "rotation"},  # the tiles of a 32-pixel image are too small
    ),
    "adversary": Question(
        "inpainting", "layer2", {"least squares": {}, "with a critic": {"adversarial": 0.001}}, metric="hole_error"
    ),
    "answer": Question("colorization", "layer2", {"classes": {}, "mean": {"answer": "mean"}}, metric="ab_error"),
    "images": Question(
        "igpt",
        "block04",
        {"all images": {}, "10,000 images": {"limit": 10_000}, "2,000 images": {"limit": 2_000}},
        metric="bits",
        settings=IGPT,
    ),
    "side": Question(
        "igpt",
        "block04",
        {"16 pixels": {}, "8 pixels": {"size": 8}, "24 pixels": {"size": 24}},
        metric="bits",
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
        metric="reconstruction_error",
        settings={"scale": (1.0, 1.0), "batch_size": 32},  # without the task's own crops, another augmentation
        references=("none", "scale"),
    ),
}


def main() -> None:
    """Train the missing runs, then print a table per question."""
    parser = recipe_parser(__doc__, "verdicts")
    parser.add_argument("--size", type=int, default=32, help="side of the views in pixels")
    parser.add_argument("--probe-data", help="images to probe on; default: --data")
    options = parser.parse_args()
    for name in options.only or QUESTIONS:
        question, steps, rows, pretext = QUESTIONS[name], options.steps, {}, {}
        settings = {"task": question.task, "size": options.size, "threads": options.threads, **question.settings}
        experiment = Experiment(options.data, options.out / name, settings, PROBE_IMAGES, options.probe_data)
        for seed in range(options.seeds):
            for variant, changes in question.variants.items():
                budget = {"steps": steps} if steps else {"minutes": options.minutes}
                run = experiment.run(variant, seed, **budget, **changes)
                steps = steps or run.folder.read_config()["steps"]
                rows[variant, seed] = experiment.row(run)
                pretext.setdefault(variant, []).append(logged(run, question.metric))
        reference = next(iter(question.variants))
        headline = f"{name}: {question.task}, {steps} steps, {options.seeds} seeds; {question.metric} at the end"
        values = ", ".join(f"{fmean(seeds):.3f} ({variant})" for variant, seeds in pretext.items())
        print(f"\n{headline}: {values}\n")
        references = {f"minus {variant}": variant for variant in (reference, *question.references)}
        print(table(rows, question.layer, references))
        print("\n" + profile(rows))


if __name__ == "__main__":
    main()
