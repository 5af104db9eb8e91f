"""Render a data set of random scenes into a folder."""

import os
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from selftaught.contracts import evenly_spaced
from selftaught.data.photos import Spec
from selftaught.data.sources import open_source
from selftaught.display.progress import Meter
from selftaught.errors import readable, require_between
from selftaught.limits import THREADS, Range
from selftaught.rendering.folder import RenderSettings, claim, locked_for_rendering, missing_shards, remove_parts
from selftaught.rendering.renderer import mitsuba
from selftaught.rendering.shards import rows_of
from selftaught.rendering.workers import Job, render_shards

TEXTURES = 1000
"""Maximum number of images that are used as textures, evenly spaced over their source."""
TEXTURE_SIDE = 64
"""Side of these images in pixels."""
SCENES, SIDE, SCENE_SEED = Range(1, 10**9), Range(16, 1024), Range(0, 2**63 - 1)
"""Ranges of their number, of the side of pictures in pixels and of the seed, which the shards store as int64."""


def render(
    out: str | Path,
    *,
    scenes: int = 20_000,
    size: int = 64,
    seed: int = 0,
    textures: Spec | None = None,
    workers: int | None = None,
) -> Path:
    """Render random scenes with depth, normals, instance ids and contours into parquet files.

    A scene is a function of (seed, number), so an interrupted command continues where it stopped, and a larger number
    of scenes extends the folder.

    Args:
        out: folder, new, empty or rendered with the same settings.
        scenes: number of scenes.
        size: side of the square pictures in pixels.
        seed: random seed.
        textures: source of images for half of the textures; None for procedural textures only.
        workers: number of processes; None for one per core.

    Returns:
        The folder, which is a source.

    Raises:
        UserError: an argument is invalid, Mitsuba is not installed, or the folder cannot be used.
    """
    mitsuba()
    _check(scenes, size, seed, workers)
    folder = Path(os.path.expanduser(out))  # noqa: PTH111 (Path.expanduser raises for an unknown user)
    photos, fingerprint = _load_textures(textures)
    render_folder(folder, RenderSettings(seed=seed, size=size, textures=fingerprint), scenes, photos, workers)
    return folder


def render_folder(
    folder: Path, settings: RenderSettings, scenes: int, photos: NDArray[np.uint8] | None, workers: int | None
) -> None:
    """Render the missing shards of a folder; see `render`."""
    with locked_for_rendering(folder):
        claim(folder, settings, scenes)
        remove_parts(folder)
        shards = missing_shards(folder, scenes, settings.shard)
        remaining = sum(len(rows_of(number, scenes, settings.shard)) for number in shards)
        count = min(workers or _cores(), len(shards))
        start, done = time.monotonic(), 0
        with Meter(f"rendering {readable(str(folder))}", scenes) as meter:
            meter.begin(scenes - remaining)
            with closing(render_shards(Job(folder, scenes, settings, photos), shards, count)) as rendered:
                for _ in rendered:
                    done += 1
                    meter.advance(detail=f"{done / max(time.monotonic() - start, 1e-3):.1f} scenes/s")


def _check(scenes: int, size: int, seed: int, workers: int | None) -> None:
    require_between("--scenes", scenes, *SCENES)
    require_between("--size", size, *SIDE)
    require_between("--seed", seed, *SCENE_SEED)
    if workers is not None:
        require_between("--workers", workers, *THREADS, hint="; leave it out to use every core")


def _load_textures(textures: Spec | None) -> tuple[NDArray[np.uint8] | None, str | None]:
    """Images for textures, (n, 3, S, S), and the fingerprint of their source."""
    if textures is None:
        return None, None
    source = open_source(textures, side=TEXTURE_SIDE, keep_unlabeled=True)
    batch = source.batch(evenly_spaced(TEXTURES, len(source)), torch.device("cpu"))
    return batch.images.numpy(), source.fingerprint


def _cores() -> int:
    """Cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
