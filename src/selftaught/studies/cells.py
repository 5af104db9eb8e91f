"""One run of a study: trained or taken up again, then evaluated; what is done already is not repeated."""

from contextlib import suppress
from typing import Any

from selftaught.api.baseline import baseline
from selftaught.api.pretrain import pretrain
from selftaught.api.run import Run
from selftaught.config.settings import BUDGETS
from selftaught.errors import DivergedError
from selftaught.runs.files import exists
from selftaught.studies.folder import State, StudyFolder
from selftaught.studies.grid import Cell, Grid
from selftaught.studies.results import evaluate
from selftaught.training.interruption import Stop
from selftaught.training.machine import use_threads


def run_cell(folder: StudyFolder, state: State, grid: Grid, cell: Cell, stop: Stop) -> bool:
    """Do what is left to do for one run.

    Args:
        folder: the study's folder.
        state: what was decided when the study started.
        grid: the runs of the study.
        cell: the run.
        stop: a request to stop from a signal or another thread.

    Returns:
        Whether it is done; False if it was stopped, which the next call continues.

    Raises:
        UserError: the run cannot be trained or evaluated. A run that diverges is recorded instead.
    """
    count = len(grid.evaluations)
    if folder.is_done(cell, count):
        return True
    try:
        run = _trained(folder, state, cell, stop)
    except DivergedError as error:
        folder.write_failure(cell, str(error))
        return True
    if run is None:
        return False
    with use_threads(state.threads):
        for number, evaluation in enumerate(grid.evaluations, 1):
            if exists(folder.result(cell, number)):
                continue
            result = evaluate(run, evaluation, stop)
            if result is None:
                return False
            folder.write_result(cell, number, result)
    return True


def _trained(folder: StudyFolder, state: State, cell: Cell, stop: Stop) -> Run | None:
    """The finished run; None if it was stopped."""
    path, variant = folder.run(cell), cell.variant
    if exists(path / "config.yaml"):
        run = Run(path)
        return run if run.finished else _finished(pretrain(out=path, resume=True, stop=stop))
    if stop.requested:
        return None
    data = list(variant.data)
    if variant.baseline is not None:
        with use_threads(state.threads):
            return baseline(variant.baseline, data, out=path, seed=cell.seed, **variant.settings)
    settings: dict[str, Any] = dict(variant.settings)
    if variant.name in state.steps:
        settings = {key: value for key, value in settings.items() if key not in BUDGETS}
        settings["steps"] = state.steps[variant.name]
    decided = {"precision": state.precision[variant.name], "seed": cell.seed}
    settings = {"threads": state.threads, **settings, **decided}
    return _finished(pretrain(data, out=path, stop=stop, **settings))


def _finished(run: Run) -> Run | None:
    return run if run.finished else None


def seconds_of(folder: StudyFolder, cell: Cell) -> float:
    """Seconds of training of a run; 0 if it has not begun."""
    with suppress(Exception):  # a run that is being created
        return float(Run(folder.run(cell)).folder.read_status().get("seconds") or 0.0)
    return 0.0
