"""What a run needs to be decided before its first step: device, precision, compilation and how many steps.

All of it is measured or chosen once and stored with the run; from then on a run is steps, so a repeated or resumed run
is the same run. What is tried out here is tried on copies and leaves no trace in the weights.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.training.loop import Pretraining
from selftaught.training.trial import Trial

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Precision = Literal["auto", "32", "bf16"]
Compile = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Budget:
    """How long to train: exactly one of the three."""

    minutes: float | None = None
    epochs: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        """Refuse two budgets, none, or an empty one."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            found = " and ".join(f"--{name}" for name in given) or "none"
            raise UserError(f"a run needs exactly one of --minutes, --epochs and --steps, found {found}: give one.")
        ((name, value),) = given.items()
        if not value > 0 or not math.isfinite(value):
            raise UserError(f"--{name} must be above 0, found {value}: give a larger one.")

    def steps_at(self, pace: "StepTime") -> int:
        """The steps that fit into the minutes."""
        assert self.minutes is not None
        return max(1, round((60 * self.minutes - pace.once) / pace.step))


class StepTime(NamedTuple):
    """Measured durations of training, in seconds."""

    step: float
    """A step, including its share of the preparation of an epoch."""
    once: float
    """Preparation before the first epoch that no later epoch repeats."""
    epoch: float
    """Preparation before every epoch, such as clustering."""


@dataclass(frozen=True)
class Plan:
    """What was decided."""

    steps: int
    device: str
    precision: Literal["32", "bf16"]
    compiled: bool
    seconds_per_step: float | None
    """Measured before the first step; None where the budget was not minutes."""
    seconds_per_epoch: float | None
    """The part of it that is progress before each epoch, for instance on clustering; None likewise."""


def choose_device(device: str) -> torch.device:
    """`auto` is CUDA, else the CPU. Apple's MPS only when asked for: we have none to test on."""
    if device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        chosen = torch.device(device)
        if chosen.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("known are cpu, cuda and mps")
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")[:200]  # torch says again what it was given, however long
        raise UserError(
            f"--device must name a device of this machine, found {device!r} ({reason}): leave it out for the best."
        ) from error
    return torch.device("cuda", 0) if chosen == torch.device("cuda") else chosen


def choose_precision(precision: Precision, device: torch.device) -> Literal["32", "bf16"]:
    """`auto` is bf16 where it is faster: on GPUs that have it, and on CPUs by measurement.

    By measurement, because CPU flags do not decide it: a CPU with avx512_bf16 or AMX is up to nine times as fast in
    bf16, one without is 5 to 50 times as slow (all measured), and virtual machines hide the difference.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    if device.type != "cpu":
        return "32"
    return "bf16" if _bf16_is_faster() else "32"


def _bf16_is_faster() -> bool:
    """Whether this CPU runs a convolution, its gradients and a matrix product clearly faster in bf16."""
    full, half = (_layer_work(dtype) for dtype in (torch.float32, torch.bfloat16))
    return _clearly_faster(half, full)


def _layer_work(dtype: torch.dtype) -> Callable[[], object]:
    images = torch.ones(4, 32, 16, 16, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    kernel = torch.ones(32, 32, 3, 3, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    factor = torch.ones(256, 256, dtype=dtype)

    def work() -> object:
        made = torch.nn.functional.conv2d(images, kernel, padding=1)
        return torch.autograd.grad(made, (images, kernel), made.detach()), factor @ factor

    return work


def _clearly_faster(work: Callable[[], object], than: Callable[[], object], rounds: int = 12) -> bool:
    """Whether the minimum of `work` is below 0.8 of the other's: on a busy machine only minima can be compared.

    Both are timed in turn, so a load that comes or goes meets both; the first round, which allocates and compiles, does
    not count. A work that is slower by far is not repeated to the end.
    """
    best, best_other = math.inf, math.inf
    for number in range(rounds + 1):
        begun = monotonic()
        than()
        between = monotonic()
        work()
        end = monotonic()
        if number:
            best, best_other = min(best, end - between), min(best_other, between - begun)
        if number >= 3 and best > 3 * best_other:
            return False
    return best < 0.8 * best_other


def make_fabric(device: torch.device, precision: str) -> "Fabric":
    """A Fabric on one device."""
    from lightning_fabric import Fabric  # takes four seconds, which no help page should wait for
    from lightning_fabric.plugins import MixedPrecision

    class Autocast(MixedPrecision):
        """Layers compute in bf16, views stay as they are: rounded to eight bits, a task's targets would be others."""

        def convert_input(self, data: Any) -> Any:
            return data

    devices = [device.index or 0] if device.type == "cuda" else 1
    if precision == "bf16":
        return Fabric(accelerator=device.type, devices=devices, plugins=Autocast("bf16-mixed", device.type))
    return Fabric(accelerator=device.type, devices=devices, precision="32-true")


def make_plan(
    pretraining: Pretraining,
    budget: Budget,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    compiling: Compile = "auto",
) -> Plan:
    """Decide, measuring a few seconds of steps on a copy where minutes or compilation ask for it."""
    where = choose_device(device)
    how = choose_precision(precision, where)
    measured: StepTime | None = None
    if budget.minutes is not None:
        measured = _step_time(pretraining, make_fabric(where, how), False)
        steps = budget.steps_at(measured)
    elif budget.epochs is not None:
        steps = max(1, round(budget.epochs * pretraining.steps_per_pass))
    else:
        assert budget.steps is not None
        steps = budget.steps
    compiled = compiling == "on"
    if compiling == "auto" and where.type == "cuda" and measured is not None and steps * measured.step > 600:
        compiled = _compiles_soundly(pretraining, make_fabric(where, how))
    if compiled and measured is not None:
        faster = _step_time(pretraining, make_fabric(where, how), True)
        compiled = compiling == "on" or faster.step < 0.95 * measured.step
        if compiled:
            measured, steps = faster, budget.steps_at(faster)
    each, epoch = (None, None) if measured is None else (measured.step, measured.epoch)
    return Plan(
        steps=steps,
        device=str(where),
        precision=how,
        compiled=compiled,
        seconds_per_step=each,
        seconds_per_epoch=epoch,
    )


def _step_time(pretraining: Pretraining, fabric: "Fabric", compiled: bool, spend: float = 4.0) -> StepTime:
    """The median of a few seconds of steps, but not of the first, and a step's share of what comes before an epoch."""
    seconds: list[float] = []
    trial = Trial(pretraining, fabric, compiled)
    trial.step(0)["loss"].item()
    while len(seconds) < 2 or (sum(seconds) < spend and len(seconds) < 200):
        begun = monotonic()
        trial.step(len(seconds) + 1)["loss"].item()
        seconds.append(monotonic() - begun)
    epoch = trial.before_epoch_seconds
    return StepTime(median(seconds) + epoch / pretraining.steps_per_epoch, trial.once_seconds, epoch)


def _compiles_soundly(pretraining: Pretraining, fabric: "Fabric", steps: int = 3) -> bool:
    """Whether compiled steps give eager's losses and gradients: torch.compile has given NaN gradients (see docs)."""
    trails: list[Tensor] = []
    try:
        for compiled in (False, True):
            trial = Trial(pretraining, fabric, compiled)
            trails.append(torch.stack([trial.step(number)["loss"].float() for number in range(steps)]).cpu())
    except Exception:  # whatever a compiler raises, eager works
        return False
    # After the first step the losses depend on the gradients of those before.
    return bool(torch.isfinite(trails[1]).all() and torch.allclose(trails[0], trails[1], rtol=2e-2, atol=1e-3))
