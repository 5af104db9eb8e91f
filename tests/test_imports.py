"""Imports point down only; nothing of ours is imported against the direction that docs/design.md gives."""

import ast
from functools import cache
from pathlib import Path

import pytest

import selftaught

ROOT = Path(selftaught.__file__).parent

MAY = {
    "errors": set(),
    "limits": set(),
    "contracts": {"errors"},
    "display": {"errors"},
    "augment": {"contracts", "errors"},
    "modules": {"augment", "contracts", "errors"},
    "encoders": {"augment", "contracts", "errors"},
    "data": {"augment", "contracts", "display", "errors"},
    "pretext": {"augment", "contracts", "errors", "modules"},
    "runs": {"contracts", "errors"},
    "training": {"augment", "contracts", "display", "errors", "modules", "runs"},
    "evaluation": {"augment", "contracts", "data", "display", "encoders", "errors", "modules", "training"},
    "analysis": {"augment", "contracts", "data", "display", "errors", "evaluation", "training"},
    "figures": {"display", "errors"},
    "rendering": {"augment", "contracts", "data", "display", "errors", "runs"},
    "report": {"errors", "evaluation", "figures", "runs"},
    "config": {"contracts", "data", "encoders", "errors", "evaluation", "pretext", "runs", "training"},
    "api": {
        *("analysis", "config", "contracts", "data", "display", "encoders", "errors", "evaluation", "figures"),
        *("modules", "report", "runs", "training"),
    },
    "studies": {
        *("api", "augment", "config", "contracts", "data", "display", "encoders", "errors", "evaluation", "figures"),
        *("modules", "report", "runs", "training"),
    },
    "cli": {
        *("analysis", "api", "config", "data", "display", "encoders", "errors", "evaluation", "pretext", "rendering"),
        *("report", "runs", "studies"),
        "training",
    },
    "__main__": {"cli"},
    "__init__": {"api", "contracts", "data", "encoders", "errors", "pretext", "rendering", "report"},
}


def part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def imported(path: Path) -> set[str]:
    """The modules of ours that a file imports anywhere in it: "selftaught.data.crops"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("selftaught.")}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    here = part(path)
    others = {name.split(".")[1] for name in imported(path)} - {here}
    may = MAY[here] | {"limits"}
    assert others <= may, f"{path.name} may not import {others - may}"


def test_one_module_communicates_between_processes():
    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        communicates = "torch.distributed" in text or "_distributed_c10d" in text
        assert communicates == (path == ROOT / "training" / "distributed.py"), path.name


def test_no_task_imports_another():
    tasks = [path for path in (ROOT / "pretext").glob("*.py") if path.stem != "__init__"]
    for path in tasks:
        assert not any(name.startswith("selftaught.pretext") for name in imported(path)), path.name


def test_training_names_no_task_and_the_library_never_imports_pyplot():
    from selftaught.pretext import TASKS

    for path in ROOT.rglob("*.py"):
        assert "pyplot" not in {n for name in imported(path) for n in name.split(".")}
    for path in (ROOT / "training").glob("*.py"):
        words = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not words & set(TASKS), path.name
