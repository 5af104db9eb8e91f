"""The studies that ship with the package, and those in files."""

from pathlib import Path
from typing import NamedTuple

from selftaught.errors import UserError, readable, unknown
from selftaught.runs.validated import read_yaml
from selftaught.studies.definition import Study, parse_study

SHIPPED = Path(__file__).parent / "shipped"


class Row(NamedTuple):
    """A row of `selftaught list studies`."""

    name: str
    question: str
    paper: str


def names() -> list[str]:
    """Names of the shipped studies."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def list_studies() -> list[Row]:
    """The shipped studies with their questions."""
    return [Row(name, study.question, study.paper) for name in names() for _, study in [load_study(name)]]


def load_study(name: str) -> tuple[str, Study]:
    """A study by its name, or from a YAML file.

    Args:
        name: of a shipped study, or a path that ends in .yaml or .yml.

    Returns:
        Its name (for a file, that without its suffix), and the study.

    Raises:
        UserError: there is no such study, or its file is invalid.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(
                f"no such file: {readable(name)!r}; give a YAML file, or a name of `selftaught list studies`."
            )
        return path.stem, parse_study(read_yaml(path), readable(name))
    if name not in names():
        raise unknown("study", readable(name), names())
    path = SHIPPED / f"{name}.yaml"
    return name, parse_study(read_yaml(path), path.name)
