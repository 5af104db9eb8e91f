"""File names for results: a short readable stem and a digest of all settings, so that names do not collide."""

import re
from collections.abc import Mapping
from pathlib import Path

from selftaught.evaluation.baselines.cache import digest

MAX_BYTES = 60
"""Maximum bytes of the readable part; file systems allow 255 for the whole name."""


def file_stem(data: str, details: str, setting: Mapping[str, object]) -> str:
    """The name of a result file, without its suffix.

    Args:
        data: the name of the source; its last path component is used.
        details: further readable text, such as "ridge-5000", or empty.
        setting: everything that distinguishes the result from others, as plain values.
    """
    name = re.sub(r"\W+", "-", Path(data).name).strip("-") or "images"
    short = name.encode("utf-8", "replace")[:MAX_BYTES].decode("utf-8", "ignore").strip("-")
    return "-".join(part for part in (short, details, digest(setting)[:12]) if part)
