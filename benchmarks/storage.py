"""Images decoded on the fly: ours, decoded once or kept encoded, against ImageFolder, lightly and WebDataset.

    python -m benchmarks.storage --out results
    python -m benchmarks.storage --data /data/imagenette2/train --count 9469

All sides read the same JPEGs, resize the short side (antialiased) and crop the center, and return batches of float
pixels in random order, without augmentation; the next batch is prepared while one is used. Ours reads files of a
folder, or tar shards of `selftaught shard`; torchvision's ImageFolder and lightly's LightlyDataset read the files,
WebDataset the shards, through a shuffle buffer of 1,000 images. What is not installed is left out.

Memory is measured in processes of their own, over all their processes: the peak of anonymous memory (heap, batches,
pinned images), which the system cannot reclaim.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import selftaught
from benchmarks.images import LoaderBatches
from benchmarks.interleaved import Table, interleaved, parse_options, publish, rate, shared_options

BATCH = 64
SHUFFLED = 1_000
"""Images in WebDataset's shuffle buffer."""
Batches = Callable[[], Tensor]
"""Returns the next batch: (B, 3, S, S) float."""


def write_jpegs(root: Path, number: int, width: int, height: int) -> None:
    """Write photos of smooth noise in ten class folders, about as large as JPEGs of photos of that size."""
    rng = np.random.default_rng(0)
    for index in range(number):
        folder = root / f"{index % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height), 3)
        grain = rng.normal(0, 6, (height, width, 3))
        pixels = (np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.jpg", quality=90)


@contextmanager
def ours(path: Path, size: int, storage: str) -> Iterator[Batches]:
    """Batches of a source in the order of training."""
    from selftaught.training.randomness import epoch_indices

    source = selftaught.open_source(path, side=size, split="all", storage=storage)
    cpu = torch.device("cpu")
    chosen = (
        part
        for epoch in count()
        for part in epoch_indices(0, epoch, len(source)).split(min(BATCH, len(source)))
        if len(part) == min(BATCH, len(source))
    )
    with ThreadPoolExecutor(1) as worker:
        ahead = [worker.submit(source.batch, next(chosen), cpu)]

        def following() -> Tensor:
            ahead.append(worker.submit(source.batch, next(chosen), cpu))
            return ahead.pop(0).result().images.float().div_(255)

        yield following


def transform(size: int) -> v2.Compose:
    """Resize and center crop of one PIL image."""
    steps = [v2.Resize(size, antialias=True), v2.CenterCrop(size), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    return v2.Compose(steps)


@contextmanager
def loaded(images: Dataset[Any], workers: int) -> Iterator[Batches]:
    """Batches of a data set of (image, label, ...), loaded by worker processes."""
    loader = LoaderBatches(images, BATCH, workers)
    loader.start()
    try:
        yield lambda: loader.next()[0]
    finally:
        loader.stop()


def lightly(path: Path, size: int) -> Dataset[Any]:
    """The data set that lightly's examples use for folders."""
    from lightly.data import LightlyDataset

    return cast("Dataset[Any]", LightlyDataset(str(path), transform(size)))


@contextmanager
def webdataset(shards: Path, size: int, workers: int) -> Iterator[Batches]:
    """Batches of WebDataset's own loader."""
    import webdataset as wds

    files = [str(file) for file in sorted(shards.glob("*.tar"))]
    workers = min(workers, len(files))  # a worker without a shard is an error
    images = wds.WebDataset(files, shardshuffle=len(files), empty_check=False).repeat().shuffle(SHUFFLED).decode("pil")
    loader = wds.WebLoader(images.to_tuple("jpg").map_tuple(transform(size)).batched(BATCH), None, num_workers=workers)
    stream = iter(loader)
    next(stream)
    yield lambda: next(stream)[0]


def sides(folder: Path, shards: Path, size: int, workers: int) -> dict[str, Callable[[], object]]:
    """Name of a side -> a context with its batches."""
    found: dict[str, Callable[[], object]] = {
        "ours, encoded, files": lambda: ours(folder, size, "encoded"),
        "ours, encoded, shards": lambda: ours(shards, size, "encoded"),
        "ours, decoded": lambda: ours(folder, size, "decoded"),
        f"ImageFolder, {workers} workers": lambda: loaded(ImageFolder(str(folder), transform(size)), workers),
    }
    if importlib.util.find_spec("lightly"):
        found[f"lightly, {workers} workers"] = lambda: loaded(lightly(folder, size), workers)
    if importlib.util.find_spec("webdataset"):
        found[f"WebDataset, {workers} workers"] = lambda: webdataset(shards, size, workers)
    return found


def speed(side: Callable[[], object], seconds: float) -> Callable[[], float]:
    """Images per second of a side, whose workers run only while it is measured."""

    def measured() -> float:
        with ExitStack() as stack:
            following = stack.enter_context(side())
            following()
            return rate(lambda: len(following()), seconds)()

    return measured


class Peak:
    """Peak of the anonymous memory of this process and of those that it started, in MB; sampled."""

    def __init__(self) -> None:
        self.most, self._done = 0.0, Event()
        self._thread = Thread(target=self._sample)

    def _sample(self) -> None:
        while not self._done.wait(0.05):
            self.most = max(self.most, sum(map(anonymous, tree(os.getpid()))))

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def tree(process: int) -> list[int]:
    """A process and all processes below it, on Linux."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return [process]
    return [process, *(below for child in text.split() for below in tree(int(child)))]


def anonymous(process: int) -> float:
    """Anonymous memory of a process in MB; pages that a child shares with its parent are counted in both."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("RssAnon:")), 0.0)


def memory(name: str, options: argparse.Namespace, folder: Path, shards: Path, size: int) -> float:
    """Peak memory of a side in MB, measured in a process of its own."""
    words = ["--child", name, str(folder), str(shards), str(size), "--workers", str(options.workers)]
    words += ["--seconds", str(options.seconds)]
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "benchmarks.storage", *words]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout))


def child(name: str, folder: str, shards: str, size: str, options: argparse.Namespace) -> float:
    """The measurement of `memory`."""
    with Peak() as peak, ExitStack() as stack:
        following = stack.enter_context(sides(Path(folder), Path(shards), int(size), options.workers)[name]())
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            following()
    return peak.most


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = shared_options(__doc__, rounds=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 160], help="sides of the images in pixels")
    parser.add_argument("--data", type=Path, help="folder with class folders of JPEGs; default: generated ones")
    parser.add_argument("--count", type=int, default=2_000, help="number of generated images")
    parser.add_argument("--shape", type=int, nargs=2, default=[500, 375], help="their width and height in pixels")
    parser.add_argument("--workers", type=int, default=2, help="loader workers of the other sides")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds of a measurement")
    parser.add_argument(
        "--no-memory", action="store_true", help="do not measure memory, which takes a process per side"
    )
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parse_options(parser, arguments, count=130, sizes=[16], shape=[64, 48], seconds=0.2, workers=1)
    if options.child:
        print(json.dumps(child(*options.child, options)))
        return
    tables = []
    with TemporaryDirectory() as temporary:
        folder, shards = options.data or Path(temporary) / "images", Path(temporary) / "shards"
        if options.data is None:
            write_jpegs(folder, options.count, *options.shape)
        selftaught.shard(folder, out=shards, shard_size=16)
        for size in options.sizes:
            found = sides(folder, shards, size, options.workers)
            rates = interleaved({name: speed(side, options.seconds) for name, side in found.items()}, options.rounds)
            measured = (
                {} if options.no_memory else {name: memory(name, options, folder, shards, size) for name in found}
            )
            notes = {name: f"{megabytes:,.0f} MB" for name, megabytes in measured.items()}
            tables.append(Table(f"{size} px", "images/s", rates, "ours, encoded, files", notes=notes or None))
        number, total = len(list(folder.glob("*/*"))), sum(file.stat().st_size for file in folder.glob("*/*"))
    remarks = [
        f"{number:,} JPEGs of {total / number / 1e3:,.0f} KB on average; batches of {BATCH}.",
        *([] if options.no_memory else ["The last column is the peak of anonymous memory of all processes of a side."]),
        "Files were read shortly before, so they come from the page cache of the system.",
        "Checking all images once (files, encoded) and decoding them once (decoded) is not part of the times.",
    ]
    publish("storage", "Images decoded on the fly", tables, remarks, options)


if __name__ == "__main__":
    main()
