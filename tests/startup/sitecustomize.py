"""Fixes what `--precision auto` chooses, in the tests and in every Python process that they start.

Python imports a module of this name when it starts. `tests/conftest.py` does so for the tests, and puts this folder on
the path of their child processes. Without SELFTAUGHT_TEST_PRECISION nothing is changed.

With SELFTAUGHT_TEST_RECORD=FILE, the file gets the path of every file with a test that was asked for a choice: only
those can give another result in the other precision.
"""

import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "SELFTAUGHT_TEST_PRECISION"
RECORD = "SELFTAUGHT_TEST_RECORD"
MODULE = "selftaught.training.plan"


class FixedPrecision(MetaPathFinder):
    """Imports the module that chooses the precision with its measurement replaced."""

    def __init__(self, precision: str) -> None:
        self.precision, self.searching = precision, False

    def find_spec(self, name, path=None, target=None):
        if name != MODULE or self.searching:
            return None
        self.searching = True
        try:
            spec = find_spec(name)
        finally:
            self.searching = False
        spec.loader = Replacing(spec.loader, self.precision)
        return spec


class Replacing(Loader):
    """Executes a module, then replaces its measurement."""

    def __init__(self, loader: Loader, precision: str) -> None:
        self.loader, self.precision = loader, precision

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        self.loader.exec_module(module)
        assert hasattr(module, "_bf16_is_faster"), "the measurement to be replaced has another name"
        module._bf16_is_faster = self.bf16_is_faster

    def bf16_is_faster(self) -> bool:
        path, _, test = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")  # child processes inherit it
        if test and RECORD in os.environ:
            with Path(os.environ[RECORD]).open("a") as record:
                record.write(f"{path}\n")
        return self.precision == "bf16"


if precision := os.environ.get(VARIABLE):
    if precision not in ("32", "bf16"):
        sys.exit(f"{VARIABLE} must be 32 or bf16, got {precision!r}.")
    sys.meta_path.insert(0, FixedPrecision(precision))
