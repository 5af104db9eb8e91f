"""Rows of a probe for encoders that were not pretrained: k-means, PCA and scattering, beside random weights and pixels.

By default k-means initialization and scattering are included, where they apply and are cheap compared with the probe
itself. Their time is estimated from a few images and matrix products before; results that are cached cost nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter, process_time

import torch
from torch import Tensor, nn

from selftaught.augment.warp import identity
from selftaught.contracts import Encoder, evenly_spaced
from selftaught.encoders import make_encoder
from selftaught.errors import NotApplicable, unknown
from selftaught.evaluation.baselines import FIXED, prepare, title
from selftaught.evaluation.baselines.cache import state_digest
from selftaught.evaluation.baselines.kmeans_init import PATCHES
from selftaught.evaluation.evaluator import Evaluator, pass_length
from selftaught.evaluation.gain import best_layer
from selftaught.evaluation.metrics import Metrics
from selftaught.evaluation.rows import BaselineRow
from selftaught.training.distributed import from_first

EXTRA = ("kmeans", "pca", "scattering")
"""Baselines that a probe may have; it always has random weights and raw pixels."""
DEFAULT = ("kmeans", "scattering")
"""Those that it has by default where they are cheap; PCA initialization is a variant of k-means."""
ALL, NONE = "all", "none"
SECONDS, PASSES = 60.0, 2.0
"""A default baseline may take this long, or as long as this number of passes of the probed encoder over the images."""
TIMED = 16
"""Images on which a pass is timed."""


@dataclass(frozen=True)
class Selection:
    """The baselines of a probe."""

    names: tuple[str, ...]
    required: bool = False
    """Whether one that does not apply is an error; it is left out otherwise."""
    cheap: bool = False
    """Whether expensive ones are left out."""


def select(given: Sequence[str] | None) -> Selection:
    """The requested baselines.

    Args:
        given: None for those of `DEFAULT` that are cheap; names of `EXTRA`; "all" for those that apply; "none" or
            nothing for none.

    Raises:
        UserError: there is no such baseline.
    """
    if given is None:
        return Selection(DEFAULT, cheap=True)
    names = tuple(dict.fromkeys(given))
    if names == (NONE,):
        return Selection(())
    if names == (ALL,):
        return Selection(EXTRA)
    for name in names:
        if name not in EXTRA:
            raise unknown("further baseline of a probe", name, (*EXTRA, ALL, NONE) if len(names) == 1 else EXTRA)
    return Selection(names, required=True)


@dataclass(frozen=True)
class Baselines:
    """Computes the rows, or finds them in the cache.

    Args:
        evaluation: the probe and its images.
        fresh: seed -> the probed encoder with random weights, which "kmeans" and "pca" initialize from images.
        setting: the settings from which `fresh` builds the encoder; None disables the cache.
    """

    evaluation: Evaluator
    fresh: Callable[[int], Encoder]
    setting: Mapping[str, object] | None

    def rows(self, selection: Selection) -> tuple[tuple[BaselineRow, ...], tuple[str, ...]]:
        """The rows, and for each baseline that is left out a sentence that says why.

        Raises:
            NotApplicable: a required baseline does not apply to this encoder.
        """
        found, left_out = [], []
        for name in selection.names:
            try:
                found.append(self.row(name, selection.cheap))
            except NotApplicable as error:
                if selection.required:
                    raise
                left_out.append(f"{title(name).capitalize()} is left out: {error}")
                self.evaluation.skip()
        return tuple(found), tuple(left_out)

    def row(self, name: str, cheap: bool = False) -> BaselineRow:
        """The best layer of a baseline, by the metric on held-out images, with seed 0.

        Args:
            name: of `EXTRA`; "scattering" has the input preprocessing of the probed encoder.
            cheap: whether to refuse an expensive one that is not cached.

        Raises:
            NotApplicable: the baseline does not apply to this encoder, or is too expensive.
        """
        probed, evaluation = self.fresh(0), self.evaluation
        encoder, setting = probed, self.setting
        if name in FIXED:
            encoder = make_encoder(name, size=evaluation.viewing.size, input_mode=probed.input_mode)
            setting = {"name": name, "input_mode": probed.input_mode}
        key = {"encoder": setting, "baseline": name, "modules": repr(encoder), "weights": state_digest(encoder)}
        cached = setting is not None and evaluation.cache.has(key)
        if cheap and not from_first(lambda: cached):
            self._require_cheap(name, encoder, probed)

        def compute() -> dict[str, Metrics]:
            viewing = evaluation.viewing
            window = evaluation.probe.window(evaluation.train.side, viewing.size)
            prepare(name, encoder, evaluation.train, viewing.size, viewing.device, seed=0, window=window)
            return evaluation(encoder, 0, title(name))

        results = compute() if setting is None else evaluation.cached(key, compute)
        layer = best_layer([results])
        best = results[layer]
        return BaselineRow(
            name, title(name), layer, best.value, best.held_out, best.dimensions, best.numbers(), best.observations
        )

    def _require_cheap(self, name: str, encoder: Encoder, probed: Encoder) -> None:
        """Raise `NotApplicable` for a baseline whose estimated time is above the limit."""
        images = pass_length(self.evaluation.probe, self.evaluation.train, self.evaluation.test)

        def estimate() -> tuple[float, float]:
            own = images * self._seconds_per_image(probed)
            if name in FIXED:
                return images * self._seconds_per_image(encoder), own
            return own + initialization_seconds(encoder), own

        seconds, own = from_first(estimate)
        if seconds > max(SECONDS, PASSES * own):
            raise NotApplicable(f"it would take about {_duration(seconds)}; --baselines {name} adds it.")

    def _seconds_per_image(self, encoder: Encoder) -> float:
        """Time of a forward pass."""
        viewing, train = self.evaluation.viewing, self.evaluation.train
        batch = train.batch(evenly_spaced(TIMED, len(train)), viewing.device)
        moved = encoder.to(viewing.device).eval()

        def forward() -> None:
            last: Tensor = list(moved.features(moved.preprocess(images)).values())[-1]
            last.flatten()[0].item()  # waits for the device

        with torch.inference_mode():
            images = batch.warp(identity(len(batch)), viewing.size)
            return _seconds(forward) / len(batch)


def initialization_seconds(encoder: nn.Module) -> float:
    """Estimated time of k-means initialization: Gram matrices, eigenvectors and centroids of all layers, see there."""
    operations = 0.0
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            filters, size = len(module.weight), module.weight[0].numel()
            operations += 2 * PATCHES * size**2 + 20 * size**3 + 40 * PATCHES * filters * min(filters, size)
    side = 512
    matrix = torch.ones(side, side, dtype=torch.float64)
    return operations * _seconds(lambda: matrix @ matrix) / (2 * side**3)


def _seconds(work: Callable[[], object]) -> float:
    """Seconds that the second of two calls takes, without the time in which other programs had the processor."""
    work()
    start, used = perf_counter(), process_time()
    work()
    return min(perf_counter() - start, process_time() - used)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} minutes"
