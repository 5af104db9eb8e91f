"""The rows of the table of a probe, and what intervals of their differences are computed from."""

import io
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from selftaught.evaluation.intervals import Measured


@dataclass(frozen=True)
class LayerRow:
    """One layer.

    The metric is top-1 accuracy or mAP, 0 to 1; standard deviations are sample ones, None for a single value.
    """

    layer: str
    value: float
    """The metric, mean over the probe seeds."""
    std: float | None
    """Over the probe seeds."""
    held_out: float
    """The metric on the held-out training images, used to choose the best layer."""
    random: float
    """The metric of random weights, mean over the initializations."""
    random_std: float | None
    """Over the initializations."""
    random_held_out: float
    dimensions: int
    penalty: float | None
    metrics: dict[str, float] = field(default_factory=dict)
    """Further metrics on the test images, by name, see `Metrics.numbers`; means over the probe seeds."""
    random_metrics: dict[str, float] = field(default_factory=dict)
    """The same for random weights; means over the initializations."""


@dataclass(frozen=True)
class BaselineRow:
    """The best layer of an encoder that was not pretrained, chosen by the metric on held-out images."""

    name: str
    """Its name in `selftaught baseline`."""
    title: str
    layer: str
    value: float
    """The metric on the test images."""
    held_out: float
    dimensions: int
    metrics: dict[str, float] = field(default_factory=dict)
    """See `LayerRow.metrics`."""
    layers: tuple[str, ...] = ()
    """The best layer and those that held-out images do not show to be worse, from the first to the last."""
    difference: dict[str, float] | None = None
    """The best layer of the probed encoder minus this row: `value`, and the ends `low` and `high` of the 95 % interval,
    paired over test images. It covers all layers that held-out images leave possible, on either side."""
    choices: tuple[Measured, ...] = field(default=(), compare=False, repr=False)
    """The metric on the test images at each of `layers`, the best one first."""

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {name: value for name, value in vars(self).items() if name != "choices"}


@dataclass(frozen=True)
class Observations:
    """What the intervals of two results on the same test images are computed from.

    For accuracy m is the number n of test images, and values say whether each is classified correctly. For mAP m is the
    number of bootstrap samples of the test images, and values are mAP on each.
    """

    layers: tuple[str, ...]
    trained: NDArray[np.generic]
    """(probe seeds, layers, m)."""
    random: NDArray[np.generic]
    """(initializations, layers, m)."""
    pixels: NDArray[np.generic]
    """(m,)."""
    baselines: NDArray[np.generic]
    """(baselines, m), each at its best layer, in the order of `ProbeTable.baselines`."""
    trained_values: NDArray[np.float64]
    """(probe seeds, layers): the metric."""
    random_values: NDArray[np.float64]
    """(initializations, layers)."""
    labels: NDArray[np.int64] | NDArray[np.int8]
    """(n,), or (n, k) where images may have several classes."""
    test_ids: NDArray[np.int64]
    """(n,) digests of the test images, see `Source.content_ids`; empty if unknown."""

    def npz(self) -> bytes:
        """The content of `probes/*.npz`."""
        file = io.BytesIO()
        np.savez_compressed(file, **{**vars(self), "layers": np.array(self.layers)})
        return file.getvalue()
