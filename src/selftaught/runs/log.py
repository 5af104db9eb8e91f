"""Reads `log.jsonl`."""

import math
from pathlib import Path

from selftaught.runs.files import exists, read_limited
from selftaught.runs.models import LogLine, mismatch
from selftaught.runs.parse import parse_json

MAX_LOG = 2**26
"""Maximum size of a log in bytes; a run writes about 400 lines of 200 bytes."""
MAX_LINE = 2**14
BROKEN = 1e30
"""Values of larger magnitude are treated as infinite (diverged loss)."""


def read_log(path: Path) -> list[dict[str, float]]:
    """The numbers of each line, in order, up to the first damaged or truncated line.

    Raises:
        UserError: the log is not a regular file of the run, or too large.
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
    """The numbers of a line; None if it is damaged."""
    try:
        fields = parse_json(text) if len(text) <= MAX_LINE else None
    except ValueError:
        return None
    if not isinstance(fields, dict) or mismatch(LogLine, fields):
        return None
    numbers = {name: value for name, value in fields.items() if type(value) in (int, float)}
    return {name: math.inf if abs(value) > BROKEN else value for name, value in numbers.items()}
