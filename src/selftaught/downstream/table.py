"""The table that a probe makes: for programs as JSON, for people as lines."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rich.table import Table

SEEN = "Pretraining saw the images that judge here, as it had no labels to set a part aside by."
RECALIBRATED = "Pretraining showed tiles, so batch statistics were set anew on whole training images."


@dataclass(frozen=True)
class Row:
    """One layer. Shares of the test images, 0 to 1; spreads are sample standard deviations, None of fewer than two."""

    layer: str
    accuracy: float
    std: float | None
    random: float
    random_std: float | None
    dimensions: int
    penalty: float | None


@dataclass(frozen=True)
class ProbeTable:
    """What every layer of an encoder lets a linear classifier read."""

    data: str
    chance: float
    """The share of the most frequent class of the test images: what always answering with it would score."""
    pixels: float
    layers: tuple[Row, ...]
    spread: str
    """What the standard deviations are over, in words."""
    train: int
    """Labelled images that taught the probe."""
    test: int
    """Labelled images that judged it."""
    protocol: str
    dimensions: int
    """The most numbers that a layer was pooled to."""
    seeds: int
    recalibrated: bool = False
    """Whether the trained encoder's batch statistics were set anew on whole images, since pretraining showed tiles."""
    seen: bool = False
    """Whether the test images were among those of pretraining (without their labels)."""

    @property
    def best(self) -> Row:
        """The layer that is read best."""
        return max(self.layers, key=lambda row: row.accuracy)

    @property
    def setting(self) -> tuple[object, ...]:
        """What two tables must share for the random weights of one to be a baseline of the other."""
        shapes = tuple((row.layer, row.dimensions) for row in self.layers)
        return self.data, self.chance, self.train, self.test, self.protocol, self.dimensions, self.seeds, shapes

    def to_json(self) -> dict[str, object]:
        """Plain values; `probes/*.json` holds this object and `--json` prints it."""
        return {
            "data": self.data,
            "metric": "accuracy",
            "chance": self.chance,
            "pixels": self.pixels,
            "layers": [
                {
                    "layer": row.layer,
                    "accuracy": row.accuracy,
                    "std": row.std,
                    "random": row.random,
                    "random_std": row.random_std,
                    "dimensions": row.dimensions,
                    "lambda": row.penalty,
                }
                for row in self.layers
            ],
            "spread": self.spread,
            "train": self.train,
            "test": self.test,
            "protocol": self.protocol,
            "dimensions": self.dimensions,
            "seeds": self.seeds,
            "recalibrated": self.recalibrated,
            "seen": self.seen,
        }


def from_json(found: Mapping[str, Any]) -> ProbeTable:
    """The table that `to_json` wrote."""
    renamed = {"lambda": "penalty"}
    rows = tuple(Row(**{renamed.get(key, key): value for key, value in row.items()}) for row in found["layers"])
    kept = {field.name: found[field.name] for field in fields(ProbeTable) if field.name in found}
    return ProbeTable(**{**kept, "layers": rows})


def mean_and_spread(values: list[float]) -> tuple[float, float | None]:
    """The mean and the sample standard deviation, None for one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def render(table: ProbeTable) -> Table:
    """The table as rich prints it: layers first, then what they must be held against."""
    out = Table(
        title=f"{table.protocol} probe of {table.data}: share of {table.test:,} test images read rightly",
        caption=" ".join([table.spread, *[RECALIBRATED] * table.recalibrated, *[SEEN] * table.seen]),
        caption_justify="left",
    )
    out.add_column("layer")
    for heading in ("accuracy", "random weights", "gain", "dimensions"):
        out.add_column(heading, justify="right")
    for row in table.layers:
        style = "bold" if row is table.best else None
        numbers = _number(row.accuracy, row.std), _number(row.random, row.random_std)
        out.add_row(row.layer, *numbers, f"{row.accuracy - row.random:+.3f}", str(row.dimensions), style=style)
    out.add_section()
    out.add_row("raw pixels", _number(table.pixels, None))
    out.add_row("chance", _number(table.chance, None))
    return out


def _number(value: float, spread: float | None) -> str:
    return f"{value:.3f}" if spread is None else f"{value:.3f} ± {spread:.3f}"
