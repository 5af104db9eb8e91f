"""The library leaves the process that calls it as it was, and runs in several threads do not disturb each other."""

import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crash import in_child
from selftaught import Run, pretrain, profile
from selftaught.training.machine import single_threaded_worker, use_threads
from selftaught.training.randomness import preserve_rng, seeded_rng

# The fork below happens while torch's threads sleep; see `in_child`.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

TINY = {"size": 16, "batch_size": 8, "width": 8, "precision": "32", "steps": 6, "threads": 1}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        (root / name).mkdir()
        for number in range(24):
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(root / name / f"{number}.png")
    return root


def in_thread(work):
    """What a function returns in a new thread."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def process_state() -> dict[str, object]:
    """What a library could change in the process that calls it."""
    return {
        "torch generator": torch.random.get_rng_state().tolist(),
        "numpy generator": [np.asarray(part).tolist() for part in np.random.get_state()],
        "python generator": random.getstate(),
        "environment": dict(os.environ),
        "threads": torch.get_num_threads(),
        "threads of a new thread": in_thread(torch.get_num_threads),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "warning filters": list(warnings.filters),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.enabled),
        "streams": (sys.stdout, sys.stderr, sys.excepthook),
    }


def test_every_call_leaves_the_process_as_it_was(images, tmp_path):
    from selftaught.training.plan import make_fabric

    make_fabric(torch.device("cpu"), "32")  # what is imported late is imported now
    torch.manual_seed(5)
    before = process_state()
    run = pretrain(images, out=tmp_path / "run", **TINY)
    calls = {
        "pretrain": lambda: pretrain(images, out=tmp_path / "minutes", **{**TINY, "steps": None, "minutes": 1e-3}),
        "probe": lambda: run.probe(images),
        "sgd probe": lambda: run.probe(images, probe="sgd", limit=16),
        "invariance": lambda: run.invariance(images, images=8),
        "audit": lambda: run.audit(images, images=16),
        "encoder": lambda: Run(run.path).encoder,
    }
    for name, call in calls.items():
        call()
        after = process_state()
        assert [part for part in before if before[part] != after[part]] == [], name


def test_profile_leaves_the_generators_as_they_were(images, monkeypatch):
    from selftaught.training import profile as measured

    monkeypatch.setattr(measured, "SIDE", {"cpu": 64})
    monkeypatch.setattr(measured.profile_step, "__defaults__", (0.0,))
    before = process_state()
    profile(images, **TINY)
    assert process_state() == before


def test_importing_changes_nothing():
    code = (
        "import os, signal, random, sys, torch, numpy as np\n"
        "def state(): return dict(os.environ), signal.getsignal(signal.SIGTERM), "
        "torch.get_num_threads(), torch.initial_seed(), random.getstate(), np.random.get_state()[1].tolist()\n"
        "torch.manual_seed(1); before = state()\n"
        "import selftaught; selftaught.pretrain\n"
        "slow = {'matplotlib', 'scipy', 'sklearn', 'timm', 'torchvision'} & sys.modules.keys()\n"
        "assert not slow, f'training imports {slow}, which takes seconds and is not needed'\n"
        "[getattr(selftaught, name) for name in selftaught.__all__]\n"
        "assert state() == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_runs_in_two_threads_give_what_each_gives_alone(images, tmp_path):
    """Initial weights come from a generator that all threads share."""
    settings = {seed: {**TINY, "steps": 12, "seed": seed} for seed in (1, 2)}

    def weights(place: str, seed: int) -> bytes:
        run = pretrain(images, out=tmp_path / f"{place}-{seed}", **settings[seed])
        return (run.path / "encoder.safetensors").read_bytes()

    alone = {seed: weights("alone", seed) for seed in settings}
    together, errors = {}, []

    def work(seed: int) -> None:
        try:
            together[seed] = weights("together", seed)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in settings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert together == alone


def test_a_seeded_block_draws_the_same_whatever_other_threads_draw():
    expected = in_thread(lambda: drawn())
    running = threading.Event()

    def disturb() -> None:
        while not running.is_set():
            with seeded_rng(1, "other"):
                torch.rand(10)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        assert all(torch.equal(drawn(), expected) for _ in range(200))
    finally:
        running.set()
        thread.join()


def drawn() -> torch.Tensor:
    with seeded_rng(0, "mine"):
        return torch.cat([torch.rand(3) for _ in range(10)])


def test_blocks_can_be_nested():
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    with seeded_rng(0, "outer"):
        first = torch.rand(1)
        with seeded_rng(1, "inner"):
            torch.rand(1)
        second = torch.rand(1)
    with seeded_rng(0, "outer"):
        assert torch.equal(torch.rand(2), torch.cat([first, second]))
    assert torch.equal(torch.rand(2), expected)


def test_a_child_can_train_though_another_thread_held_the_lock_when_it_was_forked():
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with preserve_rng():
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    try:
        code, said = in_child(lambda: signal.alarm(5) or drawn().shape[0])
    finally:
        done.set()
        thread.join()
    assert (code, said) == (0, "30")


def test_a_single_threaded_worker_changes_no_other_thread():
    with use_threads(2):
        with single_threaded_worker() as worker:
            assert worker.submit(torch.get_num_threads).result() == 1
            assert torch.get_num_threads() == 2
            assert in_thread(torch.get_num_threads) == 2
        assert torch.get_num_threads() == 2


def test_a_fork_can_decode_though_its_parent_has_decoded(images):
    """Threads that decode, and locks that other threads hold, do not exist in the child, which would wait for ever."""
    from selftaught.config import settings
    from selftaught.data import open_source

    decode = sys.modules["selftaught.data.decode"]  # the package has a function of that name

    def first_batch() -> int:
        source = open_source(images, side=16, storage="encoded")
        return len(source.batch(torch.arange(8), torch.device("cpu")))

    assert first_batch() == 8
    with decode._ONE_LARGE, settings._parsing:
        code, said = in_child(lambda: signal.alarm(60) or (first_batch(), locks_are_free(decode, settings)))
    assert (code, said) == (0, "(8, True)")


def locks_are_free(decode, settings) -> bool:
    return decode._ONE_LARGE.acquire(timeout=1) and settings._parsing.acquire(timeout=1)


PROGRAM = """
import multiprocessing, sys
from selftaught import pretrain

def work(out):
    return pretrain(sys.argv[1], out=out, steps=2, size=16, batch_size=8, width=8, precision="32", threads=1).finished

if __name__ == "__main__":
    work(sys.argv[2] + "/parent")
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            print(method, pool.map_async(work, [f"{sys.argv[2]}/{method}{n}" for n in range(2)]).get(200))
"""


@pytest.mark.slow
def test_processes_of_multiprocessing_can_train(images, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py", images, tmp_path], capture_output=True, text=True, timeout=240
    )
    assert done.stdout.splitlines() == ["fork [True, True]", "spawn [True, True]"], done.stderr
