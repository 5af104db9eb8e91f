"""Saves image grids of pretext examples in the run folder during training."""

import math
from typing import Any

import torch
from torch import nn

from selftaught.contracts import Encoder, Outputs, Views, evenly_spaced
from selftaught.display.mosaic import png_bytes
from selftaught.runs.atomic import write_bytes
from selftaught.runs.folder import RunFolder
from selftaught.training.loop import Pretraining
from selftaught.training.randomness import generator_for

GRID_IMAGES = 32
"""Images per grid."""
SAVE_AT = (0.05, 0.25, 0.5)
"""Fractions of a run at which grids are saved; another is saved at the end."""


def example_saver(folder: RunFolder, run: Pretraining, every: int) -> Any:
    """A callback that saves grids of `Task.visualize` several times during a run, always for the same images.

    The steps depend only on the settings of the run, so an interrupted and resumed run saves the same grids.
    """
    steps = {math.ceil(run.steps * part / every) * every for part in SAVE_AT} | {run.steps}
    spread = evenly_spaced(GRID_IMAGES, len(run.source))

    def watch(step: int, encoder: Encoder, heads: nn.ModuleDict, views: Views, outputs: Outputs) -> None:
        if step not in steps:
            return
        encoder.eval(), heads.eval()
        with torch.no_grad():
            same = run.source.batch(spread, next(iter(views.values())).device)
            views = run.task.views(same, generator_for(run.seed, "shown", 0))
            shown = run.task.visualize(encoder, heads, views)
        for name, pictures in shown.items():
            content = png_bytes(pictures[:GRID_IMAGES].float().cpu())
            write_bytes(folder.shown / f"step-{step:06d}" / f"{name}.png", content, folder.path)
            write_bytes(folder.shown / f"{name}.png", content, folder.path)

    return watch
