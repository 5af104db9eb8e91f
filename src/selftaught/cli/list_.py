"""`selftaught list`."""

import json
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from selftaught.cli.options import Json
from selftaught.cli.output import print_result


def list_(
    what: Annotated[
        Literal["tasks", "encoders", "sources", "probes", "baselines", "studies"], Parameter(help="What to list.")
    ],
    /,
    *,
    json_: Json = False,
) -> None:
    """List tasks, encoders, sources, probes, baselines or studies."""
    rows = _rows(what)
    if json_:
        print(json.dumps({what: rows}))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    print_result(table)


def _rows(what: str) -> list[dict[str, Any]]:
    if what == "sources":
        from selftaught.data import list_sources

        return [row._asdict() for row in list_sources()]
    if what == "studies":
        from selftaught.studies.library import list_studies

        return [row._asdict() for row in list_studies()]
    return [{"name": name, "description": text} for name, text in _descriptions(what).items()]


def _descriptions(what: str) -> dict[str, str]:
    """Name -> description: for classes, the first line of the docstring."""
    if what == "baselines":
        from selftaught.evaluation.baselines.prepare import BASELINES

        return dict(BASELINES)
    classes: dict[str, type] = {}
    if what == "tasks":
        from selftaught.pretext import TASKS, task_class

        classes = {name: task_class(name) for name in TASKS}
    elif what == "encoders":
        from selftaught.encoders import ENCODERS, encoder_class

        classes = {name: encoder_class(name) for name in ENCODERS}
    else:
        from selftaught.evaluation.probes import PROBES

        classes = dict(PROBES)
    return {name: (cls.__doc__ or "").strip().splitlines()[0] for name, cls in classes.items()}
