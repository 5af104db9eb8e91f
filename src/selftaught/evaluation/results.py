"""Names of result files: a short readable stem and a digest of the full setting, so that no result replaces another."""

import re
from collections.abc import Mapping
from pathlib import Path

from selftaught.evaluation.baselines.cache import digest

LONGEST = 60
"""Bytes of the readable part; file systems allow 255 for a whole name."""


def file_stem(data: str, details: str, setting: Mapping[str, object]) -> str:
    """The name of a result file, without its suffix.

    Args:
        data: the name of the images; the last part of it is used.
        details: more for people, such as "fast-5000", or nothing.
        setting: all that distinguishes the result from others: plain values.
    """
    name = re.sub(r"\W+", "-", Path(data).name).strip("-") or "images"
    short = name.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore").strip("-")
    return "-".join(part for part in (short, details, digest(setting)[:12]) if part)
