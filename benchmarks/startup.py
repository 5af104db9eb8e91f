"""Start-up: how long a person waits for help, for a list and for the first training step, each in a fresh process.

    python -m benchmarks.startup

For scale: what Python, torch and the `lightly` package take to be there. The first step is a whole `pretrain` of one
step on the digits that scikit-learn carries, from the start of the process to its end: images opened (decoded in the
round that does not count), settings decided, one step, all files of the run written.
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

from benchmarks.interleaved import Table, interleaved, options, parsed, publish, seconds_of

COMMAND = "import sys; from selftaught.cli import main; sys.exit(main(sys.argv[1:]))"
"""What the installed `selftaught` does."""
FIRST_STEP = ["pretrain", "digits", "--task", "rotation", "--crop", "1", "--steps", "1", "--batch-size", "16"]
IMPORTS = {"python": "pass", "import torch": "import torch", "import selftaught": "import selftaught"}


def run(code: str, words: Sequence[str], environment: Mapping[str, str]) -> float:
    """Seconds that a fresh Python takes for some code."""
    command = [sys.executable, "-c", code, *words]

    def wait() -> None:
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(words) or code} ended with {done.returncode}: {done.stderr}")

    return seconds_of(wait)


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = options(__doc__, rounds=5)
    given = parsed(parser, words, rounds=1)
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
        table = Table("a fresh process", "seconds", interleaved(sides, given.rounds), "import torch", "less")
    publish("startup", "Start-up", [table], ["What is not installed is left out."], given)


if __name__ == "__main__":
    main()
