"""The training log: one JSON line per logging step, and a progress bar with the estimated remaining time."""

import json
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self

import torch
from rich.console import Console
from torch import Tensor

from selftaught.display.console import stderr_console
from selftaught.display.progress import Meter
from selftaught.runs.atomic import append_text, write_text
from selftaught.runs.log import read_log
from selftaught.training.pace import PaceMonitor

FEATURES = {
    "feature_rank": "feature rank",
    "feature_std": "std",
    "embedding_rank": "embedding rank",
    "embedding_std": "std",
}
"""Measured values that are displayed, by their name in the log."""


class Log:
    """Writes the lines of `log.jsonl` and displays progress on the console.

    Args:
        path: the file; when a run is resumed, lines of later steps are removed.
        steps: total number of steps of the run.
        images_per_step: number of images per step, to compute images per second.
        chance: chance level by score name, displayed with the score.
        every: number of steps between two lines.
        console: console for the progress display; standard error by default.
        pace: compares the speed with the plan; None if the budget was not in minutes.
    """

    def __init__(
        self,
        path: Path,
        steps: int,
        images_per_step: int,
        chance: Mapping[str, float],
        every: int,
        console: Console | None = None,
        pace: PaceMonitor | None = None,
    ) -> None:
        self.path, self.steps, self.chance, self.every = path, steps, chance, every
        self.images_per_step = images_per_step
        self.console = console or stderr_console()
        self.pace = pace
        self.last: dict[str, float] = {}  # last values that are displayed
        self.begun = False
        self.before = 0.0  # seconds of training in earlier processes
        self.seconds = 0.0  # seconds of training up to the last line
        self.started = self.noted = monotonic()
        self.noted_step = 0
        self.meter = Meter("step", steps, plain_every=max(1, steps // 10), console=self.console)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.meter.__exit__(kind, error, trace)

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, in this process and in earlier ones."""
        return round(self.before + monotonic() - self.started, 2)

    def begin(self, step: int, seconds: float = 0.0) -> None:
        """Start logging after `step`; lines of later steps, whose state was lost in a kill, are removed.

        Args:
            step: number of completed steps.
            seconds: seconds of training up to that step, which may be after the last line.
        """
        lines = [line for line in read_log(self.path) if line["step"] <= step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in lines))
        self.before = self.seconds = max(seconds, lines[-1].get("seconds", 0.0) if lines else 0.0)
        self.started = self.noted = monotonic()
        self.noted_step = step
        self.meter.begin(step, self.seconds)
        if self.pace is not None:
            self.pace.begin(step, self.seconds)
        self.begun = True

    def due(self, step: int) -> bool:
        """Whether this step is logged."""
        return step % self.every == 0

    def write(
        self, step: int, logged: Mapping[str, Tensor], rate: float, measured: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """Write the line of a step. Training synchronizes with the device only here and for what a `Watch` measures.

        Args:
            step: number of completed steps.
            logged: values of the loss; only scalars are logged.
            rate: learning rate.
            measured: further values, which not every line has.
        """
        scalars = {name: value for name, value in logged.items() if value.ndim == 0}
        numbers = torch.stack([value.float() for value in scalars.values()]).tolist()
        now = monotonic()
        speed = (step - self.noted_step) * self.images_per_step / max(now - self.noted, 1e-9)
        self.seconds = self.elapsed
        line = {
            "step": step,
            "seconds": self.seconds,
            "images_per_second": round(speed, 1),
            "learning_rate": rate,
            **dict(zip(scalars, numbers, strict=True)),
            **(measured or {}),
        }
        # Flushed to disk before the checkpoint, so that a power cut cannot leave a checkpoint newer than the log.
        append_text(self.path, json.dumps(line) + "\n")
        steps, self.noted, self.noted_step = step - self.noted_step, now, step
        self._display(line, steps)
        return line

    def _display(self, line: Mapping[str, Any], steps: int) -> None:
        parts = [f"{line['images_per_second']:,.0f} img/s", f"loss {line['loss']:.3f}"]
        self.last |= {name: line[name] for name in (*self.chance, *FEATURES) if name in line}
        parts += [
            f"{name.replace('_', ' ')} {self.last[name]:.3f} (chance {self.chance[name]:.3f})"
            for name in self.chance
            if name in self.last
        ]
        parts += [f"{text} {self.last[name]:.3g}" for name, text in FEATURES.items() if name in self.last]
        self.meter.advance(steps, " · ".join(parts))
        change = None if self.pace is None else self.pace.update(line["step"], line["seconds"])
        if change is not None:
            self.console.print(change, soft_wrap=True)
