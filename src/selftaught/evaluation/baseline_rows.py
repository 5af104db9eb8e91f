"""Rows of a probe for encoders that were not pretrained, beside random weights and pixels.

By default k-means initialization, a dictionary of patches and scattering are included, where they apply and are cheap.
That is decided by sizes, those of the encoder and of the images, and not by measured time, so the same command has the
same rows on all machines.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from selftaught.contracts import Encoder
from selftaught.encoders import make_encoder
from selftaught.encoders.preprocess import PREPROCESSORS
from selftaught.errors import NotApplicable, unknown
from selftaught.evaluation.baselines import FIXED, prepare, title
from selftaught.evaluation.baselines.cache import state_digest
from selftaught.evaluation.baselines.kmeans_init import PATCHES
from selftaught.evaluation.evaluator import Evaluator, pass_length
from selftaught.evaluation.gain import at_layers, possible_layers
from selftaught.evaluation.metrics import Metrics
from selftaught.evaluation.rows import BaselineRow

EXTRA = ("kmeans", "pca", "dictionary", "scattering")
"""Baselines that a probe may have; it always has random weights and raw pixels."""
DEFAULT = ("kmeans", "dictionary", "scattering")
"""Those that it has by default where they are cheap; PCA initialization is a variant of k-means."""
ALL, NONE = "all", "none"
MOST_PIXELS = {"dictionary": 2**26, "scattering": 2**24}
"""Default rows for at most this many pixels (images times size squared): 65,536 and 16,384 images of 32 px. A
dictionary takes a quarter of the time of scattering."""
MOST_OPERATIONS = 5e12
"""K-means initialization is one for encoders that need at most this many operations, see `initialization_operations`:
`convnet`, `nin` and `alexnet` do with their default options, ResNets do not."""


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
            name: of `EXTRA`; those of `FIXED` have the input preprocessing of the probed encoder, or color if its input
                are tokens.
            cheap: whether to refuse an expensive one.

        Raises:
            NotApplicable: the baseline does not apply to this encoder, or is too expensive.
        """
        probed, evaluation = self.fresh(0), self.evaluation
        encoder, setting = probed, self.setting
        if name in FIXED:
            input_mode = probed.input_mode if probed.input_mode in PREPROCESSORS else "color"
            encoder = make_encoder(name, size=evaluation.viewing.size, input_mode=input_mode)
            setting = {"name": name, "input_mode": input_mode}
        key = {"encoder": setting, "baseline": name, "modules": repr(encoder), "weights": state_digest(encoder)}
        if cheap:
            self._require_cheap(name, encoder)

        def compute() -> dict[str, Metrics]:
            viewing = evaluation.viewing
            window = evaluation.probe.window(evaluation.train.side, viewing.size)
            if name in FIXED:
                encoder.fit(evaluation.train)
            prepare(name, encoder, evaluation.train, viewing.size, viewing.device, seed=0, window=window)
            return evaluation(encoder, 0, title(name))

        results = compute() if setting is None else evaluation.cached(key, compute)
        layers = possible_layers([results])
        best = results[layers[0]]
        return BaselineRow(
            name=name,
            title=title(name),
            layer=layers[0],
            value=best.value,
            held_out=best.held_out,
            dimensions=best.dimensions,
            metrics=best.numbers(),
            layers=tuple(name for name in results if name in layers),
            choices=tuple(at_layers([results], layers)),
        )

    def _require_cheap(self, name: str, encoder: Encoder) -> None:
        """Raise `NotApplicable` for a baseline that takes long compared with a probe of a small encoder."""
        evaluation = self.evaluation
        images, size = pass_length(evaluation.probe, evaluation.train, evaluation.test), evaluation.viewing.size
        if name in FIXED:
            expensive, why = images * size**2 > MOST_PIXELS[name], f"it is slow for {images:,} images of {size} px"
        else:
            expensive, why = initialization_operations(encoder) > MOST_OPERATIONS, "it is slow for this encoder"
        if expensive:
            raise NotApplicable(f"{why}; --baselines {name} adds it.")


def initialization_operations(encoder: nn.Module) -> float:
    """Operations of k-means initialization: Gram matrices, eigenvectors and centroids of all layers, see there."""
    operations = 0.0
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            filters, size = len(module.weight), module.weight[0].numel()
            operations += 2 * PATCHES * size**2 + 20 * size**3 + 40 * PATCHES * filters * min(filters, size)
    return operations
