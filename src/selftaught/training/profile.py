"""Profile of a training step: time of each part, and utilization of the machine's peak throughput."""

from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from selftaught.training.log import Log
from selftaught.training.loop import Pretraining
from selftaught.training.machine import hardware
from selftaught.training.trial import Trial

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SIDE = {"cpu": 2048, "cuda": 8192, "mps": 4096}
"""Side of the square matrices whose product measures a device's peak throughput; large enough to be compute-bound."""


@dataclass(frozen=True)
class Profile:
    """Time of each part of a training step; seconds are medians over steps."""

    hardware: str
    precision: str
    batch_size: int
    parts: dict[str, float]
    """Seconds of images (which the loop prefetches), views, forward, backward, optimizer."""
    line: float
    """Seconds per log line."""
    operations: int
    """Floating-point operations of a step's matrix products and convolutions; a multiply-add counts as two."""
    peak: float
    """Operations per second of a large matrix product in the same precision, or in float32 if that is faster."""

    @property
    def seconds(self) -> float:
        """Seconds of a step: the sum of its parts."""
        return sum(self.parts.values())

    @property
    def images_per_second(self) -> float:
        """Images of the source per second; a task may make several views of each."""
        return self.batch_size / self.seconds

    @property
    def share(self) -> float:
        """Utilization of the machine's peak throughput, 0 to 1."""
        return self.operations / self.seconds / self.peak


def profile_step(pretraining: Pretraining, fabric: "Fabric", precision: str, spend: float = 6.0) -> Profile:
    """Time a few seconds of steps on a copy, part by part.

    Unlike the loop, the profile synchronizes with the device after each part, so on a GPU the sum of the parts is more
    than the time of a step.
    """
    device = fabric.device
    laps: list[dict[str, float]] = []
    trial = Trial(pretraining, fabric, False)
    with FlopCounterMode(display=False) as counted:
        trial.step(0)
    begun = monotonic()
    while len(laps) < 5 or monotonic() - begun < spend:
        lap = _Lap(device)
        logged = trial.step(len(laps) + 1, lap.mark)
        laps.append(lap.parts)
    with TemporaryDirectory() as folder:
        log = Log(Path(folder) / "log.jsonl", 1, 1, {}, 1, Console(file=StringIO()))
        line = _seconds(lambda: log.write(1, logged, 0.0), device)
    dtypes = [torch.float32, torch.bfloat16] if precision == "bf16" else [torch.float32]
    return Profile(
        hardware=hardware(device),
        precision=precision,
        batch_size=pretraining.batch_size,
        parts={part: median(lap[part] for lap in laps[1:]) for part in laps[0]},
        line=line,
        operations=counted.get_total_flops(),
        # Without bf16 instructions a bf16 product is slower than a float32 one, so the faster of the two is the peak.
        peak=max(peak_throughput(device, dtype) for dtype in dtypes),
    )


class _Lap:
    """Measures the time between marks."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.parts = device, dict[str, float]()
        wait(device)
        self.last = monotonic()

    def mark(self, part: str) -> None:
        """Add the time since the last mark to this part; times of the critic and of the others are summed."""
        wait(self.device)
        now = monotonic()
        self.parts[part] = self.parts.get(part, 0.0) + now - self.last
        self.last = now


def peak_throughput(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a square matrix product; stops at 0.1 s, because bf16 can be very slow on CPUs."""
    side = 256
    while True:
        factor = torch.ones(side, side, device=device, dtype=dtype)
        seconds = min(_seconds(lambda factor=factor: factor @ factor, device) for _ in range(6))  # type: ignore[misc]
        if side >= SIDE[device.type] or seconds > 0.1:
            return 2 * side**3 / seconds
        side *= 2


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    wait(device)
    begun = monotonic()
    work()
    wait(device)
    return monotonic() - begun


def wait(device: torch.device) -> None:
    """Wait until a device has computed everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
