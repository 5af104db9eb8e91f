"""The demo: pretrain an encoder on one bundled photo and probe it on a classification task made of the other photos.

The probing task is to classify which photo a crop was taken from. Crops of the left half of each photo are the training
set, crops of the right half the test set, so the two share no pixel. Nothing is downloaded and no labels are needed.
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
"""The photo for pretraining: a temple among trees, 640 x 427, bundled with scikit-learn."""
TRAIN, TEST = 8_000, 4_000
"""Number of training and of test crops of the probe."""


def demonstrate(
    minutes: float, out: Path | None, data: str | None, on_result: Callable[[Any], None], stop: Stop | None = None
) -> None:
    """Pretrain, probe and write the report.

    Args:
        minutes: pretraining time.
        out: the run folder; None for the first unused of runs/demo, runs/demo-2 ...
        data: further labeled images to probe on; None for CIFAR-10 if it is in $SELFTAUGHT_DATA.
        on_result: prints a table or a line of text.
        stop: stops pretraining early when requested; the run is then not probed.
    """
    data = data or _local_cifar()
    # Open all images first, so that a misspelled path fails before pretraining.
    problems = [which_photo(PHOTO_VIEW), *([] if data is None else [open_splits(data, side=PHOTO_VIEW)])]
    out = out or numbered(Path("runs/demo"))
    run = pretrain(TEACHER, task="rotation", minutes=minutes, size=PHOTO_VIEW, out=out, stop=stop)
    if not run.finished:
        return
    for problem in problems:
        on_result(render(run.probe(problem, baselines=())))
    on_result(f"The report: {run.report()}")


def which_photo(side: int, seed: int = 0) -> tuple[Crops, Crops]:
    """The labeled probing task: training crops from left halves, test crops from right halves.

    Args:
        side: side of the views in pixels.
        seed: random seed of the crops.

    Raises:
        UserError: a package that bundles the photos is not installed.
    """
    names = [name for name in PHOTOS if name != TEACHER]
    loaded = [photo.image for photo in photos(names)]
    left = [image[..., : image.shape[2] // 2] for image in loaded]
    right = [image[..., image.shape[2] // 2 :] for image in loaded]
    cropping = Cropping(crop_area=(0.05, 0.5), crop_rotation=0, crop_jitter=0)
    return (
        Crops("bundled photos", left, TRAIN, side, seed, cropping, tuple(names)),
        Crops("bundled photos", right, TEST, side, seed + 1, cropping, tuple(names)),
    )


def _local_cifar() -> str | None:
    folder = Path(os.environ.get("SELFTAUGHT_DATA", "")) / "cifar10"
    return str(folder) if "SELFTAUGHT_DATA" in os.environ and folder.is_dir() else None
