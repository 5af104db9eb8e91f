"""`selftaught pretrain ... --profile`: time of each part of a training step. Nothing is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from selftaught.config.build import build, require_photos_for_crops
from selftaught.config.settings import Settings
from selftaught.data.photos import as_paths
from selftaught.training.machine import use_threads
from selftaught.training.plan import choose_device, choose_precision, make_fabric
from selftaught.training.profile import Profile, profile_step


def profile(
    data: str | Path | Sequence[str | Path],
    *,
    labels: str | Path | None = None,
    download: bool = True,
    **settings: Any,
) -> Profile:
    """Profile one training step of `pretrain` with the same settings, by part.

    Raises:
        UserError: a setting is invalid.
    """
    chosen = Settings.of(**settings)
    device = choose_device(chosen.general.device)
    require_photos_for_crops(as_paths(data), chosen)
    built = build(as_paths(data), chosen, None if labels is None else Path(labels), download)
    with use_threads(chosen.general.threads):
        precision = choose_precision(chosen.general.precision, device)
        return profile_step(built.pretraining, make_fabric(device, precision), precision)


def render(profiled: Profile) -> Group:
    """Format a profile as a table for the terminal."""
    table = Table(box=None, pad_edge=False)
    table.add_column("part")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    for part, seconds in {**profiled.parts, "step": profiled.seconds}.items():
        table.add_row(part, f"{1e3 * seconds:.2f}", f"{seconds / profiled.seconds:.0%}")
    summary = (
        f"\n{profiled.images_per_second:,.0f} images/s, {profiled.batch_size} per step; images are fetched during the "
        f"previous step; a log line takes {1e3 * profiled.line:.1f} ms\n"
        f"{profiled.operations / 1e9:,.1f} GFLOP per step, "
        f"{profiled.operations / profiled.seconds / 1e9:,.0f} GFLOP/s: "
        f"{profiled.share:.0%} of the {profiled.peak / 1e9:,.0f} GFLOP/s of a large matrix product\n"
        f"{profiled.hardware}, precision {profiled.precision}"
    )
    return Group(table, Text(summary))
