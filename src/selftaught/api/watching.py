"""Callbacks at the log lines of a pretraining: example images are saved, features measured, collapses reported."""

from collections.abc import Mapping
from typing import Any

import torch
from rich.console import Console

from selftaught.api.samples import example_saver
from selftaught.config.build import STORAGE_SCALE
from selftaught.contracts import Source
from selftaught.data.sources import open_source
from selftaught.data.storage import Storage
from selftaught.errors import UserError
from selftaught.evaluation.knn_monitor import KNNMonitor
from selftaught.evaluation.monitor import FeatureMonitor
from selftaught.runs.folder import RunFolder
from selftaught.training.loop import Pretraining

MONITORED = 20_000
"""Maximum number of images of a monitored source that are decoded; a random part of them is used."""


def open_monitored(name: str | None, size: int, download: bool, storage: Storage = "auto") -> Source | None:
    """The labeled training images of `--monitor`, if there are any.

    Args:
        name: name or path of the source.
        size: side of the views in pixels.
        download: whether a data set may be downloaded.
        storage: how its images are stored.

    Raises:
        UserError: the source cannot be opened or has no labels.
    """
    if name is None:
        return None
    try:
        source = open_source(
            name, side=round(STORAGE_SCALE * size), limit=MONITORED, download=download, storage=storage
        )
    except UserError as error:
        raise UserError(f"cannot use --monitor: {error}") from error
    if source.classes is None or len(source.classes) < 2:
        raise UserError(
            f"--monitor needs images of at least 2 classes, but {source.name} has "
            f"{'no labels' if source.classes is None else 'one class'}: choose another source."
        )
    return source


class Watchers:
    """All callbacks of a run as one, see `training.loop.Watch`.

    Args:
        folder: where example images are saved.
        run: the run, whose encoder still has its initial weights.
        every: number of steps between two log lines.
        device: where the encoder is.
        console: where a collapse is reported.
        knn: measures the k-NN accuracy, or None.
    """

    def __init__(
        self,
        folder: RunFolder,
        run: Pretraining,
        every: int,
        device: torch.device,
        console: Console,
        knn: KNNMonitor | None,
    ) -> None:
        self.save = example_saver(folder, run, every)
        self.monitors: list[FeatureMonitor | KNNMonitor] = [
            FeatureMonitor(run, every, device, console),
            *([knn] if knn else []),
        ]

    def __call__(self, *state: Any) -> Mapping[str, float]:
        """Values to log."""
        self.save(*state)
        return {name: value for monitor in self.monitors for name, value in monitor(*state).items()}
