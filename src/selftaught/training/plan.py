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

    def steps_at(self, pace: "Pace") -> int:
        """The steps that fit into the minutes."""
        assert self.minutes is not None
        return max(1, round((60 * self.minutes - pace.once) / pace.step))


class Pace(NamedTuple):
    """What training takes, in seconds."""

    step: float
    """Each step, with its share of what comes before an epoch."""
    once: float
    """What comes before the first epoch, and never again."""


@dataclass(frozen=True)
class Plan:
    """What was decided."""

    steps: int
    device: str
    precision: Literal["32", "bf16"]
    compiled: bool
    seconds_per_step: float | None
    """Measured before the first step; None where the budget was not minutes."""


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

    By measurement, because flags lie: a CPU with avx512_bf16 or AMX is up to nine times as fast in bf16, one without
    is five times as slow (both measured), and virtual machines hide the difference.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    if device.type != "cpu":
        return "32"
    full = torch.ones(512, 512)
    half = full.bfloat16()
    return "bf16" if _fastest(lambda: half @ half) < 0.8 * _fastest(lambda: full @ full) else "32"


def _fastest(work: Callable[[], Tensor], times: int = 5) -> float:
    seconds = []
    for _ in range(times):
        begun = monotonic()
        work()
        seconds.append(monotonic() - begun)
    return min(seconds)


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
    measured: Pace | None = None
    if budget.minutes is not None:
        measured = _pace(pretraining, make_fabric(where, how), False)
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
        faster = _pace(pretraining, make_fabric(where, how), True)
        compiled = compiling == "on" or faster.step < 0.95 * measured.step
        if compiled:
            measured, steps = faster, budget.steps_at(faster)
    each = None if measured is None else measured.step
    return Plan(steps=steps, device=str(where), precision=how, compiled=compiled, seconds_per_step=each)


def _pace(pretraining: Pretraining, fabric: "Fabric", compiled: bool, spend: float = 4.0) -> Pace:
    """The median of a few seconds of steps, but not of the first, and a step's share of what comes before an epoch."""
    seconds: list[float] = []
    trial = Trial(pretraining, fabric, compiled)
    trial.step(0)["loss"].item()
    while len(seconds) < 2 or (sum(seconds) < spend and len(seconds) < 200):
        begun = monotonic()
        trial.step(len(seconds) + 1)["loss"].item()
        seconds.append(monotonic() - begun)
    return Pace(median(seconds) + trial.before_epoch_seconds / pretraining.steps_per_epoch, trial.once_seconds)


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
