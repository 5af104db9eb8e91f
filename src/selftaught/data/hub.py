"""Data sets of the Hugging Face Hub that are on this machine: `hf:owner/name`, in the cache of huggingface_hub.

Nothing is downloaded. The cache has a folder for each data set, with `refs/main` (a commit) and `snapshots/COMMIT/`,
whose files are links to blobs.
"""

import os
import re
from pathlib import Path

from selftaught.data.reader import readable
from selftaught.errors import UserError

PREFIX = "hf:"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{7,64}")


def hub_folder(spec: str) -> Path:
    """The folder of a data set in the cache, at the commit that was downloaded last as `main`.

    Args:
        spec: `hf:owner/name` or `hf:name`.

    Raises:
        UserError: the name is invalid, or the data set is not on this machine.
    """
    name = spec.removeprefix(PREFIX)
    if not NAME.fullmatch(name):
        raise UserError(f"expected hf:owner/name, got {readable(spec)!r}.")
    folder = _cache() / f"datasets--{name.replace('/', '--')}"
    try:
        commit = (folder / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        commit = ""
    snapshot = folder / "snapshots" / commit
    if not COMMIT.fullmatch(commit) or not snapshot.is_dir():
        raise UserError(
            f"{readable(spec)!r} is not on this machine, and data sets of the Hub are not downloaded automatically: "
            f"run `hf download --repo-type dataset {name}`, or pass a folder with its files."
        )
    return snapshot


def _cache() -> Path:
    """The cache of huggingface_hub: $HF_HUB_CACHE, else $HF_HOME/hub, else ~/.cache/huggingface/hub."""
    if chosen := os.environ.get("HF_HUB_CACHE"):
        return Path(chosen).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"
