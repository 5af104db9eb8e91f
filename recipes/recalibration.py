"""What batch statistics of whole images are worth to encoders that learned from tiles.

    python -m recipes.recalibration runs/tasks/imagenette160/jigsaw-? --data imagenette

`selftaught probe` sets them before it asks such an encoder. Here layers are read again with the statistics that
training left, on the same images, and the two are held against each other run by run.
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
    """Print a table: a row per layer."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("runs", nargs="+", type=Path, help="finished and probed, of one task")
    options.add_argument("--data", required=True, help="what they were probed on")
    options.add_argument("--limit", type=int, help="as they were probed with")
    given = options.parse_args()
    pairs: dict[str, list[tuple[float, float]]] = {}
    for path in given.runs:
        run = Run(path)
        (kept,) = path.glob("probes/*-ridge*.json")
        probe = json.loads(kept.read_text())
        if not probe["recalibrated"]:
            raise SystemExit(f"{path} was probed as it was trained: give runs of a task that shows tiles")
        again = as_left(run, given.data, given.limit)
        for row, other in zip(probe["layers"], again.layers, strict=True):
            pairs.setdefault(other.layer, []).append((row["accuracy"], other.accuracy))
    print("| | of whole images | as training left them | difference |\n|---|---|---|---|")
    for layer, found in pairs.items():
        whole, left = ([pair[side] for pair in found] for side in (0, 1))
        print(f"| {layer} | {spread(whole)} | {spread(left)} | {interval([a - b for a, b in found])} |")


def as_left(run: Run, data: str, limit: int | None) -> ProbeTable:
    """The run's probe once more, with the statistics that training left."""
    encoder, size = run.encoder, int(run.folder.read_config()["size"])
    # Only the trained encoder is compared: one random initialization, and it need not be random.
    return probe_layers(
        encoder, lambda _: run.encoder, *open_splits(data, side=size, limit=limit), size=size, initializations=1
    )


if __name__ == "__main__":
    main()
