"""What matters in rotation: how many angles, all of them in the batch or one, which head. Three seeds, CIFAR-10.

Gidaris et al. 2018 find four angles better than two or eight (their table 2) and all angles of an image in the batch
"significantly better" than one (section 3.1). A quick check at a laptop's budget, not a reproduction of theirs.

    python -m recipes.rotation --data cifar10 --minutes 3                  (about 85 minutes on two cores)

Every variant shows the views that the first one shows in its minutes, since the cost is in the views. Angles of 45
degrees need the square inscribed in every turn, so four angles are asked on that square too.
"""

from recipes.experiment import Experiment, parser, table

BASE = "four angles, all in the batch, linear head"
INSCRIBED = "four angles, inscribed square"
VARIANTS = {
    BASE: {},
    "0 and 180": {"angles": (0, 180)},
    "90 and 270": {"angles": (90, 270)},
    "one angle per image": {"copies": "one"},
    "mlp head": {"head": "mlp"},
    INSCRIBED: {"inscribed": True},
    "eight angles of 45, inscribed square": {"angles": tuple(range(0, 360, 45))},
}
VIEWS = 256
"""Views per step, the same for all: what is compared is the question, not the batch."""
PROBED = 20_000
"""Number of training images of the probes: enough to distinguish runs, in a third of the time."""
LAYER = "layer2"
"""The layer that is compared. Named beforehand: the best of several on the test images would be chosen on them."""


def main() -> None:
    """Train what is missing, then print the table."""
    given = parser(__doc__, "rotation").parse_args()
    experiment = Experiment(given.data, given.out, {"task": "rotation", "threads": given.threads}, PROBED)
    steps, rows = given.steps, {}
    for seed in range(given.seeds):
        for name in given.only or VARIANTS:
            options = VARIANTS[name]
            copies = 1 if options.get("copies") == "one" else len(options.get("angles", (0, 90, 180, 270)))
            budget = {"steps": steps} if steps else {"minutes": given.minutes}
            run = experiment.run(name, seed, batch_size=VIEWS // copies, **budget, **options)
            steps = steps or run.folder.read_config()["steps"]
            rows[name, seed] = experiment.row(run)
    print(
        f"{steps} steps of {VIEWS} views; mean and deviation over {given.seeds} seeds of pretraining; differences "
        "paired by seed, with a 95 % t interval\n"
    )
    print(table(rows, LAYER, {"against four angles": BASE, "against four on the inscribed square": INSCRIBED}))


if __name__ == "__main__":
    main()
