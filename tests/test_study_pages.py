"""The pages of the studies are up to date with the studies and their results; `make docs` regenerates them."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from selftaught.studies.library import load_study, names

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def make() -> Iterator[ModuleType]:
    sys.path.insert(0, str(DOCS))
    import make_studies

    yield make_studies
    sys.path.remove(str(DOCS))


@pytest.mark.parametrize("name", names())
def test_the_page_of_a_study_is_up_to_date(name, make):
    page = make.page(name, load_study(name)[1])
    assert (DOCS / "studies" / f"{name}.md").read_text() == page, "run `make docs`"
    for variant in load_study(name)[1].variants:
        assert f"| **{variant}** |" in page


def test_the_list_has_every_study_and_no_page_is_left_over(make):
    assert {path.stem for path in make.PAGES.iterdir()} == {*names(), "README"}
    listed = (make.PAGES / "README.md").read_text()
    assert all(
        f"[{name}]({name}.md) | {load_study(name)[1].question} | {make.verdict(name)} |" in listed for name in names()
    )


def test_a_result_gives_the_verdict_and_the_conclusion(make, monkeypatch, tmp_path):
    monkeypatch.setattr(make, "RESULTS", tmp_path)
    name = "rotation-angles"
    assert make.verdict(name) == "Not run yet."
    assert "\n\nNot run yet.\n\n" in make.page(name, load_study(name)[1])
    (tmp_path / name).mkdir()
    outcome = {
        "verdict": "contradicted",
        "scale": "small",
        "seeds": 1,
        "runs": 2,
        "done": 2,
        "comparisons": [{"verdict": "contradicted"}],
    }
    (tmp_path / name / "outcome.json").write_text(json.dumps(outcome))
    (tmp_path / name / "README.md").write_text("# A question?\n\n**Contradicted:** why.\n\nThe finding.\n")
    assert make.verdict(name) == "**contradicted** (small, 1 seed)"
    (tmp_path / name / "outcome.json").write_text(json.dumps({**outcome, "done": 1}))
    assert make.verdict(name) == "**contradicted** (small, 1 seed, 1 of 2 runs so far)"
    outcome["comparisons"] += [{"verdict": "supported"}, None, {"verdict": "undecided"}]  # None: no result
    (tmp_path / name / "outcome.json").write_text(json.dumps(outcome))
    counts = "; further comparisons: 1 supported, 2 undecided"
    assert make.verdict(name) == f"**contradicted** (small, 1 seed){counts}"
    page = make.page(name, load_study(name)[1])
    assert "\n\n**Contradicted:** why.\n\n[Table" in page
    assert "Not run yet" not in page
