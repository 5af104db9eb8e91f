"""Grids of what a task shows for people, kept in the run while it trains."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.contracts import Encoder, Views, evenly_spaced
from selftaught.figures.grid import save_png
from selftaught.training.folder import RunFolder
from selftaught.training.loop import Pretraining
from selftaught.training.randomness import generator_for
from selftaught.training.whole import write_error

SHOWN = 32
"""Pictures in a grid."""
KEPT = (0.05, 0.25, 0.5)
"""When, as fractions of a run, grids are kept; also at its end."""


def keep_shown(folder: RunFolder, run: Pretraining, every: int) -> Any:
    """Keeps grids of what the task shows, a few times in the course of a run and at its end, always of the same images.

    At which steps is a function of the run alone: one that was interrupted keeps the same grids.
    """
    kept = {math.ceil(run.steps * part / every) * every for part in KEPT} | {run.steps}
    spread = evenly_spaced(SHOWN, len(run.source))

    def watch(step: int, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> None:
        if step not in kept:
            return
        encoder.eval(), heads.eval()
        with torch.no_grad():
            same = run.source.batch(spread, next(iter(views.values())).device)
            views = run.task.views(same, generator_for(run.seed, "shown", 0))
            shown = run.task.show(encoder, heads, views)
        for name, pictures in shown.items():
            _keep_grid(folder.shown / f"step-{step:06d}" / f"{name}.png", pictures)
            _keep_grid(folder.shown / f"{name}.png", pictures)

    return watch


def _keep_grid(path: Path, pictures: Tensor) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        save_png(pictures[:SHOWN].float().cpu(), part)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise write_error(path.parent, error) from error
