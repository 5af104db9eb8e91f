"""The demo: one bundled photo teaches an encoder, and a problem made of all the other ones asks what it learned.

The problem: which photo is this crop from? Classes are photos; the left half of each teaches the probe, the right half
judges it, so no pixel is seen twice. Nothing is downloaded and no label comes from outside.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selftaught.api.pretrain import numbered, pretrain
from selftaught.config.build import PHOTO_VIEW
from selftaught.data import open_splits, photos
from selftaught.data.crops import Cropping, Crops
from selftaught.data.named import PHOTOS
from selftaught.evaluation.table import render
from selftaught.training.interruption import Stop

TEACHER = "china"
"""The photo to learn from: a temple among trees, 640 x 427, carried by scikit-learn."""
TRAIN, TEST = 8_000, 4_000
"""Crops that teach the probe, crops that judge it."""


def demonstrate(
    minutes: float, out: Path | None, data: str | None, tell: Callable[[Any], None], stop: Stop | None = None
) -> None:
    """Pretrain, probe, report.

    Args:
        minutes: of pretraining.
        out: the run folder; None for the first of runs/demo, runs/demo-2 ... that is free.
        data: labelled images to probe on as well; None for CIFAR-10 where $SELFTAUGHT_DATA has it.
        tell: shows a table or a line to people.
        stop: ends pretraining early when requested; nothing is probed then.
    """
    data = data or _cifar_at_hand()
    # All images first: a misspelt path must not cost the minutes of pretraining.
    problems = [which_photo(PHOTO_VIEW), *([] if data is None else [open_splits(data, side=PHOTO_VIEW)])]
    out = out or numbered(Path("runs/demo"))
    run = pretrain(TEACHER, task="rotation", minutes=minutes, size=PHOTO_VIEW, out=out, stop=stop)
    if not run.finished:
        return
    for problem in problems:
        tell(render(run.probe(problem)))
    tell(f"The report: {run.report()}")


def which_photo(side: int, seed: int = 0) -> tuple[Crops, Crops]:
    """The labelled problem: crops of left halves to teach, crops of right halves to judge.

    Args:
        side: of the views it is meant for, in pixels.
        seed: of the crops.

    Raises:
        UserError: the packages that carry the photos are missing.
    """
    names = [name for name in PHOTOS if name != TEACHER]
    loaded = [photo.image for photo in photos(names)]
    left = [image[..., : image.shape[2] // 2] for image in loaded]
    right = [image[..., image.shape[2] // 2 :] for image in loaded]
    cropping = Cropping(crop_area=(0.05, 0.5), crop_rotation=0, crop_jitter=0)
    return (
        Crops("which photo", left, TRAIN, side, seed, cropping, tuple(names)),
        Crops("which photo", right, TEST, side, seed + 1, cropping, tuple(names)),
    )


def _cifar_at_hand() -> str | None:
    folder = Path(os.environ.get("SELFTAUGHT_DATA", "")) / "cifar10"
    return str(folder) if "SELFTAUGHT_DATA" in os.environ and folder.is_dir() else None
