"""The suite runs in the precision that it is told to run in, child processes included."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STARTUP = Path(__file__).parent / "startup"
CHOSEN = """
import os, torch
from pathlib import Path
from selftaught.training.plan import choose_precision
choose_precision("bf16", torch.device("cpu"))
print(Path(os.environ["SELFTAUGHT_TEST_RECORD"]).exists(), choose_precision("auto", torch.device("cpu")))
"""


def child(precision: str, code: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(STARTUP), *filter(None, sys.path)])
    environment = {**os.environ, "SELFTAUGHT_TEST_PRECISION": precision, "PYTHONPATH": paths}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("precision", ["bf16", pytest.param("32", marks=pytest.mark.slow)])
def test_a_child_process_chooses_the_precision_of_the_tests_and_its_choice_is_recorded(
    precision, tmp_path, monkeypatch
):
    """Not that of tests that set a precision."""
    monkeypatch.setenv("SELFTAUGHT_TEST_RECORD", str(record := tmp_path / "record"))
    assert child(precision, CHOSEN).stdout == f"False {precision}\n"
    assert record.read_text() == "tests/test_precision_of_tests.py\n"


def test_another_precision_is_refused():
    refused = child("16", "pass")
    assert refused.returncode != 0
    assert "SELFTAUGHT_TEST_PRECISION must be 32 or bf16, got '16'" in refused.stderr


@pytest.mark.skipif("SELFTAUGHT_TEST_PRECISION" not in os.environ, reason="SELFTAUGHT_TEST_PRECISION is not set")
def test_so_does_this_process():
    import torch

    from selftaught.training.plan import choose_precision

    assert choose_precision("auto", torch.device("cpu")) == os.environ["SELFTAUGHT_TEST_PRECISION"]
