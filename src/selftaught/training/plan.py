"""The plan of a run: device, precision, compilation and number of steps, decided before the first step.

The plan is made once and stored with the run, so that a repeated or resumed run takes the same steps. Measurements use
copies of the weights and do not change the run.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from selftaught.errors import UserError, require_between
from selftaught.limits import EPOCHS, MINUTES, STEPS
from selftaught.modules.processes import processes
from selftaught.training.launch import launch
from selftaught.training.loop import Pretraining
from selftaught.training.trial import Trial

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Precision = Literal["auto", "32", "bf16"]
Compile = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Budget:
    """Training budget: exactly one of minutes, epochs and steps."""

    minutes: float | None = None
    epochs: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        """Check that exactly one budget is given and that it is positive."""
        budgets = {name: value for name, value in vars(self).items() if value is not None}
        if len(budgets) != 1:
            flags = " and ".join(f"--{name}" for name in budgets) or "none"
            raise UserError(f"expected exactly one of --minutes, --epochs and --steps, got {flags}.")
        ((name, value),) = budgets.items()
        require_between(f"--{name}", value, *{"minutes": MINUTES, "epochs": EPOCHS, "steps": STEPS}[name])

    def steps_at(self, pace: "StepTime") -> int:
        """Number of steps that fit into the minutes."""
        assert self.minutes is not None
        return max(1, round((60 * self.minutes - pace.once) / pace.step))


class StepTime(NamedTuple):
    """Measured durations of training, in seconds."""

    step: float
    """One step, including its share of the preparation of an epoch."""
    once: float
    """Preparation before the first epoch that later epochs do not repeat."""
    epoch: float
    """Preparation before every epoch, such as clustering."""


@dataclass(frozen=True)
class Plan:
    """The decisions of `make_plan`."""

    steps: int
    device: str
    precision: Literal["32", "bf16"]
    compiled: bool
    seconds_per_step: float | None
    """Measured before the first step; None if the budget was not in minutes."""
    seconds_per_epoch: float | None
    """Measured preparation before each epoch, for instance clustering; None if the budget was not in minutes."""


def choose_device(device: str) -> torch.device:
    """`auto` is CUDA if available, else the CPU. Apple's MPS must be chosen explicitly: it is untested.

    Each of several processes on a machine has a GPU of its own, whatever number is given.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        if chosen.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("expected cpu, cuda or mps")
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")[:200]  # torch repeats its input, which may be long
        raise UserError(
            f"--device expects a device of this machine, got {device!r} ({reason}): omit it to choose automatically."
        ) from error
    place = launch()
    if chosen.type == "cuda" and place is not None:
        return torch.device("cuda", place.local_rank % torch.cuda.device_count())
    return torch.device("cuda", 0) if chosen == torch.device("cuda") else chosen


def choose_precision(precision: Precision, device: torch.device) -> Literal["32", "bf16"]:
    """`auto` is bf16 where it is faster: on GPUs that support it, and on CPUs if a measurement shows it.

    CPU flags are not reliable: a CPU with avx512_bf16 or AMX is up to nine times as fast in bf16, one without is 5 to
    50 times as slow (all measured), and virtual machines hide the difference.
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
    """Whether the minimum time of `work` is below 0.8 of the other's: only minima are comparable on a busy machine.

    The two are timed in turn, so that a varying load affects both; the first round, which allocates and compiles, does
    not count. The measurement ends early if `work` is much slower.
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


def make_fabric(device: torch.device, precision: str, two_players: bool = False) -> "Fabric":
    """A Fabric on one device, which averages gradients over processes if there are several.

    Args:
        device: the device of this process.
        precision: "32" or "bf16".
        two_players: `Pretraining.has_critic`, which matters with several processes.
    """
    from lightning_fabric import Fabric  # imported here because it takes four seconds, too long for --help
    from lightning_fabric.plugins import MixedPrecision

    class Autocast(MixedPrecision):
        """Layers compute in bf16; views are not converted, because rounding would change the task's targets."""

        def convert_input(self, data: Any) -> Any:
            return data

    devices = [device.index or 0] if device.type == "cuda" else 1
    options: dict[str, Any] = {"accelerator": device.type, "devices": devices}
    if precision == "bf16":
        options["plugins"] = Autocast("bf16-mixed", device.type)
    else:
        options["precision"] = "32-true"
    if processes().count > 1:
        from selftaught.training.distributed import strategy

        options |= {"strategy": strategy(two_players), "num_nodes": processes().count}
    fabric = Fabric(**options)
    if processes().count > 1:
        fabric.launch()
    return fabric


def make_plan(
    pretraining: Pretraining,
    budget: Budget,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    compiling: Compile = "auto",
) -> Plan:
    """Make the plan; where minutes or compilation require it, a few seconds of steps are timed on a copy."""
    where, two_players = choose_device(device), pretraining.has_critic
    how = processes().first(lambda: choose_precision(precision, where))
    measured: StepTime | None = None
    if budget.minutes is not None:
        measured = _step_time(pretraining, make_fabric(where, how, two_players), False)
        steps = budget.steps_at(measured)
    elif budget.epochs is not None:
        steps = max(1, round(budget.epochs * pretraining.steps_per_pass))
    else:
        assert budget.steps is not None
        steps = budget.steps
    compiled = compiling == "on"
    if compiling == "auto" and where.type == "cuda" and measured is not None and steps * measured.step > 600:
        compiled = _compiles_soundly(pretraining, make_fabric(where, how, two_players))
    if compiled and measured is not None:
        faster = _step_time(pretraining, make_fabric(where, how, two_players), True)
        compiled = compiling == "on" or faster.step < 0.95 * measured.step
        if compiled:
            measured, steps = faster, budget.steps_at(faster)
    steps, compiled, measured = processes().first(lambda: (steps, compiled, measured))
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
    """Median time of a few seconds of steps, without the first, plus a step's share of the epoch's preparation."""
    seconds: list[float] = []
    trial = Trial(pretraining, fabric, compiled)
    trial.step(0)["loss"].item()
    while processes().first(lambda: len(seconds) < 2 or (sum(seconds) < spend and len(seconds) < 200)):
        begun = monotonic()
        trial.step(len(seconds) + 1)["loss"].item()
        seconds.append(monotonic() - begun)
    epoch = trial.before_epoch_seconds
    step = median(seconds) + epoch / pretraining.steps_per_epoch
    return processes().first(lambda: StepTime(step, trial.once_seconds, epoch))


def _compiles_soundly(pretraining: Pretraining, fabric: "Fabric", steps: int = 3) -> bool:
    """Whether compiled and eager steps agree in losses and gradients: torch.compile has given NaN (see docs)."""
    trails: list[Tensor] = []
    try:
        for compiled in (False, True):
            trial = Trial(pretraining, fabric, compiled)
            trails.append(torch.stack([trial.step(number)["loss"].float() for number in range(steps)]).cpu())
    except Exception:  # compilers raise many exception types; training then stays eager
        return False
    # After the first step the losses depend on the gradients of the previous steps.
    sound = bool(torch.isfinite(trails[1]).all() and torch.allclose(trails[0], trails[1], rtol=2e-2, atol=1e-3))
    return processes().first(lambda: sound)
