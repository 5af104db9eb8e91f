"""Training steps: ours against the usual fp32 channels-first recipe; same net, images, batch, loss and optimizer.

    python -m benchmarks.steps
    python -m benchmarks.steps --encoders convnet --size 64 --views 128

A rotation step (four angles of each image) and a two-view step (as SimCLR's), end to end, images into views included,
and alone, on views that are there. Each side is a process of its own that is started once and told to run a round when
it is its turn; while one side works the other waits, loader workers included.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Literal

import torch

from benchmarks.interleaved import Table, interleaved, options, parsed, publish
from benchmarks.recipes import Job, Ours, Side, Usual

SIDES: dict[str, Callable[[Job], Side]] = {"ours": Ours, "usual recipe": Usual}
PARTS: dict[Literal["whole", "alone"], str] = {"whole": "end to end", "alone": "step alone"}
VIEWS = {"timm:resnet18": 32}
"""Default number of views per step where it is not 256: a step of about a second, so that a round has several."""


def serve(pipe: Connection, side: str, job: Job) -> None:
    """A process: builds a side, says what it is, then runs a round whenever it is told, until told None."""
    if job.threads:
        torch.set_num_threads(job.threads)
    built = SIDES[side](job)
    pipe.send(built.about)
    while (part := pipe.recv()) is not None:
        pipe.send(built.whole() if part == "whole" else built.alone())


@contextmanager
def running(job: Job) -> Iterator[tuple[dict[str, Connection], dict[str, str]]]:
    """Both sides, waiting, and what each says of itself."""
    spawn = multiprocessing.get_context("spawn")  # a fork would share the allocator's settings
    pipes, processes = {}, []
    try:
        for side in SIDES:
            pipes[side], theirs = spawn.Pipe()
            processes.append(spawn.Process(target=serve, args=(theirs, side, job)))
            processes[-1].start()
            theirs.close()  # so that a side that dies is an EOFError here and not a wait for ever
        yield pipes, {side: pipe.recv() for side, pipe in pipes.items()}
        for pipe in pipes.values():
            pipe.send(None)
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes:
            process.join(10)
            process.terminate()


def told(pipe: Connection, part: str) -> float:
    """Let a side run a round."""
    pipe.send(part)
    return float(pipe.recv())


def measured(job: Job, rounds: int) -> list[Table]:
    """Both tables of a job."""
    tables = []
    with running(job) as (pipes, about):
        for part, words in PARTS.items():
            sides = {side: lambda pipe=pipe, part=part: told(pipe, part) for side, pipe in pipes.items()}
            title = f"{job.task}, {job.encoder}, {job.views} views of {job.size} px, {words}"
            tables.append(Table(title, "images/s", interleaved(sides, rounds), notes=about))
    return tables


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("--encoders", nargs="+", default=["convnet", "timm:resnet18"])
    parser.add_argument("--tasks", nargs="+", choices=["rotation", "two views"], default=["rotation", "two views"])
    parser.add_argument("--size", type=int, default=32, help="side of the views in pixels; images as in `views`")
    parser.add_argument("--views", type=int, help="views per step; by default 256, and 32 for timm:resnet18")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2, help="processes that load for the usual recipe")
    parser.add_argument("--seconds", type=float, default=1.0, help="per side and round, at least three steps")
    given = parsed(parser, words, encoders=["convnet"], views=8, images=32, seconds=0.05)
    tables = []
    for encoder in given.encoders:
        views = given.views or VIEWS.get(encoder, 256)
        for task in given.tasks:
            job = Job(task, encoder, given.size, views, given.images, given.workers, given.threads, given.seconds)
            tables += measured(job, given.rounds)
    remarks = [
        "Images are noise, decoded beforehand for both sides.",
        "The optimizer is AdamW for both; nothing is compiled.",
    ]
    publish("steps", "Training steps", tables, remarks, given)


if __name__ == "__main__":
    main()
