"""The HTML report: one self-contained page for one or several runs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from selftaught import figures
from selftaught.errors import UserError
from selftaught.evaluation.table import METRICS
from selftaught.figures.style import DARK
from selftaught.report.compare import (
    COLUMNS,
    GAIN,
    TEXT_COLUMNS,
    all_rows,
    baseline_sentences,
    caption,
)
from selftaught.report.embed import inline
from selftaught.report.groups import group_results, sentences
from selftaught.report.record import Record, read_records
from selftaught.report.section import chances, make_section
from selftaught.report.verdict import metric_of
from selftaught.runs.atomic import write_bytes

MAX_TOTAL = 1_200_000
"""Maximum bytes of all task images on a page together, so that it can be sent by mail."""
MAX_IMAGE = 300_000
"""Maximum bytes of one image."""


def write_report(runs: Sequence[str | Path], out: str | Path) -> Path:
    """Write a report on the runs as one self-contained HTML page without scripts.

    Args:
        runs: run folders. One is shown with verdict, layers, curves and images; several are compared first.
        out: the HTML file; its folder is created.

    Returns:
        The file.

    Raises:
        UserError: no run is given, one is not a run folder or contains an unreadable file, or `out` is a folder.
    """
    out = Path(out)
    if out.is_dir():
        raise UserError(
            f"the report is written to a file, but {out} is a folder: give a file, such as {out / 'report.html'}."
        )
    paths = [Path(run) for run in runs]
    html = render(read_records(paths))
    content = html.encode("utf-8", errors="replace")  # file names may contain invalid UTF-8
    root = next((run for run in paths if run.absolute() in out.absolute().parents), None)
    if root is not None:
        write_bytes(out.absolute(), content, root.absolute())
        return out
    target = out.resolve()  # outside of run folders, symbolic links are followed
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not target.is_file():  # /dev/stdout
        target.write_bytes(content)
    else:
        write_bytes(target, content)
    return out


@cache
def _templates() -> Environment:
    """The templates, which are compiled once."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(records: Sequence[Record]) -> str:
    """The page as HTML text."""
    groups = group_results(records) if len(records) > 1 else []
    pictures = sum(
        len(record.shown) + sum(map(len, record.earlier.values())) + len(record.pictures) + len(record.transfers)
        for record in records
    )
    limit = min(MAX_IMAGE, MAX_TOTAL // max(pictures, 1))
    return (
        _templates()
        .get_template("page.html")
        .render(
            sections=[make_section(record, number, limit) for number, record in enumerate(records)],
            rows=all_rows(records, groups),
            columns=COLUMNS,
            caption=caption(groups),
            text_columns=TEXT_COLUMNS,
            gain=GAIN,
            sentences=[*baseline_sentences(records), *sentences(groups)],
            overlays=comparison_charts(records) if len(records) > 1 else [],
            colors={light[1:]: (light, dark) for light, dark in DARK.items()},
        )
    )


def comparison_charts(records: Sequence[Record]) -> list[tuple[str, Markup]]:
    """Charts that show several runs together, each with its heading.

    Layers are compared if data, probe, pooling, view size and numbers of labeled images of the probes agree. Curves are
    compared if the pretext task is the same: the losses of two tasks have no common scale.
    """
    charts: list[tuple[str, Markup]] = []
    probes: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = defaultdict(dict)
    tasks: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        for probe in record.probes:
            key = tuple(
                str(probe.get(name))
                for name in ("data", "probe", "metric", "pooling", "dimensions", "size", "train", "test")
            )
            probes[key][record.name] = probe
        if record.log:
            tasks[str(record.config.get("task"))].append(record)
    for (data, kind, *_), group in probes.items():
        if len(group) > 1:
            metric = METRICS[metric_of(next(iter(group.values())))].short
            heading = f"Probe {metric} by layer on {data} ({kind} probe)"
            charts.append((heading, inline(figures.layers(group), f"layers{len(charts)}", heading)))
    for task, same_task in tasks.items():
        for name in ["loss", *chances(same_task[0])] if len(same_task) > 1 else []:
            logs = {record.name: record.log for record in same_task}
            heading = f"{name} of {task}"
            figure = figures.curves(logs, name, over="minutes", chance=chances(same_task[0]).get(name))
            charts.append((heading, inline(figure, f"curves{len(charts)}", heading)))
    return charts
