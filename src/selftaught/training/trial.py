"""Steps on a copy of everything, to measure them: the run itself is not touched."""

from copy import deepcopy
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

import torch

from selftaught.contracts import Outcome
from selftaught.training.loop import Mark, Pretraining, Trainer
from selftaught.training.randomness import derived

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Trial:
    """Trains copies of the encoder and the heads, one step at a time."""

    def __init__(self, pretraining: Pretraining, fabric: "Fabric", compiled: bool) -> None:
        self.fabric = fabric
        self.run = replace(
            pretraining, encoder=deepcopy(pretraining.encoder), heads=deepcopy(pretraining.heads), steps=1
        )
        self.trainer = Trainer(fabric, self.run, compiled)
        first = self._before_epoch()
        # A bank is filled once, clusters are found every time: what a second call takes is what every epoch takes.
        self.before_epoch_seconds = self._before_epoch() if first > 0.1 else first
        self.once_seconds = max(0.0, first - self.before_epoch_seconds)

    def _before_epoch(self) -> float:
        begun, run = monotonic(), self.run
        run.encoder.eval(), run.heads.eval()
        with torch.no_grad():
            run.task.before_epoch(run.encoder, run.heads, run.source, torch.Generator().manual_seed(0))
        return monotonic() - begun

    def step(self, number: int, mark: Mark | None = None) -> Outcome:
        """Fetch a batch, make views, train on them: what the loop does, each part after the other."""
        run, mark = self.run, mark or (lambda part: None)
        run.encoder.train(), run.heads.train()
        indices = (torch.arange(run.batch_size) + number * run.batch_size) % len(run.source)
        batch = run.source.batch(indices, self.fabric.device)
        mark("images")
        views = run.task.views(batch, torch.Generator().manual_seed(derived(run.seed, "trial", number)))
        mark("views")
        return self.trainer.step(views, run.optimization.warmup, mark)
