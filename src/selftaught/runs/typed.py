"""Reads small JSON files of a run folder as values of a given type."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from selftaught.errors import UserError, readable
from selftaught.runs.files import read_limited
from selftaught.runs.parse import parse_json

T = TypeVar("T")
MAX_BYTES = 2**16


class TrainingPlan(TypedDict):
    """How long and in which precision trainings of a run run: `plan.json`."""

    steps: Annotated[int, Field(ge=1)]
    precision: Literal["32", "bf16"]


def read_typed(path: Path, root: Path, kind: type[T]) -> T:
    """The content of a JSON file, validated.

    Args:
        path: the file.
        root: the run folder that contains it.
        kind: the expected type, which pydantic can validate.

    Raises:
        UserError: the file is damaged, too large, a link, or has other content.
    """
    content = read_limited(path, root, MAX_BYTES)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        value: T = adapter.validate_python(parse_json(content))
        return value
    except ValueError as error:  # pydantic's is one, too
        raise UserError(f"{readable(str(path))} is damaged: remove it and repeat the command.") from error
