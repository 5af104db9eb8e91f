"""Results of a transfer: the metrics of every encoder, with differences to random weights."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from selftaught.evaluation.intervals import Measured
from selftaught.evaluation.overlap import overlap_warning
from selftaught.evaluation.table import mean_and_std
from selftaught.evaluation.transfer.contract import Predictions


@dataclass(frozen=True)
class Repetition:
    """One training, with the learning rate and the step that are best on validation images."""

    metrics: Mapping[str, float]
    """On the test images."""
    held_out: float
    """The first metric on the validation images."""
    learning_rate: float
    step: int
    """Optimizer steps after which the weights were taken."""
    predictions: Predictions = field(compare=False, repr=False)
    resampled: NDArray[np.float64] = field(compare=False, repr=False)
    """(SAMPLES,) first metric on bootstrap samples of the test images, the same samples for all encoders."""


@dataclass(frozen=True)
class Row:
    """One encoder."""

    name: str
    repetitions: tuple[Repetition, ...]

    @property
    def measured(self) -> Measured:
        """The first metric of every seed."""
        metric = next(iter(self.repetitions[0].metrics))
        values = np.array([each.metrics[metric] for each in self.repetitions])
        return Measured(values, np.stack([each.resampled for each in self.repetitions]), resampled=True)

    def to_json(self) -> dict[str, object]:
        """Plain values; of each metric the mean and the standard deviation over seeds."""
        summaries = {}
        for metric in self.repetitions[0].metrics:
            values = [each.metrics[metric] for each in self.repetitions]
            mean, std = mean_and_std(values)
            summaries[metric] = {"mean": mean, "std": std, "values": values}
        chosen = {
            key: [getattr(each, key) for each in self.repetitions] for key in ("held_out", "learning_rate", "step")
        }
        return {"name": self.name, "metrics": summaries, **chosen}


@dataclass(frozen=True)
class TransferTable:
    """What encoders reach on a data set when they are trained for detection or segmentation."""

    transfer: str
    """"detection" or "segmentation"."""
    metrics: Mapping[str, str]
    """Headings by name; differences are those of the first one."""
    data: str
    train: int
    validation: int
    test: int
    """Numbers of images."""
    classes: tuple[str, ...]
    size: int
    """Longer side of the images in pixels."""
    steps: int
    """Optimizer steps of each training."""
    settings: Mapping[str, object]
    rows: tuple[Row, ...]
    """The encoders; random weights, if any, are the last one."""
    notes: tuple[str, ...] = ()
    by_class: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    """Of every encoder, the first metric of every class, mean over seeds; None for classes without annotations."""
    overlap: int | None = None
    """Number of test images that were part of the first run's pretraining (without annotations); None if unknown."""

    def differences(self) -> list[dict[str, object]]:
        """Every row minus the last one, in the first metric, with 95 % intervals; empty for one row."""
        *rows, last = self.rows
        found: list[dict[str, object]] = []
        for row in rows:
            value, low, high = row.measured.minus(last.measured, by_repetition=True)
            found.append({"of": row.name, "over": last.name, "value": value, "low": low, "high": high})
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values, as stored in `transfer/*.json` and printed by `--json`."""
        values = {name: value for name, value in vars(self).items() if name != "rows"}
        return {**values, "rows": [row.to_json() for row in self.rows], "differences": self.differences()}

    def npz(self) -> bytes:
        """The content of `transfer/*.npz`: the predictions of every training, as "ROW/SEED/NAME"."""
        arrays = {
            f"{row.name}/{seed}/{name}": values
            for row in self.rows
            for seed, each in enumerate(row.repetitions)
            for name, values in each.predictions.items()
        }
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # names are not those of its own parameters
        return file.getvalue()


def render(table: TransferTable) -> Table:
    """The table for the terminal."""
    out = Table(
        title=f"{table.transfer.capitalize()} on {table.test:,} test images of {Path(table.data).name}",
        caption="\n".join(_captions(table)),
        caption_justify="left",
    )
    out.add_column("encoder")
    for heading in table.metrics.values():
        out.add_column(heading, justify="right")
    differences = [*table.differences(), {}]
    if len(table.rows) > 1:
        out.add_column("difference", justify="right")
        out.add_column("95 % interval", justify="right")
    for row, difference in zip(table.rows, differences, strict=True):
        out.add_row(*_cells(row, difference)[: len(out.columns)])
    return out


def _cells(row: Row, difference: Mapping[str, object]) -> list[str]:
    cells = [row.name]
    summaries: Any = row.to_json()["metrics"]
    for summary in summaries.values():
        std = "" if summary["std"] is None else f" ± {summary['std']:.3f}"
        cells.append(f"{summary['mean']:.3f}{std}")
    if difference:
        return [*cells, f"{difference['value']:+.3f}", f"{difference['low']:+.3f} to {difference['high']:+.3f}"]
    return [*cells, "", ""]


def _captions(table: TransferTable) -> Sequence[str]:
    count, first = len(table.rows[0].repetitions), next(iter(table.metrics.values()))
    spread = f"Mean ± standard deviation over {count} seeds." if count > 1 else "One seed."
    frozen = table.settings.get("freeze_until")
    paired = "test image and seed" if count > 1 else "test image"
    difference = (
        f" Difference: {first} minus that of {table.rows[-1].name}, paired by {paired}; variation between pretraining "
        "runs is not included."
    )
    lines = [
        spread + (difference if len(table.rows) > 1 else ""),
        f"{table.steps:,} steps of {table.settings['batch_size']} images with a longer side of {table.size} px; layers "
        f"up to {frozen} are frozen." if frozen else
        f"{table.steps:,} steps of {table.settings['batch_size']} images with a longer side of {table.size} px.",
        f"Learning rate and step are chosen on {table.validation:,} validation images.",
        *table.notes,
        overlap_warning(table.overlap, table.test),
    ]  # fmt: skip
    return [line for line in lines if line]
