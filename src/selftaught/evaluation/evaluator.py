"""Results of one probe for any encoder, on a fixed pair of sources; those of baselines are cached."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from selftaught.contracts import Encoder, Source
from selftaught.display.progress import Meter
from selftaught.encoders.pixels import Pixels
from selftaught.evaluation.baselines.cache import BaselineCache, state_digest
from selftaught.evaluation.baselines.encoders import calibrate
from selftaught.evaluation.features import Viewing, grid
from selftaught.evaluation.metrics import Metrics, measure
from selftaught.evaluation.multilabel import measure_multilabel
from selftaught.evaluation.probes import Probe
from selftaught.modules.processes import processes
from selftaught.training.distributed import from_first


@dataclass(frozen=True)
class Evaluator:
    """Applies one probe to encoders, on a fixed pair of sources."""

    probe: Probe
    train: Source
    test: Source
    viewing: Viewing
    cache: BaselineCache
    meter: Meter

    def __call__(self, encoder: Encoder, seed: int, name: str) -> dict[str, Metrics]:
        """Probe every layer; `name` labels the progress. Returns layer -> result."""

        def on_progress(phase: str, images: int) -> None:
            self.meter.advance(images, f"{name}: {phase}")

        # With channels last, features and pooling of a convnet took 0.55 of the time (1,280 images, one thread).
        moved = encoder.to(self.viewing.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # The weights of a baseline were computed in every process, on GPUs only up to rounding.
        processes().copy_first(moved.state_dict().values())
        if processes().rank:
            self.probe.assist(moved, self.train, self.test, self.viewing, seed)

        def evaluated() -> dict[str, Metrics]:
            results = self.probe.evaluate(moved, self.train, self.test, self.viewing, seed, on_progress)
            several = "multilabel" in self.train.targets
            return {layer: (measure_multilabel if several else measure)(result) for layer, result in results.items()}

        return from_first(evaluated)

    def calibrate(self, encoder: Encoder) -> bool:
        """Recompute batch-norm statistics on training images, framed as test views; see `calibrate`."""
        size, device = self.viewing.size, self.viewing.device
        window = self.probe.window(self.train.side, size)
        return calibrate(encoder.to(device), self.train, size, device, window=window)

    def pixels(self) -> Metrics:
        """The result of raw pixels."""
        side = grid(3, self.viewing.size, self.viewing.dimensions)
        results = self.cached({"encoder": "pixels"}, lambda: self(Pixels(pooled_side=side), 0, "raw pixels"))
        return results["pixels"]

    def random(self, encoder: Encoder, setting: Mapping[str, object] | None) -> dict[str, Metrics]:
        """The results of one encoder with random weights, always with probe seed 0."""

        def compute() -> dict[str, Metrics]:
            self.calibrate(encoder)
            return self(encoder, 0, "random weights")

        if setting is None:
            return compute()
        key = {"encoder": setting, "modules": repr(encoder), "weights": state_digest(encoder)}
        return self.cached(key, compute)

    def cached(self, setting: Mapping[str, object], compute: Callable[[], dict[str, Metrics]]) -> dict[str, Metrics]:
        """A result from the cache, or computed and stored; see `BaselineCache.get`."""
        if self.cache.has(setting):
            self.skip("baselines from the cache")
        return self.cache.get(setting, compute)

    def skip(self, detail: str | None = None) -> None:
        """Advance the progress by the images of an encoder that is not probed."""
        self.meter.advance(pass_length(self.probe, self.train, self.test), detail)


def cache_setting(probe: Probe, train: Source, test: Source, viewing: Viewing) -> dict[str, object]:
    """Everything except the encoder that determines the results of raw pixels and random weights."""
    sources = [[source.fingerprint, len(source), source.side, source.classes] for source in (train, test)]
    views = [viewing.size, viewing.dimensions, viewing.pooling, viewing.batch_size, viewing.device.type]
    return {"sources": sources, "probe": repr(probe), "views": views, "torch": torch.__version__}


def pass_length(probe: Probe, train: Source, test: Source) -> int:
    """Number of images that a probe processes for one encoder."""
    return probe.epochs * len(train) + len(test)
