"""Speed of several processes that share a batch: two on two cores, compared with one that computes on two threads.

Both sides take the same steps of the library's trainer on the same images. Each is a group of processes of its own that
waits while the other one is measured. Between CPUs processes talk by gloo; between GPUs they would by NCCL.

    python -m benchmarks.processes
"""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from time import perf_counter

import torch

from benchmarks.images import noise, stored
from benchmarks.interleaved import Table, interleaved, parse_options, publish, shared_options
from selftaught.cli.process import keep_freed_memory
from selftaught.encoders import make_encoder
from selftaught.modules.processes import processes
from selftaught.pretext import task_class
from selftaught.training.distributed import joined
from selftaught.training.loop import Pretraining
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import make_fabric
from selftaught.training.trial import Trial

CPU = torch.device("cpu")
TASKS = ("rotation", "simclr")
"""A loss that is a mean over images, and one that compares the images of a batch."""


def free_port() -> int:
    """A port that no other program uses at the moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(words: Sequence[str], count: int) -> list[subprocess.Popen[str]]:
    """Start `python -m WORDS` as so many processes of one group, as torchrun does."""
    port = str(free_port())
    return [
        subprocess.Popen(
            [sys.executable, "-m", *words],
            env={
                **os.environ,
                **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)},
                **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


class Side:
    """A group of processes that takes steps when it is told to.

    Args:
        count: number of processes.
        threads: CPU threads of each.
        job: task, side of the images, batch size and steps per measurement.
    """

    def __init__(self, count: int, threads: int, job: Sequence[str]) -> None:
        self.children = start(["benchmarks.processes", "--worker", *job, str(threads)], count)

    def rate(self) -> float:
        """Images per second of the group."""
        for child in self.children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        rates = []
        for child in self.children:
            assert child.stdout is not None
            rates.append(float(child.stdout.readline()))
        return min(rates)

    def end(self) -> None:
        """End the processes."""
        for child in self.children:
            assert child.stdin is not None
            child.stdin.close()
        for child in self.children:
            child.wait()


def work(name: str, size: int, batch_size: int, steps: int, threads: int) -> None:
    """Take `steps` steps for every line of the input, and print images per second."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    with joined("cpu"):
        torch.manual_seed(0)
        source, task = stored(noise(4 * batch_size, size)), task_class(name)(size=size)
        encoder = make_encoder("convnet", size=size)
        heads = task.heads(encoder, source)
        run = Pretraining(task, encoder, heads, source, Optimization(), 1, batch_size, 0)
        trial = Trial(run, make_fabric(CPU, "32"), False)
        for number, _ in enumerate(sys.stdin):
            processes().first(lambda: None)  # all start at the same time
            begun = perf_counter()
            for step in range(steps):
                trial.step(number * steps + step)
            print(steps * batch_size / (perf_counter() - begun), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--worker"]:
        name, *numbers = words[1:]
        return work(name, *map(int, numbers))
    parser = shared_options(__doc__, rounds=7)
    parser.add_argument("--size", type=int, default=32, help="side of the views in pixels")
    parser.add_argument("--batch-size", type=int, default=128, help="images per step, of all processes together")
    parser.add_argument("--steps", type=int, default=10, help="steps per measurement")
    parser.add_argument("--count", type=int, default=2, help="number of processes, and of threads of the other side")
    options = parse_options(parser, words, size=16, batch_size=4, steps=2)
    tables = []
    for name in TASKS:
        job = [name, str(options.size), str(options.batch_size), str(options.steps)]
        sides = {
            f"{options.count} processes": Side(options.count, 1, job),
            f"one process, {options.count} threads": Side(1, options.count, job),
        }
        rates = interleaved({title: side.rate for title, side in sides.items()}, options.rounds)
        for side in sides.values():
            side.end()
        title = f"{name}, convnet, {options.batch_size} images of {options.size} px per step"
        tables.append(Table(title, "images/s", rates, reference=f"{options.count} processes"))
    publish("processes", "Several processes", tables, ["fp32, gloo. Images are noise."], options)
    return None


if __name__ == "__main__":
    main()
