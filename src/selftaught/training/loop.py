"""The training loop, independent of the task: it uses only the interfaces in `contracts.py`.

    for each step: batch -> views -> (critic's step) -> step -> after_step; every few steps: log, watch, save

It synchronizes with the device only to write a log line or a checkpoint. Checkpoints are saved by the clock, whether or
not a log line is due: those of a long run are minutes apart. Nothing else depends on the clock, so an interrupted and
resumed run gives the same weights as an uninterrupted one, bit for bit on a CPU.

Several processes take the same steps, each on its part of every batch (see `modules.processes`); the first one logs,
watches and saves. Its clock alone decides when, and since what it saves is the same in every process, the others need
not know: all of them resume from that step.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from selftaught.contracts import Batch, Encoder, EpochUpdate, Outputs, Source, Task, Views
from selftaught.errors import DivergedError, UserError
from selftaught.modules.processes import alone, own, processes
from selftaught.modules.synchronized import synchronize_norms
from selftaught.runs.checkpoint import Checkpoints
from selftaught.training.interruption import Stop
from selftaught.training.log import Log
from selftaught.training.machine import single_threaded_worker
from selftaught.training.optimizer import Optimization, reset_state, set_rate
from selftaught.training.parts import WholeBatch, averaged, make_views, purpose, view_generator
from selftaught.training.randomness import derive_seed, epoch_indices, generator_for, preserve_rng, seeded_rng

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SAVING = 0.05
"""Maximum fraction of the time that is spent on saving checkpoints, which may be large and go to a slow disk."""

Mark = Callable[[str], None]
"""Callback at the end of each part of a step, with the name of the part; used to profile a step."""

Watch = Callable[[int, Encoder, nn.ModuleDict, Views, Outputs], Mapping[str, float] | None]
"""Callback at every log line, with the step, the modules, the last views and what their loss returned; it must not
change the weights. Returns further values to log, if any."""


@dataclass(frozen=True)
class Pretraining:
    """The objects and settings of a pretraining run."""

    task: Task
    encoder: Encoder
    heads: nn.ModuleDict
    source: Source
    optimization: Optimization
    steps: int
    batch_size: int
    """Images of the source per step, at most the size of the source; a task may make several views of each."""
    seed: int
    restarts: tuple[int, ...] = ()
    """Steps after which the learning-rate schedule restarts, ascending and below `steps`."""

    def progress(self, step: int) -> float:
        """The fraction of the current schedule cycle, 0 to 1, evaluated mid-step (so it is never 0 or 1)."""
        bounds = 0, *self.restarts, self.steps
        cycle = bisect_right(self.restarts, step)
        return (step - bounds[cycle] + 0.5) / (bounds[cycle + 1] - bounds[cycle])

    @property
    def has_critic(self) -> bool:
        """Whether a step trains two players, one after the other."""
        return any(group.critic for group in self.task.parameter_groups(self.encoder, self.heads))

    @property
    def steps_per_pass(self) -> int:
        """Number of full batches in the source, at least one."""
        return max(1, len(self.source) // self.batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """Steps between two calls of `before_epoch`, at least one; `Task.epoch` images, by default one pass."""
        return max(1, self.task.epoch(self.source) // self.batch_size)


class Losses(nn.Module):
    """Encoder, heads and both losses as one module, so that gradients can be synchronized between processes."""

    def __init__(self, task: Task, encoder: Encoder, heads: nn.ModuleDict) -> None:
        super().__init__()
        self.task, self.encoder, self.heads = task, encoder, heads

    def forward(self, views: Views, progress: float, of_critic: bool = False) -> tuple[Tensor, Outputs]:
        """The task's loss or critic loss."""
        loss = self.task.critic_loss if of_critic else self.task.loss
        return loss(self.encoder, self.heads, views, progress)


class Trainer:
    """Takes optimizer steps for one player or two (as in adversarial training)."""

    def __init__(self, fabric: "Fabric", pretraining: Pretraining, compile_losses: bool = False) -> None:
        self.fabric, self.optimization = fabric, pretraining.optimization
        self.task, self.encoder, self.heads = pretraining.task, pretraining.encoder, pretraining.heads
        groups = self.task.parameter_groups(self.encoder, self.heads)
        players = [[group for group in groups if group.critic == of_critic] for of_critic in (False, True)]
        losses = Losses(self.task, self.encoder, self.heads).to(memory_format=torch.channels_last)
        optimizers = [self.optimization.build(own) for own in players if own]
        # The weights of each player are fixed here: weights that were frozen when they were built stay frozen.
        self.weights = [[p for group in each.param_groups for p in group["params"]] for each in optimizers]
        if processes().count > 1:
            synchronize_norms(losses)
        if compile_losses:
            losses.compile()
        self.module, *self.optimizers = fabric.setup(losses, *optimizers)

    def step(self, views: Views, progress: float, mark: Mark | None = None) -> Outputs:
        """Take a step of the critic, if there is one, and then of the other parameters, on the same views."""
        mark = mark or (lambda part: None)
        logged: Outputs = {}
        for player in reversed(range(len(self.optimizers))):
            for other, weights in enumerate(self.weights):
                for weight in weights:
                    weight.requires_grad_(other == player)
            optimizer = self.optimizers[player]
            set_rate(optimizer, self.optimization.rate(progress))
            loss, outputs = self.module(views, progress, player == 1)
            mark("forward")
            optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(loss)
            mark("backward")
            optimizer.step()
            mark("optimizer")
            logged |= {"critic_loss" if player == 1 else "loss": loss.detach()}
            logged |= {name: value.detach() for name, value in outputs.items()}
        with torch.no_grad():
            self.task.after_step(self.encoder, self.heads, WholeBatch(views), WholeBatch(logged), progress)
        mark("after step")
        return logged

    def state(self) -> dict[str, Any]:
        """State of encoder, heads (including memory banks) and optimizers."""
        return {
            "encoder": self.encoder.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state`."""
        self.encoder.load_state_dict(state["encoder"])
        self.heads.load_state_dict(state["heads"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
            for weight, buffers in optimizer.state.items():
                tensors = [buffer for buffer in buffers.values() if isinstance(buffer, Tensor)]
                if any(buffer.ndim and buffer.shape != weight.shape for buffer in tensors):
                    raise ValueError("the optimizer state has other shapes than the weights")


def train(
    pretraining: Pretraining,
    trainer: Trainer,
    checkpoints: Checkpoints,
    log: Log,
    *,
    watch: Watch | None = None,
    stop: Stop | None = None,
    save_seconds: float = 60.0,
) -> int:
    """Train from the last checkpoint, or from the start, to the last step or until interrupted.

    Args:
        pretraining: the run.
        trainer: takes its steps.
        checkpoints: where it is resumed from and saved.
        log: where lines are written.
        watch: called at every log line.
        stop: requests a stop after the current step.
        save_seconds: seconds between two checkpoints; more where saving takes more than `SAVING` of the time.

    Returns:
        Number of completed steps of the run.

    Raises:
        DivergedError: the loss or the weights are not finite; the last checkpoint is kept.
    """
    run, stop, first = pretraining, stop or Stop(), processes().rank == 0
    generator = view_generator()
    start, seconds, weights, saved_step = 0, 0.0, None, None
    if (saved := processes().first(checkpoints.load)) is not None:
        try:
            trainer.load(saved)
            start = saved_step = saved["step"]
            seconds = float(saved.get("seconds", 0.0))
            weights = saved["weights"]
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"the checkpoint in {checkpoints.last.parent} does not match this run: restore the checkpoint of this "
                "run, or start a new run in another folder with --out."
            ) from error
    if first:
        log.begin(start, seconds)
    saved_at, wait = monotonic(), save_seconds
    for step, batch, weights in _batches(run, trainer, start, weights):  # noqa: B020 (an epoch may change them)
        views = make_views(run.task, batch, generator.manual_seed(derive_seed(run.seed, "views", step)))
        trainer.encoder.train(), trainer.heads.train()
        progress, done = run.progress(step), step + 1
        with seeded_rng(run.seed, purpose("step"), step, trainer.fabric.device):
            logged = trainer.step(views, progress)
        stopped, last = stop.agreed(), done == run.steps
        if log.due(done) or last:
            logged |= averaged(logged)
            _require_finite(logged, done, saved_step)
        if first and (log.due(done) or last):
            measured = None
            if watch is not None:
                with alone(), preserve_rng(trainer.fabric.device):
                    measured = watch(done, trainer.encoder, trainer.heads, views, logged)
            log.write(done, logged, run.optimization.rate(progress), measured)
        begun = monotonic()
        if first and (stopped or last or begun - saved_at > wait):
            _require_finite({**logged, **dict(trainer.module.named_parameters())}, done, saved_step)
            checkpoints.save({**trainer.state(), "step": done, "seconds": log.elapsed, "weights": weights})
            saved_at, saved_step = monotonic(), done
            wait = max(save_seconds, (saved_at - begun) / SAVING)
        if stopped:
            return done
    return run.steps


def _require_finite(tensors: Mapping[str, Tensor], step: int, saved: int | None) -> None:
    """Raise `DivergedError` if a value to log or save is NaN or infinite.

    Args:
        tensors: logged values and weights, by name.
        step: number of completed steps.
        saved: step of the last checkpoint.
    """
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            value = "NaN" if tensor.isnan().any() else "infinite"
            kept = "there was no checkpoint yet" if saved is None else f"the checkpoint of step {saved:,} was kept"
            raise DivergedError(
                f"{name} became {value} at step {step:,}; {kept}. Start a new run with a lower --learning-rate or "
                "--precision 32."
            )


def _batches(
    run: Pretraining, trainer: Trainer, start: int, weights: Tensor | None
) -> Iterator[tuple[int, Batch, Tensor | None]]:
    """Yield (step, batch of this process, sampling weights of the epoch) from `start` on; the next is prefetched."""
    size, device, step = run.batch_size, trainer.fabric.device, start
    with single_threaded_worker() as fetcher:
        while step < run.steps:
            epoch, place = divmod(step, run.steps_per_epoch)
            if place == 0:
                weights = _begin_epoch(run, trainer, epoch).weights
            indices = epoch_indices(run.seed, epoch, len(run.source), weights, run.steps_per_epoch * size)
            end = min(run.steps_per_epoch, place + run.steps - step)
            parts = [own(indices[i * size : (i + 1) * size]) for i in range(place, end)]
            fetched = fetcher.submit(run.source.batch, parts[0], device)
            for following in [*parts[1:], None]:
                batch = fetched.result()
                if following is not None:
                    fetched = fetcher.submit(run.source.batch, following, device)
                yield step, batch, weights
                step += 1


def _begin_epoch(run: Pretraining, trainer: Trainer, epoch: int) -> EpochUpdate:
    trainer.encoder.eval(), trainer.heads.eval()
    with seeded_rng(run.seed, "relabel", epoch, trainer.fabric.device), torch.no_grad():
        update = run.task.before_epoch(
            trainer.encoder, trainer.heads, run.source, generator_for(run.seed, "epoch", epoch)
        )
    if type(run.task).before_epoch is not Task.before_epoch:
        # Every process did the same, but on GPUs only up to rounding.
        processes().copy_first([*trainer.encoder.state_dict().values(), *trainer.heads.state_dict().values()])
        update = replace(update, weights=processes().first(lambda: update.weights))
    for module in update.reset:
        for optimizer in trainer.optimizers:
            reset_state(optimizer, module)
    return update
