"""`selftaught render`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from selftaught.cli.errors import integers
from selftaught.cli.options import Count
from selftaught.cli.output import print_result
from selftaught.errors import readable


def render(
    *,
    out: Annotated[Path, Parameter(help="Folder: new, empty, or one to continue or extend.")],
    scenes: Annotated[Count, Parameter(help="Number of scenes.")] = 20_000,
    size: Annotated[Count, Parameter(help="Side of the square pictures in pixels.")] = 64,
    seed: Annotated[Count, Parameter(help="Random seed.")] = 0,
    textures: Annotated[
        str | None, Parameter(help="Source of images for half of the textures; default: procedural textures only.")
    ] = None,
    workers: Annotated[
        int | None, Parameter(converter=integers, help="Number of processes; default: one per core.")
    ] = None,
) -> None:
    """Render random scenes with depth, surface normals, instance ids and contours as a source of images.

    Requires the extra synthetic (Mitsuba 3). An interrupted command is continued by repeating it.
    """
    from selftaught.rendering.render import render as render_scenes

    folder = render_scenes(out, scenes=scenes, size=size, seed=seed, textures=textures, workers=workers)
    print_result(readable(str(folder)))
