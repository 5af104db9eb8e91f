"""Results of fine-tuning and of few labels: accuracies by number of labels, as JSON and for the terminal."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from selftaught.evaluation.crossing import Crossing, find_crossing
from selftaught.evaluation.intervals import half_width, paired_interval
from selftaught.evaluation.overlap import overlap_warning
from selftaught.evaluation.table import digits, mean_and_std

FROM_SCRATCH = "from scratch"
"""Name of the row of random weights that are trained."""


@dataclass(frozen=True)
class Repetition:
    """One training with the learning rate and the step that are best on its validation images, or one probe."""

    correct: Tensor
    """(n,) bool: whether each labeled test image is classified correctly."""
    held_out: float
    """Accuracy on the validation images."""
    learning_rate: float | None = None
    step: int | None = None
    """Optimizer steps after which the weights were taken."""
    layer: str | None = None
    """Layer of a probe."""


@dataclass(frozen=True)
class Row:
    """One way to train, with one number of labels."""

    name: str
    """"fine-tuned", "from scratch", "probe" or "probe, random weights"."""
    repetitions: tuple[Repetition, ...]

    @property
    def correct(self) -> Tensor:
        """(repetitions, n) bool."""
        return torch.stack([each.correct for each in self.repetitions])

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        accuracies = self.correct.double().mean(1).tolist()
        mean, std = mean_and_std(accuracies)
        low, high = accuracy_interval(self.correct)
        return {
            "name": self.name, "accuracy": mean, "std": std, "low": low, "high": high, "accuracies": accuracies,
            **{
                key: [getattr(each, key) for each in self.repetitions]
                for key in ("held_out", "learning_rate", "step", "layer")
                if getattr(self.repetitions[0], key) is not None
            },
        }  # fmt: skip


@dataclass(frozen=True)
class LabelResult:
    """All rows with one number of labels; the first one uses the pretrained encoder."""

    name: str
    """"20 per class", "1 %" or "all"."""
    images: int
    """Labeled images, validation images included."""
    validation: int
    """Validation images among them."""
    steps: int | None
    """Optimizer steps of each training."""
    rows: tuple[Row, ...]

    def differences(self) -> list[dict[str, object]]:
        """The first row minus each of the others, with 95 % intervals paired by test image and by repetition.

        All rows of a repetition have the same labeled and the same validation images.
        """
        first, *others = (row.correct.double() for row in self.rows)
        differences: list[dict[str, object]] = []
        for row, other in zip(self.rows[1:], others, strict=True):
            low, high = paired_interval(first, other, by_repetition=True)
            differences.append({"over": row.name, "value": float((first - other).mean()), "low": low, "high": high})
        return differences

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        values = {name: value for name, value in vars(self).items() if name != "rows"}
        return {**values, "rows": [row.to_json() for row in self.rows], "differences": self.differences()}


@dataclass(frozen=True)
class FineTuneTable:
    """Accuracy by number of labels: with the pretrained encoder and with random weights."""

    data: str
    """The source of the labeled images, without its split."""
    chance: float
    """Fraction of the most frequent class of the test images."""
    test: int
    """Labeled test images."""
    repeated: str
    """The kind of repetitions: "seeds" or "draws"."""
    size: int
    """Side of the views in pixels."""
    settings: Mapping[str, object]
    results: tuple[LabelResult, ...]
    note: str = ""
    overlap: int | None = None
    """Number of test images that were part of pretraining (without their labels); None if unknown."""
    labels: Tensor | None = field(default=None, compare=False, repr=False)
    """(n,) int64, of the test images."""
    test_ids: Tensor | None = field(default=None, compare=False, repr=False)
    """(n,) int64 digests of the test images, see `Source.content_ids`."""

    def crossing(self) -> Crossing | None:
        """Where the curve of the pretrained encoder falls below training from scratch; None without two points."""
        names = [row.name for row in self.results[0].rows]
        if len(self.results) < 2 or FROM_SCRATCH not in names[1:]:
            return None
        other = names.index(FROM_SCRATCH)
        return find_crossing(
            (names[0], FROM_SCRATCH),
            [(result.name, result.images) for result in self.results],
            [result.rows[0].correct for result in self.results],
            [result.rows[other].correct for result in self.results],
        )

    def to_json(self) -> dict[str, object]:
        """Plain values, as stored in `finetune/*.json` and printed by `--json`."""
        values = {name: value for name, value in vars(self).items() if name not in ("results", "labels", "test_ids")}
        crossing = self.crossing()
        return {
            **values,
            "metric": "accuracy",
            "results": [result.to_json() for result in self.results],
            "crossing": crossing.to_json() if crossing else None,
        }

    def npz(self) -> bytes:
        """The content of `finetune/*.npz`: "RESULT/ROW" (repetitions, n) bool, labels (n,) and test_ids (n,)."""
        arrays = {f"{result.name}/{row.name}": row.correct.numpy() for result in self.results for row in result.rows}
        empty, file = torch.zeros(0, dtype=torch.int64), io.BytesIO()
        for name, tensor in (("labels", self.labels), ("test_ids", self.test_ids)):
            arrays[name] = (empty if tensor is None else tensor).numpy()
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # names are not those of its own parameters
        return file.getvalue()


def accuracy_interval(correct: Tensor) -> tuple[float, float]:
    """The 95 % interval of an accuracy, over test images and repetitions.

    Two images that are classified correctly and two that are not are added (Agresti and Coull, "Approximate is better
    than 'exact' for interval estimation of binomial proportions", The American Statistician 52, 1998).

    Args:
        correct: (r, n) bool.
    """
    added = torch.tensor([True, True, False, False]).expand(len(correct), 4)
    whole = torch.cat([correct, added], 1).double()
    by_image, count = whole.mean(0), whole.shape[1]
    parts = [(float(by_image.var(correction=0)) / count, count - 5)]
    if len(whole) > 1:
        parts.append((float(correct.double().mean(1).var()) / len(correct), len(correct) - 1))
    center, margin = float(by_image.mean()), half_width(parts)
    return max(center - margin, 0.0), min(center + margin, 1.0)


def spread_over(count: int, repeated: str) -> str:
    """The meaning of each ±, for a number of "seeds" or "draws"."""
    return f"Mean ± standard deviation over {count} {repeated}." if count > 1 else f"One {repeated.removesuffix('s')}."


def render(table: FineTuneTable) -> Table:
    """The table for the terminal: one row for each number of labels and way to train."""
    places = digits(table.test)
    out = Table(
        title=f"Top-1 accuracy on {table.test:,} test images of {Path(table.data).name}",
        caption="\n".join(_captions(table)),
        caption_justify="left",
    )
    out.add_column("labels")
    out.add_column("training")
    for heading in ("accuracy", "95 % interval", "difference", "95 % interval"):
        out.add_column(heading, justify="right")
    for result in table.results:
        differences: Sequence[Mapping[str, object]] = [{}, *result.differences()]
        for number, (row, difference) in enumerate(zip(result.rows, differences, strict=True)):
            out.add_row("" if number else result.name, *_cells(row.to_json(), difference, places))
        out.add_section()
    out.add_row("chance", "", f"{table.chance:.{places}f}")
    return out


def _cells(row: Mapping[str, object], difference: Mapping[str, object], places: int) -> list[str]:
    std = "" if row["std"] is None else f" ± {row['std']:.{places}f}"
    compared = ["", ""]
    if difference:
        bounds = f"{difference['low']:+.{places}f} to {difference['high']:+.{places}f}"
        compared = [f"{difference['value']:+.{places}f}", bounds]
    interval = f"{row['low']:.{places}f} to {row['high']:.{places}f}"
    return [str(row["name"]), f"{row['accuracy']:.{places}f}{std}", interval, *compared]


def _captions(table: FineTuneTable) -> list[str]:
    first = table.results[0].rows[0]
    count = len(first.repetitions)
    spread = spread_over(count, table.repeated)
    steps = ", ".join(f"{result.steps:,}" for result in table.results if result.steps is not None)
    paired = f"test image and {table.repeated[:-1]}" if count > 1 else "test image"
    sets = "" if table.repeated == "draws" and count > 1 else " and between sets of labeled images"
    lines = [
        f"{spread} Difference: {first.name} minus the row, paired by {paired}; variation between pretraining "
        f"runs{sets} is not included.",
        "Learning rate and step are chosen on validation images, which are among the labels."
        f" Steps of each training: {steps}." if steps else "",
        crossing.sentence if (crossing := table.crossing()) else "",
        table.note,
        overlap_warning(table.overlap, table.test),
    ]  # fmt: skip
    return [line for line in lines if line]
