"""The pages of the pretext tasks are what their code says now; `make docs` writes them anew."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from selftaught.config.settings import offered
from selftaught.pretext import TASKS, task_class

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def make() -> ModuleType:
    found = importlib.util.spec_from_file_location("make_docs", DOCS / "make.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", TASKS)
def test_the_page_of_a_task_is_up_to_date_and_has_a_picture(name, make):
    path = DOCS / "tasks" / f"{name}.md"
    assert path.exists(), "run `make docs`"
    assert path.read_text() == make.page(name, make.measured(name)), "run `make docs`"
    assert 0 < path.with_suffix(".png").stat().st_size < 60_000


def test_there_is_no_page_of_a_task_that_is_gone():
    assert {path.stem for path in (DOCS / "tasks").iterdir()} == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_a_page_names_every_setting_and_the_paper(name, make):
    page = make.page(name, [])
    for setting in offered(name, make.encoder(name)):
        assert (f"| `--{setting.name.replace('_', '-')}` |" in page) == (setting.owner == f"Task {name}")
    assert "<http" in page
    assert all(f"| {guard} | `--" in page for guard in task_class(name).shortcut_guards)
    assert "Not measured yet" in page


def test_every_guard_is_of_fields_that_the_task_has(make):
    for name in TASKS:
        task = task_class(name)
        for off, on in task.shortcut_guards.values():
            assert set(off) == set(on) <= set(task.__dataclass_fields__)
            assert off != on


def test_a_measured_row_stands_on_the_page_with_its_best_layer_in_bold(make):
    layers = [
        {"layer": "first", "accuracy": 0.5, "std": 0.01, "random": 0.45},
        {"layer": "last", "accuracy": 0.61, "std": None, "random": 0.4},
    ]
    found = {"task": "rotation", "data": "cifar10", "minutes": 3.5, "steps": 1200, "seeds": 3, "layers": layers}
    page = make.page("rotation", [{**found, "command": "selftaught x", "note": "A < B."}])
    assert "cifar10, 3.5 minutes (1,200 steps), 3 seeds:" in page
    page_of_another = make.page("rotation", [{**found, "options": {"head": "mlp", "flip": False}}])
    assert "3 seeds, with `--head mlp --no-flip`:" in page_of_another
    assert "| first | 0.500 ± 0.010 | 0.450 | +0.050 |" in page
    assert "| last | **0.610** | 0.400 | +0.210 |" in page
    assert "\n    selftaught x\n" in page
    assert "A &lt; B." in page
    assert "Not measured" not in page
    assert "0.610" in make.page("rotation", [found])  # no command, no note


def test_text_of_docstrings_is_no_markup(make):
    assert make.text("a <b>\n* c https://x.y/z.") == "a &lt;b> \\* c <https://x.y/z>."
    assert make.table(("a", "b"), [("1 | 2", "3")]) == "| a | b |\n| --- | --- |\n| 1 \\| 2 | 3 |"
    assert make.code({"normalize": False, "gap": 0.0, "deep": True}) == "`--no-normalize --gap 0 --deep`"
