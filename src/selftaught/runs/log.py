"""Reading `log.jsonl`."""

import math
from pathlib import Path

from selftaught.runs.files import exists, read_limited
from selftaught.runs.models import LogLine, mismatch
from selftaught.runs.parse import parse_json

MAX_LOG = 2**26
"""Bytes of a log; a run writes about 400 lines of 200 bytes."""
MAX_LINE = 2**14
BROKEN = 1e30
"""A larger magnitude is a diverged loss, as infinity is."""


def read_log(path: Path) -> list[dict[str, float]]:
    """The numbers of each line, in order; a line that is damaged or was cut short by a kill ends the log.

    Raises:
        UserError: the log is no regular file of the run, or too large.
    """
    lines: list[dict[str, float]] = []
    if exists(path):
        for text in read_limited(path, path.parent, MAX_LOG).split(b"\n"):
            line = _numbers(text)
            if line is None:
                break
            lines.append(line)
    return lines


def _numbers(text: bytes) -> dict[str, float] | None:
    """The numbers of a line, None where it is damaged."""
    try:
        found = parse_json(text) if len(text) <= MAX_LINE else None
    except ValueError:
        return None
    if not isinstance(found, dict) or mismatch(LogLine, found):
        return None
    numbers = {name: value for name, value in found.items() if type(value) in (int, float)}
    return {name: math.inf if abs(value) > BROKEN else value for name, value in numbers.items()}
