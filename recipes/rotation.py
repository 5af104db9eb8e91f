"""Ablation of rotation prediction: angles, copies per image and head. Three seeds on CIFAR-10.

In Gidaris et al. 2018, four angles are better than two or eight (their table 2), and all angles of each image in the
batch "significantly better" than one (section 3.1). A small-budget check, not a reproduction of the paper.

    python -m recipes.rotation --data cifar10 --minutes 3                  (about 85 minutes on two cores)

Every variant takes as many steps, of 256 views each, as the first variant takes in the given minutes. Rotations by
multiples of 45 degrees need the square inscribed in all of them, so there is also a variant of four angles on it.
"""

from recipes.experiment import Experiment, recipe_parser, table

FOUR_ANGLES = "four angles, all in the batch, linear head"
INSCRIBED = "four angles, inscribed square"
VARIANTS = {
    FOUR_ANGLES: {},
    "0 and 180": {"angles": (0, 180)},
    "90 and 270": {"angles": (90, 270)},
    "one angle per image": {"copies": "one"},
    "mlp head": {"head": "mlp"},
    INSCRIBED: {"inscribed": True},
    "eight angles, inscribed square": {"angles": tuple(range(0, 360, 45))},
}
VIEWS = 256
"""Views per step, the same for all variants, so that their cost is equal."""
PROBE_IMAGES = 20_000
"""Number of training images of the probes: enough to distinguish runs, in a third of the time."""
LAYER = "layer2"
"""The layer that is compared; chosen beforehand, since choosing it by test accuracy would bias the comparison."""


def main() -> None:
    """Train the missing runs, then print the table."""
    options = recipe_parser(__doc__, "rotation").parse_args()
    experiment = Experiment(options.data, options.out, {"task": "rotation", "threads": options.threads}, PROBE_IMAGES)
    steps, rows = options.steps, {}
    for seed in range(options.seeds):
        for name in options.only or VARIANTS:
            variant = VARIANTS[name]
            copies = 1 if variant.get("copies") == "one" else len(variant.get("angles", (0, 90, 180, 270)))
            budget = {"steps": steps} if steps else {"minutes": options.minutes}
            run = experiment.run(name, seed, batch_size=VIEWS // copies, **budget, **variant)
            steps = steps or run.folder.read_config()["steps"]
            rows[name, seed] = experiment.row(run)
    print(
        f"{steps} steps of {VIEWS} views; mean ± standard deviation over {options.seeds} pretraining seeds; "
        "differences paired by seed, with their 95 % interval (Student's t)\n"
    )
    print(table(rows, LAYER, {"minus four angles": FOUR_ANGLES, "minus four angles, inscribed square": INSCRIBED}))


if __name__ == "__main__":
    main()
