"""Start-up time: help, a list and the first training step, each in a new process.

    python -m benchmarks.startup

For comparison: starting Python, and importing torch and the `lightly` package. The first step is a complete `pretrain`
of one step on scikit-learn's digits, from start to end of the process: open the images (decoded in the warm-up round),
choose the settings, train one step, write all files of the run.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.interleaved import Table, interleaved, parse_options, publish, seconds_of, shared_options

COMMAND = "import sys; from selftaught.cli import main; sys.exit(main(sys.argv[1:]))"
"""Code of the installed `selftaught` command."""
FIRST_STEP = ["pretrain", "digits", "--task", "rotation", "--crop", "1", "--steps", "1", "--batch-size", "16"]
IMPORTS = {"python": "pass", "import torch": "import torch", "import selftaught": "import selftaught"}


def run(code: str, arguments: Sequence[str], environment: Mapping[str, str]) -> float:
    """Seconds that a new Python process takes to run some code."""
    command = [sys.executable, "-c", code, *arguments]

    def run_process() -> None:
        process = subprocess.run(command, capture_output=True, text=True, env=environment)
        if process.returncode:
            raise RuntimeError(f"{shlex.join(arguments) or code} ended with {process.returncode}: {process.stderr}")

    return seconds_of(run_process)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = shared_options(__doc__, rounds=5)
    options = parse_options(parser, arguments, rounds=1)
    imports = dict(IMPORTS)
    if find_spec("lightly"):
        imports["import lightly"] = "import lightly, lightly.loss, lightly.transforms"
    with TemporaryDirectory() as folder:
        environment = {**os.environ, "SELFTAUGHT_CACHE": str(Path(folder) / "cache")}
        runs = count()

        def first_step() -> float:
            return run(COMMAND, [*FIRST_STEP, "--out", str(Path(folder) / f"run-{next(runs)}")], environment)

        sides: dict[str, Callable[[], float]] = {
            name: partial(run, code, [], environment) for name, code in imports.items()
        }
        sides["selftaught --help"] = partial(run, COMMAND, ["--help"], environment)
        sides["selftaught list tasks"] = partial(run, COMMAND, ["list", "tasks"], environment)
        sides["selftaught pretrain --help"] = partial(run, COMMAND, ["pretrain", "--help"], environment)
        sides["selftaught pretrain, one step"] = first_step
        table = Table("a new process", "seconds", interleaved(sides, options.rounds), "import torch", "less")
    publish("startup", "Start-up", [table], ["`import lightly` is measured only if it is installed."], options)


if __name__ == "__main__":
    main()
