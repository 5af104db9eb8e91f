"""The probe contract: classifiers on the frozen features of every layer, trained on some images and scored on others.

Part of the training images is held out. The held-out accuracy chooses hyperparameters and the best layer; the test
images choose nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from selftaught.contracts import Encoder, Source
from selftaught.errors import UserError
from selftaught.evaluation.features import DIMENSIONS, Viewing

HELD_OUT = 5000
"""The most images held out: with these, choices whose accuracy differs by half a percent can be told apart."""

OnProgress = Callable[[str, int], None]
"""Called with the current phase and the number of images that were processed since the last call."""


@dataclass(frozen=True)
class ProbeResult:
    """How well a classifier on one layer does."""

    correct: Tensor
    """(n,) bool on the CPU: whether each labeled test image was classified correctly, in the order of the source."""
    held_out: float
    """Accuracy on the held-out training images, 0 to 1."""
    dimensions: int
    """Size of the pooled feature."""
    penalty: float | None = None
    """The regularization chosen on the held-out images, where there is one."""

    @property
    def accuracy(self) -> float:
        """Fraction of the test images, 0 to 1."""
        return float(self.correct.double().mean())


class Probe(ABC):
    """A kind of probe. Subclasses are frozen dataclasses of hyperparameters: their repr is part of cache keys."""

    dimensions: ClassVar[int] = DIMENSIONS
    """Default size that features are pooled to, at most."""
    deterministic: ClassVar[bool] = False
    """Whether the test accuracy does not depend on the seed."""
    zoom: ClassVar[float] = 1.0
    """Side of the stored images over that of the views, where the images are large enough."""
    epochs: int = 1
    """Passes over the training images."""

    @abstractmethod
    def evaluate(
        self, encoder: Encoder, train: Source, test: Source, viewing: Viewing, seed: int, on_progress: OnProgress
    ) -> dict[str, ProbeResult]:
        """Probe every layer.

        Args:
            encoder: on the device; left in eval mode, its weights unchanged.
            train: labeled images; `held_out` ones are used for choices only.
            test: labeled images of the same classes, used once, after everything was chosen.
            viewing: preprocessing and pooling.
            seed: of the held-out images and of everything else that is random.
            on_progress: see `OnProgress`.

        Returns:
            Layer -> result, in the encoder's order.

        Raises:
            UserError: labels are missing, or too few.
        """

    def note(self, side: int, size: int) -> str:
        """What a reader of the table must know about the views, or nothing.

        Args:
            side: of the stored training images, in pixels.
            size: of the views, in pixels.
        """
        return ""

    def window(self, side: int, size: int) -> float:
        """Side of a test view as a fraction of the image: 1 is the whole image; arguments as for `note`."""
        return 1.0


def held_out(count: int, seed: int) -> Tensor:
    """Which of the training images are held out: (count,) bool, a tenth of them, `HELD_OUT` at most."""
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: min(HELD_OUT, -(-count // 10))]
    return torch.zeros(count, dtype=torch.bool).index_fill_(0, chosen, True)


def require_training_images(learning: int, held: int, train: Source) -> None:
    """Refuse a source that has labels only for the images that are held out, or only for the others.

    Raises:
        UserError: one of the two numbers of labeled images is 0.
    """
    if not learning or not held:
        raise UserError(
            f"a probe needs labeled images to train on and others to hold out, but {train.name} has {learning + held} "
            "in all: label more, or raise --limit."
        )


def require_test_images(count: int, test: Source) -> int:
    """The number of labeled test images.

    Raises:
        UserError: it is 0.
    """
    if not count:
        raise UserError(f"a probe needs labeled test images, but {test.name} has none: label some.")
    return count
