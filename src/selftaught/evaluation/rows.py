"""The rows of the table of a probe, and the correctness of every test image."""

import io
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LayerRow:
    """One layer. Accuracies are fractions, 0 to 1; standard deviations are sample ones, None for a single value."""

    layer: str
    accuracy: float
    """Mean over the probe seeds."""
    std: float | None
    """Over the probe seeds."""
    held_out: float
    """Accuracy on the held-out training images, used to choose the best layer."""
    random: float
    """Mean accuracy of random weights over the initializations."""
    random_std: float | None
    """Over the initializations."""
    random_held_out: float
    dimensions: int
    penalty: float | None
    metrics: dict[str, float] = field(default_factory=dict)
    """Further metrics on the test images, by name, see `LayerMetrics.numbers`; means over the probe seeds."""
    random_metrics: dict[str, float] = field(default_factory=dict)
    """The same for random weights; means over the initializations."""


@dataclass(frozen=True)
class BaselineRow:
    """The best layer of an encoder that was not pretrained, chosen by held-out accuracy; accuracies are 0 to 1."""

    name: str
    """Its name in `selftaught baseline`."""
    title: str
    layer: str
    accuracy: float
    held_out: float
    dimensions: int
    metrics: dict[str, float] = field(default_factory=dict)
    """See `LayerRow.metrics`."""
    correct: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_), compare=False, repr=False)
    """(n,): whether each test image is classified correctly."""

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {name: value for name, value in vars(self).items() if name != "correct"}


@dataclass(frozen=True)
class Correctness:
    """Which test images were classified correctly, so that two results on the same images can be compared."""

    layers: tuple[str, ...]
    trained: NDArray[np.bool_]
    """(probe seeds, layers, n)."""
    random: NDArray[np.bool_]
    """(initializations, layers, n)."""
    pixels: NDArray[np.bool_]
    """(n,)."""
    baselines: NDArray[np.bool_]
    """(baselines, n), each at its best layer, in the order of `ProbeTable.baselines`."""
    labels: NDArray[np.int64]
    """(n,)."""
    test_ids: NDArray[np.int64]
    """(n,) digests of the test images, see `Source.content_ids`; empty if unknown."""

    def npz(self) -> bytes:
        """The content of `probes/*.npz`."""
        file = io.BytesIO()
        np.savez_compressed(file, **{**vars(self), "layers": np.array(self.layers)})
        return file.getvalue()
