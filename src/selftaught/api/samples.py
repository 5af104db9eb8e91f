"""Grids of what a task shows for people, kept in the run while it trains."""

import math
from typing import Any

import torch
from torch import nn

from selftaught.contracts import Encoder, Views, evenly_spaced
from selftaught.figures.grid import png_bytes
from selftaught.runs.atomic import write_bytes
from selftaught.runs.folder import RunFolder
from selftaught.training.loop import Pretraining
from selftaught.training.randomness import generator_for

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
            content = png_bytes(pictures[:SHOWN].float().cpu())
            write_bytes(folder.shown / f"step-{step:06d}" / f"{name}.png", content, folder.path)
            write_bytes(folder.shown / f"{name}.png", content, folder.path)

    return watch
