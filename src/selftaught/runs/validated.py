"""Readers of YAML and JSON files of a run folder, which validate the content."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from selftaught.errors import UserError, readable
from selftaught.runs.files import read_limited
from selftaught.runs.models import Model, mismatch
from selftaught.runs.parse import one_line, parse_json, parse_yaml

T = TypeVar("T")
MAX_CONFIG, MAX_RESULT, MAX_SMALL = 2**20, 2**23, 2**16
"""Maximum size in bytes of a YAML file, of the JSON file of a result, and of a small one of trainings."""


class TrainingPlan(TypedDict):
    """How long and in which precision trainings of a run run: `plan.json`."""

    steps: Annotated[int, Field(ge=1)]
    precision: Literal["32", "bf16"]


def read_typed(path: Path, root: Path, kind: type[T]) -> T:
    """Read a small JSON file as a value of a given type.

    Args:
        path: the file.
        root: the run folder that contains it.
        kind: the expected type, which pydantic can validate.

    Raises:
        UserError: the file is damaged, too large, a link, or has other content.
    """
    content = read_limited(path, root, MAX_SMALL)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        value: T = adapter.validate_python(parse_json(content))
        return value
    except ValueError as error:  # pydantic's is one, too
        raise UserError(f"{readable(str(path))} is damaged: remove it and repeat the command.") from error


def read_json(path: Path, root: Path, model: type[Model]) -> dict[str, Any]:
    """Read a JSON file that contains one object.

    Args:
        path: the file.
        root: the run folder that contains it.
        model: what the object must satisfy.

    Raises:
        UserError: it cannot be read or has other content.
    """
    place = readable(str(path))
    try:
        content = parse_json(read_limited(path, root, MAX_RESULT))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{place} is not valid JSON ({one_line(error)}): restore or remove it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{place} must contain one JSON object, got {type(content).__name__}: restore or remove it.")
    if reason := mismatch(model, content):
        raise UserError(f"{place} is damaged ({reason}): restore or remove it.")
    return content


def read_yaml(path: Path, root: Path | None = None) -> dict[str, Any]:
    """Read a YAML file that contains one mapping.

    Args:
        path: the file.
        root: the run folder; by default the folder of the file.

    Raises:
        UserError: it cannot be read, or is not UTF-8 or not YAML of plain values.
    """
    place = readable(str(path))
    try:
        content = parse_yaml(read_limited(path, root or path.parent, MAX_CONFIG))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{place} is not valid YAML ({one_line(error)}): correct the file.") from error
    if not isinstance(content, dict):
        raise UserError(f"{place} must contain `name: value` lines, got {type(content).__name__}: correct it.")
    return content
