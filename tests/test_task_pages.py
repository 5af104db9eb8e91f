"""The pages of the pretext tasks are up to date with the code; `make docs` regenerates them."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from selftaught.config.settings import offered
from selftaught.pretext import TASKS, task_class

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_docs", DOCS / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", TASKS)
def test_the_page_of_a_task_is_up_to_date_and_has_a_picture(name, make):
    path = DOCS / "tasks" / f"{name}.md"
    assert path.exists(), "run `make docs`"
    assert path.read_text() == make.page(name, make.results_of(name)), "run `make docs`"
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
    assert "Not in the [table of all tasks]" in page


def test_limits_are_stated_for_every_task_and_refer_to_settings_and_pages_that_exist(make):
    limits = yaml.safe_load(make.LIMITS.read_text())
    assert set(limits) == set(TASKS)
    for name, limit in limits.items():
        flags = {f"--{setting.name.replace('_', '-')}" for setting in offered(name, make.encoder(name))}
        assert set(re.findall(r"--[a-z-]+", limit)) <= flags, name
        for page, anchor in re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", limit):
            headings = re.findall(r"^#+ (.+)$", (DOCS / "tasks" / page).read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in anchors, (name, page, anchor)


def test_the_evaluation_of_a_task_follows_from_its_attributes(make):
    assert "recomputed on whole images" in make.page("jigsaw", [])
    assert "recomputed on whole images" not in make.page("rotation", [])
    assert "on the pretraining images only" in make.page("npid", [])
    assert "there is no shortcut audit" in make.page("autoencoder", [])
    assert "of the critic, logged" in make.page("bigan", [])
    assert "selftaught audit runs/gan" in make.page("gan", [])
    assert "same input preprocessing" in make.page("colorization", [])


def test_every_guard_is_of_fields_that_the_task_has(make):
    for name in TASKS:
        task = task_class(name)
        for off, on in task.shortcut_guards.values():
            assert set(off) == set(on) <= set(task.__dataclass_fields__)
            assert off != on


def test_a_result_has_its_conditions_and_the_best_layer_in_bold(make):
    layers = [
        {"layer": "first", "accuracy": 0.5, "std": 0.01, "random": 0.45},
        {"layer": "last", "accuracy": 0.61, "std": None, "random": 0.4},
    ]
    entry = {"task": "rotation", "data": "cifar10", "minutes": 3.5, "steps": 1200, "seeds": 3, "layers": layers}
    page = make.page("rotation", [{**entry, "command": "selftaught x", "note": "A < B."}])
    assert "**cifar10**, 3.5 minutes (1,200 steps), 3 seeds:" in page
    page_with_options = make.page("rotation", [{**entry, "options": {"head": "mlp", "flip": False}}])
    assert "3 seeds, `--head mlp --no-flip`:" in page_with_options
    assert "| first | 0.500 ± 0.010 | 0.450 | +0.050 |" in page
    assert "| last | **0.610** | 0.400 | +0.210 |" in page
    assert "\n    selftaught x\n" in page
    assert "A &lt; B. Bold: the best layer on the test images." in page
    assert "Not in the [table" not in page
    assert "0.610" in make.page("rotation", [entry])  # no command, no note


def test_the_best_layer_is_that_of_held_out_images_where_they_were_recorded(make):
    layers = [
        {"layer": "first", "accuracy": 0.5, "held_out": 0.6, "random": 0.45},
        {"layer": "last", "accuracy": 0.61, "held_out": 0.5, "random": 0.4},
    ]
    entry = {"task": "rotation", "data": "cifar10", "minutes": 3, "seeds": 1, "layers": layers}
    page = make.page("rotation", [entry])
    assert "| first | **0.500** |" in page
    assert "Bold: the best layer on held-out training images." in page


def test_text_of_docstrings_is_no_markup(make):
    assert make.text("a <b>\n* c https://x.y/z.") == "a &lt;b> \\* c <https://x.y/z>."
    assert make.table(("a", "b"), [("1 | 2", "3")]) == "| a | b |\n| --- | --- |\n| 1 \\| 2 | 3 |"
    assert make.code({"normalize": False, "gap": 0.0, "deep": True}) == "`--no-normalize --gap 0 --deep`"
