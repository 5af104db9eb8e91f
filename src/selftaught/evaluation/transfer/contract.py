"""Base class of detection and segmentation: a task of the training loop, predictions and metrics."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selftaught.contracts import Encoder, Task
from selftaught.data.annotated.source import AnnotatedSource

Predictions = dict[str, NDArray[np.generic]]
"""What is kept of the predictions on all images of a source, by name."""

AnySource = TypeVar("AnySource", bound=AnnotatedSource)
EXAMPLES = 2
"""Test images that are drawn."""
PREDICTED = 8
"""Images per batch of predictions."""


class Transfer(ABC, Generic[AnySource]):
    """One way to transfer an encoder."""

    name: ClassVar[str]
    metrics: ClassVar[Mapping[str, str]]
    """Metrics by name in JSON, with their headings; the first one chooses the learning rate and the step."""

    @abstractmethod
    def task(self, size: int, freeze_until: str | None) -> Task:
        """The supervised task that trains the encoder."""

    @abstractmethod
    def predict(self, encoder: Encoder, heads: nn.ModuleDict, source: AnySource, device: torch.device) -> Predictions:
        """Predictions on the whole images of a source, in eval mode and float32."""

    @abstractmethod
    def score(self, predictions: Predictions, source: AnySource) -> dict[str, float]:
        """The metrics of predictions."""

    @abstractmethod
    def by_class(self, predictions: Predictions, source: AnySource) -> tuple[float | None, ...]:
        """The first metric of every class; None for a class without annotations."""

    @abstractmethod
    def examples(self, predictions: Predictions, source: AnySource) -> Tensor | None:
        """The first `EXAMPLES` images with what is predicted drawn on them; None if it was not kept.

        Returns:
            (n, 3, S, S) in [0, 1].
        """

    @abstractmethod
    def annotated(self, source: AnySource) -> Tensor:
        """The same images with their annotations."""

    @abstractmethod
    def resampled(self, predictions: Predictions, source: AnySource, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """The first metric on resampled images.

        Args:
            predictions: on the images of the source.
            source: N images.
            counts: (R, N), how often each image is in each of R samples.

        Returns:
            (R,); NaN where the sample has no object of any class.
        """
