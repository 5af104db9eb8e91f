"""The suite runs in the precision that it is told to run in, child processes included."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STARTUP = Path(__file__).parent / "startup"
CHOSEN = (
    "import torch; from selftaught.training.plan import choose_precision as c; print(c('auto', torch.device('cpu')))"
)


def child(precision: str, code: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(STARTUP), *filter(None, sys.path)])
    environment = {**os.environ, "SELFTAUGHT_TEST_PRECISION": precision, "PYTHONPATH": paths}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("precision", ["bf16", pytest.param("32", marks=pytest.mark.slow)])
def test_a_child_process_chooses_the_precision_of_the_tests(precision):
    assert child(precision, CHOSEN).stdout == f"{precision}\n"


def test_another_precision_is_refused():
    refused = child("16", "pass")
    assert refused.returncode != 0
    assert "SELFTAUGHT_TEST_PRECISION must be 32 or bf16, got '16'" in refused.stderr


def test_files_whose_tests_depend_on_the_choice_are_recorded(tmp_path, monkeypatch):
    """By child processes as well, and not those of tests that set a precision."""
    monkeypatch.setenv("SELFTAUGHT_TEST_RECORD", str(record := tmp_path / "record"))
    child("32", CHOSEN.replace("'auto'", "'bf16'"))
    assert not record.exists()
    child("32", CHOSEN)
    assert record.read_text() == "tests/test_precision_of_tests.py\n"


@pytest.mark.skipif("SELFTAUGHT_TEST_PRECISION" not in os.environ, reason="SELFTAUGHT_TEST_PRECISION is not set")
def test_so_does_this_process():
    import torch

    from selftaught.training.plan import choose_precision

    assert choose_precision("auto", torch.device("cpu")) == os.environ["SELFTAUGHT_TEST_PRECISION"]
