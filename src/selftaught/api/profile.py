"""What `selftaught pretrain ... --profile` answers: where the time of a step would go. Nothing is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from selftaught.config.build import build
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
    """Measure a training step by part, as `pretrain` with the same settings would take it.

    Raises:
        UserError: something was asked for that cannot be.
    """
    chosen = Settings.of(**settings)
    device = choose_device(chosen.general.device)
    built = build(as_paths(data), chosen, None if labels is None else Path(labels), download)
    with use_threads(chosen.general.threads):
        precision = choose_precision(chosen.general.precision, device)
        return profile_step(built.pretraining, make_fabric(device, precision), precision)


def render(found: Profile) -> Group:
    """The profile for people."""
    table = Table(box=None, pad_edge=False)
    table.add_column("part")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    for part, seconds in {**found.parts, "step": found.seconds}.items():
        table.add_row(part, f"{1e3 * seconds:.2f}", f"{seconds / found.seconds:.0%}")
    said = (
        f"\n{found.images_per_second:,.0f} images/s, {found.batch_size} a step; "
        f"images are fetched while the step before trains; a log line costs {1e3 * found.line:.1f} ms\n"
        f"{found.operations / 1e9:,.1f} GFLOP a step, {found.operations / found.seconds / 1e9:,.0f} GFLOP/s: "
        f"{found.share:.0%} of the {found.peak / 1e9:,.0f} GFLOP/s of a large matrix product\n"
        f"{found.hardware}, precision {found.precision}"
    )
    return Group(table, Text(said))
