"""Trial steps on copies of encoder and heads, for measurements that leave the run unchanged."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from selftaught.contracts import Outputs
from selftaught.errors import UserError
from selftaught.modules.processes import own, processes
from selftaught.training.loop import Mark, Pretraining, Trainer
from selftaught.training.parts import make_views, view_generator
from selftaught.training.randomness import derive_seed, seeded_rng

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Trial:
    """Trains copies of the encoder and the heads, one step at a time."""

    def __init__(self, pretraining: Pretraining, fabric: "Fabric", compiled: bool) -> None:
        self.fabric = fabric
        self.run = replace(
            pretraining, encoder=deepcopy(pretraining.encoder), heads=deepcopy(pretraining.heads), steps=1
        )
        with self._seeded():
            self.trainer = Trainer(fabric, self.run, compiled)
        first = self._before_epoch()
        # A bank is filled once, clustering is repeated: the time of a second call is that of every epoch.
        self.before_epoch_seconds = self._before_epoch() if processes().first(lambda: first > 0.1) else first
        self.once_seconds = max(0.0, first - self.before_epoch_seconds)

    def _seeded(self, number: int = 0) -> AbstractContextManager[None]:
        return seeded_rng(self.run.seed, "trial", number, self.fabric.device)

    def _before_epoch(self) -> float:
        begun, run = monotonic(), self.run
        run.encoder.eval(), run.heads.eval()
        with self._seeded(), torch.no_grad():
            run.task.before_epoch(run.encoder, run.heads, run.source, torch.Generator().manual_seed(0))
        return monotonic() - begun

    def step(self, number: int, mark: Mark | None = None) -> Outputs:
        """Fetch a batch, make views and train on them, as the loop does but without prefetching."""
        run, mark = self.run, mark or (lambda part: None)
        run.encoder.train(), run.heads.train()
        indices = (torch.arange(run.batch_size) + number * run.batch_size) % len(run.source)
        batch = run.source.batch(own(indices), self.fabric.device)
        mark("images")
        views = make_views(run.task, batch, view_generator().manual_seed(derive_seed(run.seed, "trial", number)))
        mark("views")
        with self._seeded(number):
            return self.trainer.step(views, run.optimization.warmup, mark)


def require_batch_norm_inputs(pretraining: Pretraining, fabric: "Fabric") -> None:
    """Check that no batch norm gets a single value per channel, whose variance would be 0.

    With one image per step this depends on the task (some make several views of an image) and on the size of the
    feature maps, so a trial step is taken; with more images it cannot happen.

    Raises:
        UserError: the batch is too small.
    """
    if pretraining.batch_size > 1:
        return
    trial = Trial(pretraining, fabric, False)
    for name, module in [*trial.run.encoder.named_modules(), *trial.run.heads.named_modules()]:
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(_require_several_values(name))
    trial.step(0)


def _require_several_values(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def require(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training and inputs[0].numel() == inputs[0].shape[1]:
            raise UserError(
                f"batch norm (in {name}) needs more than one view per step; increase --batch-size, or use more images."
            )

    return require
