"""One or several run folders in, one self-contained HTML page out."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from selftaught import figures
from selftaught.errors import UserError
from selftaught.figures.style import DARK
from selftaught.report.compare import CAPTION, COLUMNS, GAIN, WORDS, rows
from selftaught.report.embed import inline
from selftaught.report.record import Record, read_records
from selftaught.report.section import chances, make_section
from selftaught.runs.atomic import write_bytes

PICTURES = 1_200_000
"""Bytes that all task pictures of a page may take together, so that it can be mailed."""
LARGEST = 300_000
"""Bytes that one picture may take."""


def write_report(runs: Sequence[str | Path], out: str | Path) -> Path:
    """Write what the runs learned as one self-contained page without scripts.

    Args:
        runs: run folders. One gives its verdict, layers, curves and pictures; several are compared first.
        out: the HTML file; its folder is made.

    Returns:
        The file.

    Raises:
        UserError: if there is no run, one is no run folder or holds a file that cannot be read, or `out` is a folder.
    """
    out = Path(out)
    if out.is_dir():
        raise UserError(
            f"a report is one file, but {out} is a folder: name a file in it, such as {out / 'report.html'}."
        )
    paths = [Path(run) for run in runs]
    html = render(read_records(paths))
    content = html.encode("utf-8", errors="replace")  # names of files need not be valid text
    root = next((run for run in paths if run.absolute() in out.absolute().parents), None)
    if root is not None:
        write_bytes(out.absolute(), content, root.absolute())
        return out
    place = out.resolve()  # outside of runs, links lead where the user wants them to
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() and not place.is_file():  # /dev/stdout
        place.write_bytes(content)
    else:
        write_bytes(place, content)
    return out


def render(records: Sequence[Record]) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = sum(len(record.shown) + sum(map(len, record.earlier.values())) for record in records)
    limit = min(LARGEST, PICTURES // max(pictures, 1))
    return environment.get_template("page.html").render(
        sections=[make_section(record, number, limit) for number, record in enumerate(records)],
        rows=rows(records),
        columns=COLUMNS,
        caption=CAPTION,
        words=WORDS,
        gain=GAIN,
        overlays=overlaid(records) if len(records) > 1 else [],
        colors={light[1:]: (light, dark) for light, dark in DARK.items()},
    )


def overlaid(records: Sequence[Record]) -> list[tuple[str, Markup]]:
    """Charts that lay runs over each other, each with its heading: only what can be compared.

    Layers are compared where the data, the protocol, the view size and the labels of the probe agree, curves where the
    pretext task does: the losses of two tasks have no common scale.
    """
    charts: list[tuple[str, Markup]] = []
    probes: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = defaultdict(dict)
    tasks: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        for probe in record.probes:
            key = tuple(str(probe.get(name)) for name in ("data", "protocol", "size", "train", "test"))
            probes[key][record.name] = probe
        if record.log:
            tasks[str(record.config.get("task"))].append(record)
    for (data, protocol, *_), group in probes.items():
        if len(group) > 1:
            heading = f"every layer on {data}, protocol {protocol}"
            charts.append((heading, inline(figures.layers(group), f"layers{len(charts)}", heading)))
    for task, alike in tasks.items():
        for name in ["loss", *chances(alike[0])] if len(alike) > 1 else []:
            logs = {record.name: record.log for record in alike}
            heading = f"{name} of {task}"
            figure = figures.curves(logs, name, over="minutes", chance=chances(alike[0]).get(name))
            charts.append((heading, inline(figure, f"curves{len(charts)}", heading)))
    return charts
