"""Training steps: ours against the usual fp32 channels-first recipe; same network, images, batch, loss and optimizer.

    python -m benchmarks.steps
    python -m benchmarks.steps --encoders convnet --size 64 --views 128

A rotation step (four angles of each image) and a two-view step (as in SimCLR), end to end (views are made from images)
and alone (on views made beforehand). Each side is a process of its own, started once, that runs one round per message.
While one side runs, the other is idle, including its loader workers.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Literal

import torch

from benchmarks.interleaved import Table, interleaved, parse_options, publish, shared_options
from benchmarks.recipes import Job, Ours, Side, Usual

SIDES: dict[str, Callable[[Job], Side]] = {"ours": Ours, "usual recipe": Usual}
PARTS: dict[Literal["whole", "alone"], str] = {"whole": "end to end", "alone": "step alone"}
VIEWS = {"timm:resnet18": 32}
"""Default number of views per step if it is not 256: about a second per step, so that a round has several."""


def serve(pipe: Connection, side: str, job: Job) -> None:
    """Body of a process: builds a side, sends its description, then runs one round per message, until None arrives."""
    if job.threads:
        torch.set_num_threads(job.threads)
    built = SIDES[side](job)
    pipe.send(built.about)
    while (part := pipe.recv()) is not None:
        pipe.send(built.whole() if part == "whole" else built.alone())


@contextmanager
def running(job: Job) -> Iterator[tuple[dict[str, Connection], dict[str, str]]]:
    """Start both sides; yields the pipe and the description of each."""
    spawn = multiprocessing.get_context("spawn")  # a fork would share the allocator's settings
    pipes, processes = {}, []
    try:
        for side in SIDES:
            pipes[side], theirs = spawn.Pipe()
            processes.append(spawn.Process(target=serve, args=(theirs, side, job)))
            processes[-1].start()
            theirs.close()  # so that a side that dies raises an EOFError here instead of blocking
        yield pipes, {side: pipe.recv() for side, pipe in pipes.items()}
        for pipe in pipes.values():
            pipe.send(None)
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes:
            process.join(10)
            process.terminate()


def run_round(pipe: Connection, part: str) -> float:
    """Let a side run one round; returns images per second."""
    pipe.send(part)
    return float(pipe.recv())


def measure(job: Job, rounds: int) -> list[Table]:
    """The tables of a job: end to end, and the step alone."""
    tables = []
    with running(job) as (pipes, about):
        for part, description in PARTS.items():
            sides = {side: lambda pipe=pipe, part=part: run_round(pipe, part) for side, pipe in pipes.items()}
            title = f"{job.task}, {job.encoder}, {job.views} views of {job.size} px, {description}"
            tables.append(Table(title, "images/s", interleaved(sides, rounds), notes=about))
    return tables


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = shared_options(__doc__, rounds=5)
    parser.add_argument("--encoders", nargs="+", default=["convnet", "timm:resnet18"], help="encoders to train")
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=["rotation", "two views"],
        default=["rotation", "two views"],
        help="tasks to train",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=32,
        help="side of the views in pixels; stored images have 32, or a quarter more than views above 32",
    )
    parser.add_argument("--views", type=int, help="views per step; default: 256, and 32 for timm:resnet18")
    parser.add_argument("--images", type=int, default=5000, help="number of images")
    parser.add_argument("--workers", type=int, default=2, help="loader workers of the usual recipe")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per side and round; at least three steps")
    options = parse_options(parser, arguments, encoders=["convnet"], views=8, images=32, seconds=0.05)
    tables = []
    for encoder in options.encoders:
        views = options.views or VIEWS.get(encoder, 256)
        for task in options.tasks:
            job = Job(
                task, encoder, options.size, views, options.images, options.workers, options.threads, options.seconds
            )
            tables += measure(job, options.rounds)
    remarks = [
        "Images are noise, already decoded for both sides.",
        "Both sides use AdamW without `torch.compile`.",
    ]
    publish("steps", "Training steps", tables, remarks, options)


if __name__ == "__main__":
    main()
