"""Effect of recalibration: batch statistics recomputed on whole images, for encoders trained on tiles.

    python -m recipes.recalibration runs/tasks/imagenette160/jigsaw-? --data imagenette

`selftaught probe` recomputes the batch statistics of such encoders before it probes them. Here each run is probed once
more with the statistics of training, on the same images, and the differences are paired by run.
"""

import argparse
import json
from pathlib import Path

from recipes.experiment import interval, spread
from selftaught.api.run import Run
from selftaught.data import open_splits
from selftaught.evaluation.layers import probe_layers
from selftaught.evaluation.table import ProbeTable


def main() -> None:
    """Print a table with one row per layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of one task, finished and probed")
    parser.add_argument("--data", required=True, help="images that the runs were probed on")
    parser.add_argument("--limit", type=int, help="--limit that the runs were probed with")
    options = parser.parse_args()
    pairs: dict[str, list[tuple[float, float]]] = {}
    for path in options.runs:
        run = Run(path)
        (file,) = path.glob("probes/*-ridge*.json")
        probe = json.loads(file.read_text())
        if not probe["recalibrated"]:
            raise SystemExit(
                f"{path} was probed without recalibration; pass runs of a task that trains on tiles, such as jigsaw."
            )
        unchanged = without_recalibration(run, options.data, options.limit)
        for row, other in zip(probe["layers"], unchanged.layers, strict=True):
            pairs.setdefault(other.layer, []).append((row["accuracy"], other.accuracy))
    print("| | recalibrated | statistics of training | difference |\n|---|---|---|---|")
    for layer, accuracies in pairs.items():
        recalibrated, original = ([pair[side] for pair in accuracies] for side in (0, 1))
        print(f"| {layer} | {spread(recalibrated)} | {spread(original)} | {interval([a - b for a, b in accuracies])} |")


def without_recalibration(run: Run, data: str, limit: int | None) -> ProbeTable:
    """Probe a run with the batch statistics of its training."""
    encoder, size = run.encoder, int(run.folder.read_config()["size"])
    # The baseline is not used, so the trained encoder takes the place of random weights, to save time.
    return probe_layers(
        encoder, lambda _: run.encoder, *open_splits(data, side=size, limit=limit), size=size, initializations=1
    )


if __name__ == "__main__":
    main()
