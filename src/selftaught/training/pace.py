"""Compares the speed of training with the plan that turned a budget in minutes into steps."""

from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

TOLERANCE = 1 / 3
"""Minimum relative difference in seconds per step that is reported."""
SPAN_SECONDS = 2.0
"""Minimum duration of a measurement of seconds per step."""
SPANS = 5
"""Number of measurements whose median is compared: one slow step or one checkpoint affects only one of them. Twice as
many for each further message, so that a speed that varies all the time is not reported all the time."""
PLANNED = 1 / 10
"""Maximum relative difference in seconds per step at which the speed counts as planned."""


class PaceMonitor:
    """Measures seconds per step and reports when they differ from the plan, or from what was reported last.

    Args:
        steps: total number of steps of the run.
        minutes: planned duration of the run.
        seconds_per_step: planned duration of a step, including its share of the preparation of an epoch.
        span: minimum number of steps per measurement: an epoch if its preparation is slow, else 1.
    """

    def __init__(self, steps: int, minutes: float, seconds_per_step: float, span: int = 1) -> None:
        self.steps, self.minutes, self.planned = steps, minutes, seconds_per_step
        self.span = max(1, span, steps // 100)
        self.begin(0, 0.0)

    def begin(self, step: int, seconds: float) -> None:
        """Start or resume after `step` steps and `seconds` seconds of training."""
        self.reported = self.planned
        self.step, self.seconds = step, seconds
        self._measure_again(SPANS)

    def _measure_again(self, count: int) -> None:
        """Compare the median of the next `count` measurements."""
        self.spans = deque[float](maxlen=count)

    def update(self, step: int, seconds: float) -> str | None:
        """Record that `step` was reached after `seconds` in total; returns a message if the speed has changed."""
        steps, duration = step - self.step, seconds - self.seconds
        if steps < self.span or duration < SPAN_SECONDS:
            return None
        self.spans.append(duration / steps)
        self.step, self.seconds = step, seconds
        count = self.spans.maxlen or SPANS
        if len(self.spans) <= count // 2 or step == self.steps:
            return None
        current = median(self.spans)
        if not _differ(current, self.reported, TOLERANCE):
            return None
        self.reported = current
        self._measure_again(2 * count)
        return self._message(current, (seconds + (self.steps - step) * current) / 60)

    def _message(self, current: float, minutes: float) -> str:
        """The current seconds per step compared with the plan, and the expected total time."""
        speed = _compared(current, self.planned) if _differ(current, self.planned, PLANNED) else ""
        total, planned = _number(minutes), _number(self.minutes)
        overall = "" if total == planned else _compared(minutes, self.minutes)
        message = f"{speed} than planned" if speed else "back to the planned speed"
        message += f": about {total} minutes in all" + (f" instead of {planned}" if overall else ", as planned")
        return message + (f", because earlier steps were {overall}" if overall and overall != speed else "")


def planned_pace(status: Mapping[str, Any], steps: int, steps_per_epoch: int) -> PaceMonitor | None:
    """The monitor for a run, from its status; None if its budget was not in minutes.

    If the preparation of an epoch, for instance clustering, takes 10 % of the time or more, every measurement covers an
    epoch.
    """
    minutes, each = status.get("minutes"), status.get("seconds_per_step")
    if minutes is None or each is None:
        return None
    preparation = status.get("seconds_per_epoch") or 0.0
    return PaceMonitor(steps, minutes, each, steps_per_epoch if preparation >= 0.1 * steps_per_epoch * each else 1)


def _differ(one: float, other: float, tolerance: float) -> bool:
    return max(one, other) > (1 + tolerance) * min(one, other)


def _compared(duration: float, planned: float) -> str:
    return "slower" if duration > planned else "faster"


def _number(minutes: float) -> str:
    return f"{minutes:,.0f}" if minutes >= 10 else f"{minutes:.2g}"
