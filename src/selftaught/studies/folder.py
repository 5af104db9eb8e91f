"""The folder of a study: its definition and decisions in `study.json`, `runs/`, `results/` and the page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from selftaught.errors import UserError, readable
from selftaught.runs.atomic import write_bytes, write_error, write_text
from selftaught.runs.files import check_links, exists, make_folder, read_limited
from selftaught.runs.parse import one_line, parse_json
from selftaught.studies.definition import Evaluation, Strict, Study
from selftaught.studies.grid import Cell, Grid, make_grid
from selftaught.studies.results import Result, read_result

MAX_STATE = 2**22


class State(Strict):
    """`study.json`: what a study consists of, and what was decided when it started."""

    name: str
    study: Study
    scale: Annotated[str, Field(pattern="^(small|full)$")]
    data: list[str]
    probe_data: str | None
    seeds: Annotated[int, Field(ge=1, le=100)]
    threads: Annotated[int, Field(ge=1, le=4096)]
    """CPU threads of each run, which change the order of sums."""
    steps: Mapping[str, int]
    """Steps of the variants whose budget is in minutes."""
    precision: Mapping[str, Literal["32", "bf16"]]
    """Precision of the variants that are trained."""

    @property
    def grid(self) -> Grid:
        """The runs."""
        return make_grid(self.study, self.scale, self.data, self.probe_data, self.seeds)


@dataclass(frozen=True)
class StudyFolder:
    """Paths, readers and writers of a study's files."""

    path: Path

    @property
    def state(self) -> Path:
        """`study.json`."""
        return self.path / "study.json"

    @property
    def page(self) -> Path:
        """The page."""
        return self.path / "README.md"

    def run(self, cell: Cell) -> Path:
        """The run folder of a cell.

        Raises:
            UserError: a symbolic link leads to it.
        """
        path = self.path / "runs" / cell.name
        check_links(path, self.path)
        return path

    def result(self, cell: Cell, number: int) -> Path:
        """The file of one evaluation of a run, numbered from 1."""
        return self.path / "results" / f"{cell.name}-{number}.npz"

    def failure(self, cell: Cell) -> Path:
        """The file with the reason why a run cannot be finished."""
        return self.path / "results" / f"{cell.name}-failed.txt"

    def read_state(self) -> State | None:
        """The state; None if the study has not started here.

        Raises:
            UserError: the file is damaged.
        """
        if not exists(self.state):
            return None
        try:
            return State.model_validate(parse_json(read_limited(self.state, self.path, MAX_STATE)))
        except UserError:
            raise
        except (ValueError, ValidationError) as error:
            raise UserError(f"{readable(str(self.state))} is damaged ({one_line(error)}): restore the file.") from error

    def write_state(self, state: State) -> None:
        """Write the state.

        Raises:
            UserError: the folder has other files, or cannot be written.
        """
        try:
            if exists(self.path) and not exists(self.state) and any(self.path.iterdir()):
                raise UserError(
                    f"--out expects a new or empty folder, or that of the same study, but {readable(str(self.path))} "
                    "contains other files: give another --out."
                )
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from error
        write_text(self.state, json.dumps(state.model_dump(mode="json"), indent=1), self.path)

    def write_result(self, cell: Cell, number: int, result: Result) -> None:
        """Write the result of an evaluation."""
        write_bytes(self.result(cell, number), result.npz(), self.path)

    def write_failure(self, cell: Cell, reason: str) -> None:
        """Record that a run cannot be finished, such as one that diverged."""
        make_folder(self.path / "results", self.path)
        write_text(self.failure(cell), reason, self.path)

    def read_failure(self, cell: Cell) -> str | None:
        """Why a run cannot be finished; None if nothing is wrong with it."""
        path = self.failure(cell)
        return readable(read_limited(path, self.path, 10_000).decode("utf-8", "replace")) if exists(path) else None

    def read_results(self, cell: Cell, evaluations: Sequence[Evaluation]) -> list[Result] | None:
        """The results of all evaluations of a run; None if one is missing."""
        paths = [self.result(cell, number) for number in range(1, len(evaluations) + 1)]
        if not all(map(exists, paths)):
            return None
        return [read_result(path, self.path, each) for path, each in zip(paths, evaluations, strict=True)]

    def is_done(self, cell: Cell, count: int) -> bool:
        """Whether nothing is left to do for a run."""
        return exists(self.failure(cell)) or all(exists(self.result(cell, n)) for n in range(1, count + 1))

    def count_done(self, grid: Grid) -> int:
        """Number of runs with nothing left to do."""
        return sum(self.is_done(cell, len(grid.evaluations)) for cell in grid.cells)


def same_definition(state: State, other: State) -> str | None:
    """The first difference of two states, but for the number of seeds and decisions at the start; None if none."""
    before, after = _definition(state), _definition(other)
    return next((key for key in after if before.get(key) != after[key]), None)


def _definition(state: State) -> dict[str, Any]:
    dumped = state.model_dump(mode="json")
    texts = ("question", "paper", "finding", "note", "further", "seeds", "trends")
    study = {key: value for key, value in dumped["study"].items() if key not in texts}
    return {**study, "scale": dumped["scale"], "data": dumped["data"], "probe data": dumped["probe_data"]}
