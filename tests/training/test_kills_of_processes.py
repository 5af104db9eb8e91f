"""Two processes that train one run, of which a random one is killed again and again, end with the weights of a run that
was never killed, bit for bit.

The table of results/processes.md: PYTHONPATH=src:tests python -m pytest -m slow -s -k twenty FILE
"""

import os
import random
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from test_kills import SETTINGS, assert_the_same_run, carry_out, pictures, progressed
from torch.distributed import TCPStore

from forks import server
from processes import environment
from selftaught.runs.log import read_log

STEPS = 400
KILLS = 20
COUNT = 2

pytestmark = pytest.mark.slow


def carry_out_as(variables: dict[str, str], arguments: list[str], cache: str, often: bool) -> None:
    """One process of a run; see `carry_out`."""
    os.environ.update(variables)
    carry_out(arguments, cache, often)


def begun(arguments: list[str], cache: Path, often: bool) -> tuple[list[BaseProcess], TCPStore]:
    """The processes of a run, and the store that torchrun would hold for them."""
    store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    places = [environment(rank, COUNT, store.port, TORCHELASTIC_USE_AGENT_STORE="True") for rank in range(COUNT)]
    context = server()
    children = [context.Process(target=carry_out_as, args=(place, arguments, str(cache), often)) for place in places]
    for child in children:
        child.start()
    return children, store


def trained(arguments: list[str], out: Path, cache: Path, kills: int) -> Counter[str]:
    """Train to the end, resumed after each of some kills of a random process; which were killed, and when.

    Every second kill comes while a checkpoint is being written, the others at a random time.
    """
    draw, done, slowest = random.Random(0), Counter(), 0.0
    log, part = out / "log.jsonl", out / "checkpoint" / "last.pt.part"
    while True:
        resumes = (out / "config.yaml").exists()
        command = (
            ["pretrain", "--resume", "--out", str(out)] if resumes else ["pretrain", *arguments, "--out", str(out)]
        )
        number, logged = sum(done.values()), log.stat().st_size if log.exists() else 0
        children, store = begun(command, cache, number < kills)
        if number == kills:
            for child in children:
                child.join(600)
            assert [child.exitcode for child in children] == [0] * COUNT
            del store
            done[f"steps in the log: {len(read_log(log))}"] = 0
            print(f"the others ended within {slowest:.1f} s")
            return done
        while not progressed(log, logged):
            assert all(child.is_alive() for child in children), "ended before it could be killed"
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.5))
        until = time.monotonic() + 2
        while number % 2 and not part.exists() and time.monotonic() < until:
            pass
        killed = draw.randrange(COUNT)
        children[killed].kill()
        at = time.monotonic()
        for child in children:
            child.join(60)
        slowest = max(slowest, time.monotonic() - at)
        codes = [child.exitcode for child in children]
        assert codes[killed] == -9, "the run ended before it was killed: more steps are needed"
        assert codes[1 - killed] == 2, codes  # with the message that the run can be resumed
        done[f"process {killed}, {'inside a save' if part.exists() else 'elsewhere'}"] += 1


@pytest.mark.parametrize("kills", [pytest.param(KILLS, id="twenty")])
def test_a_run_of_two_processes_killed_often_ends_as_if_nothing_had_happened(tmp_path, kills):
    arguments = [*pictures(tmp_path / "images"), *SETTINGS, "--task", "simclr", "--steps", str(STEPS)]
    trained(arguments, tmp_path / "whole", tmp_path / "cache", 0)
    done = trained(arguments, tmp_path / "parts", tmp_path / "cache", kills)
    print(dict(done))
    assert_the_same_run(tmp_path / "whole", tmp_path / "parts")
