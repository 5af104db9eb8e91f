"""A study in one call: plan, run what is missing, and write the page."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import torch
from rich.console import Console

from selftaught.config.settings import absolute
from selftaught.display.console import stderr_console
from selftaught.display.progress import duration, time_left
from selftaught.errors import UserError, readable, require_between
from selftaught.limits import STUDY_SEEDS, THREADS
from selftaught.runs.locking import locked
from selftaught.studies.cells import run_cell, seconds_of
from selftaught.studies.folder import State, StudyFolder, same_definition
from selftaught.studies.grid import Grid, make_grid
from selftaught.studies.jobs import run_in_processes
from selftaught.studies.library import load_study
from selftaught.studies.page import write_page
from selftaught.studies.planning import StudyPlan, make_study_plan
from selftaught.studies.slurm import parse_options, run_on_slurm
from selftaught.training.interruption import Stop, stop_on_signals

SLURM_THREADS = 4
"""CPU threads of a Slurm job by default: the login node's number says nothing about the others."""


@dataclass(frozen=True)
class Options:
    """Options of a study, beside its definition."""

    scale: str = "small"
    """"small" or "full"."""
    data: Sequence[str] = ()
    """A source that replaces the study's, and "VARIANT=SOURCE" for those of variants."""
    probe_data: str | None = None
    """A source of labeled images that replaces those of all evaluations."""
    seeds: int | None = None
    """Number of seeds, instead of the study's."""
    jobs: int = 1
    """Number of runs at a time, each a process."""
    threads: int | None = None
    """CPU threads of each run; by default all of them divided by `jobs`, or 4 with `slurm`."""
    slurm: Sequence[str] | None = None
    """Options of sbatch, such as "partition=gpu": runs are jobs of a Slurm cluster, `jobs` of them at a time."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.scale not in ("small", "full"):
            raise UserError(f"--scale expects small or full, got {self.scale!r}.")
        for name in ("seeds", "jobs", "threads"):
            if (value := getattr(self, name)) is not None:
                require_between(f"--{name}", value, *(STUDY_SEEDS if name == "seeds" else THREADS))
        if self.slurm is not None:
            parse_options(self.slurm)

    @property
    def threads_per_run(self) -> int:
        """CPU threads of each run."""
        default = SLURM_THREADS if self.slurm is not None else max(1, torch.get_num_threads() // self.jobs)
        return self.threads or default


def plan_study(study: str, options: Options | None = None) -> StudyPlan:
    """Build and check every variant of a study, and estimate its time; nothing is written.

    Args:
        study: a name of `list_studies`, or a YAML file.
        options: scale, sources, seeds, jobs.

    Raises:
        UserError: the study, a variant or an evaluation is invalid.
    """
    options = options or Options()
    name, definition = load_study(study)
    grid = make_grid(definition, options.scale, options.data, options.probe_data, options.seeds)
    return make_study_plan(name, options.scale, grid, options.jobs, options.threads_per_run)


def run_study(
    study: str, options: Options | None = None, out: str | Path | None = None, stop: Stop | None = None
) -> Path | None:
    """Run a study, or continue it, and write its page.

    Args:
        study: a name of `list_studies`, or a YAML file.
        options: scale, sources, seeds, jobs. A study that is continued with more seeds keeps its runs.
        out: folder of the study, new or its own; by default studies/NAME-SCALE.
        stop: request a stop from another thread; in the main thread signals request it, too.

    Returns:
        The page; None if a signal stopped the study, which the same call continues. The page then has the results so
        far, if there are any.

    Raises:
        UserError: the study, a variant, an evaluation or the folder cannot be used. Nothing is trained then, unless a
            run fails later.
    """
    options, stop = options or Options(), stop or Stop()
    console = stderr_console(highlight=False, markup=False, soft_wrap=True)
    name, definition = load_study(study)
    folder = StudyFolder(Path(out) if out is not None else Path("studies") / f"{name}-{options.scale}")
    grid = make_grid(definition, options.scale, options.data, options.probe_data, options.seeds)
    requested = State(
        name=name, study=definition, scale=options.scale, data=[_lasting(item) for item in options.data],
        probe_data=None if options.probe_data is None else _lasting(options.probe_data), seeds=grid.seeds,
        threads=options.threads_per_run, steps={}, precision={},
    )  # fmt: skip
    with stop_on_signals(stop):
        state = _begin(folder, requested, grid, options, console)
        grid = state.grid
        with locked(folder.path, f"another process runs this study in {readable(str(folder.path))}: wait for it."):
            finished = _run(folder, state, grid, options, stop, console)
    page = write_page(folder, state, command(study, options, out)) if folder.count_done(grid) else None
    if finished:
        return page
    so_far = f"; the results so far: {readable(str(page))}" if page else ""
    console.print(f"interrupted; the same command continues: {readable(str(folder.path))}{so_far}")
    return None


def _lasting(item: str) -> str:
    """A source by a path that holds in whatever folder the study is continued."""
    name, equals, path = item.partition("=")
    return f"{name}={absolute(path)}" if equals and os.path.lexists(path) else absolute(item)


def _begin(folder: StudyFolder, requested: State, grid: Grid, options: Options, console: Console) -> State:
    """The state of a study that is continued, or of a new one after its plan was made."""
    before = folder.read_state()
    if before is not None:
        if different := same_definition(before, requested):
            raise UserError(
                f"{readable(str(folder.path))} contains another study: its {different} differs. Give another --out."
            )
        state = before.model_copy(update={"seeds": requested.seeds, "study": requested.study})
        if state != before:
            folder.write_state(state)
        return state
    plan = make_study_plan(requested.name, requested.scale, grid, options.jobs, options.threads_per_run)
    runs = len(grid.cells)
    console.print(f"{grid.study.question} {runs} runs, about {duration(60 * plan.minutes)} on {plan.hardware}")
    state = requested.model_copy(update={"steps": plan.steps, "precision": plan.precision})
    folder.write_state(state)
    return state


def _run(folder: StudyFolder, state: State, grid: Grid, options: Options, stop: Stop, console: Console) -> bool:
    """Do all runs that are not done; False after a stop."""
    cells, count = grid.cells, len(grid.evaluations)
    left = [index for index, cell in enumerate(cells) if not folder.is_done(cell, count)]
    begun, done = monotonic(), 0

    def on_done(index: int) -> None:
        nonlocal done
        done += 1
        remaining = time_left(monotonic() - begun, done, len(left))
        more = f", about {remaining}" if remaining else ""
        failed = folder.read_failure(cells[index])
        result = f"failed ({failed})" if failed else f"{seconds_of(folder, cells[index]) / 60:.1f} minutes of training"
        console.print(f"run {len(cells) - len(left) + done} of {len(cells)}: {cells[index].name}, {result}{more}")

    if options.slurm is not None and left:
        requested = parse_options(options.slurm)
        return run_on_slurm(folder, left, options.jobs, state.threads, requested, stop, on_done)
    if options.jobs > 1 and len(left) > 1:
        return run_in_processes(folder, left, options.jobs, state.threads, stop, on_done)
    for index in left:
        if not run_cell(folder, state, grid, cells[index], stop):
            return False
        on_done(index)
    return True


def command(study: str, options: Options, out: str | Path | None) -> str:
    """The command that repeats a study."""
    parts = ["selftaught study", _quoted(study), "--scale", options.scale]
    for item in options.data:
        parts += ["--data", _quoted(item)]
    parts += [] if options.probe_data is None else ["--probe-data", _quoted(options.probe_data)]
    parts += [] if options.seeds is None else ["--seeds", str(options.seeds)]
    parts += [] if options.jobs == 1 else ["--jobs", str(options.jobs)]
    if options.slurm is not None:
        parts += ["--slurm", *map(_quoted, options.slurm)]
    parts += [] if options.threads is None else ["--threads", str(options.threads)]
    parts += [] if out is None else ["--out", _quoted(str(out))]
    return " ".join(parts)


def _quoted(text: str) -> str:
    return text if text.replace("-", "").replace("_", "").replace(".", "").replace("/", "").isalnum() else f"'{text}'"
