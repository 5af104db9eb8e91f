"""What all tests share: the folders of toys, one thread per worker, a temporary cache, and a choice of precision.

SELFTAUGHT_TEST_PRECISION=32 or bf16 fixes what `--precision auto` chooses on this machine, in child processes too.
Tests that set a precision themselves are the same either way. SELFTAUGHT_TEST_RECORD=FILE lists the others' files.
"""

import os
import runpy
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from PIL import Image

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "pretext")]

STARTUP = HERE / "startup"
if "SELFTAUGHT_TEST_PRECISION" in os.environ:
    paths = [str(STARTUP), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    runpy.run_path(str(STARTUP / "sitecustomize.py"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread_per_worker():
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def _caches(tmp_path_factory) -> Iterator[Path]:
    """A folder for every test; `mktemp` would look through those of all tests before."""
    root = tmp_path_factory.mktemp("caches")
    return map(root.joinpath, map(str, count()))


@pytest.fixture(autouse=True)
def _own_cache(_caches, monkeypatch):
    own = next(_caches)
    own.mkdir()
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(own))


@pytest.fixture(autouse=True)
def _no_default_baselines(monkeypatch):
    """Initialization by k-means takes seconds; tests of the default rows switch them on again."""
    monkeypatch.setattr("selftaught.evaluation.baseline_rows.DEFAULT", ())


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder of 16 images of noise, 20 px, without labels."""
    root = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for number in range(16):
        pixels = torch.randint(256, (20, 20, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(root / f"{number}.png")
    return root


@pytest.fixture
def steps_taken(monkeypatch):
    """The trainer steps taken, in order of the trainings: [3, 3] for two of three steps."""
    from selftaught.api import best  # not at the top: it takes seconds, and few tests need it

    taken: list[int] = []
    step, begin = best.Trainer.step, best.Trainer.__init__

    def counted(self, *arguments):
        taken[-1] += 1
        return step(self, *arguments)

    def begun(self, *arguments):
        taken.append(0)
        begin(self, *arguments)

    monkeypatch.setattr(best.Trainer, "step", counted)
    monkeypatch.setattr(best.Trainer, "__init__", begun)
    return taken
