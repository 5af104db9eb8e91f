"""One photo into crops: ours on the fly, against crops written as JPEGs and read again.

    python -m benchmarks.crops
    python -m benchmarks.crops --photo market_street.jpg --sizes 32 128 256

The other side takes the steps of the generator released with Asano et al. 2020, written anew: a square of half the
short side, a random-resized crop of sqrt(2) times the size (area 1/500 to 1, bicubic), a random affine of 30 degrees
and 30 of shear (bilinear, black where nothing is), the centre, colour jitter 0.4 0.4 0.4 0.1 with probability 0.5, a
JPEG; then ImageFolder and a loader. Processes write in parallel here, which is kind to it. Ours crops with the same
angles. What is compared is a crop as float pixels in a batch; the views a task makes of it come on top, for both.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode, v2

from benchmarks.images import Loaded
from benchmarks.interleaved import Table, interleaved, options, parsed, publish, rate
from selftaught.augment.warp import identity
from selftaught.cli.process import keep_freed_memory
from selftaught.data import photos
from selftaught.data.crops import Cropping, Crops

CROPPING = Cropping(crop_area=(1 / 500, 1.0), crop_rotation=30.0, crop_shear=30.0)
"""Ours, with the numbers of the other side."""


def generated(photo: Image.Image, size: int) -> Image.Image:
    """One crop, made as the released generator does."""
    larger = math.ceil(math.sqrt(2) * size)
    steps = [
        v2.RandomCrop(min(photo.size) // 2),
        v2.RandomResizedCrop(larger, (1 / 500, 1.0), interpolation=InterpolationMode.BICUBIC),
        v2.RandomAffine(30, shear=30, interpolation=InterpolationMode.BILINEAR),
        v2.CenterCrop(size),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.5),
    ]
    return v2.Compose(steps)(photo)


def write(photo: Image.Image, size: int, folder: Path, seed: int, many: int) -> int:
    """Write crops as JPEGs into the one class of an image folder; returns the bytes of their files."""
    torch.manual_seed(seed)
    written = 0
    (folder / "photo").mkdir(parents=True, exist_ok=True)
    for number in range(many):
        file = folder / "photo" / f"{seed}-{number}.jpg"
        generated(photo, size).save(file)
        written += file.stat().st_size
    return written


def written_while(step: Callable[[], int], times: int = 3) -> str:
    """How many bytes this process writes, anywhere, in some steps."""
    before = _written()
    for _ in range(times):
        step()
    after = _written()
    return "not counted on this system" if before is None or after is None else f"{after - before} bytes"


def _written() -> int | None:
    """Bytes written since this process began; None where the system does not count them."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


class Written:
    """The other side: a folder of crops, and a loader over it.

    Args:
        photo: what is cropped.
        size: side of the crops in pixels.
        folder: where they are written.
        workers: processes.
        many: crops per round.
    """

    def __init__(self, photo: Image.Image, size: int, folder: Path, workers: int, many: int) -> None:
        self.photo, self.size, self.folder, self.workers, self.many = photo, size, folder, workers, many
        self.bytes = 0

    def write(self, pool: ProcessPoolExecutor | None, seeds: Iterator[int]) -> int:
        """Write crops, a share per process."""
        shares = [self.many // max(1, self.workers) or 1] * max(1, self.workers)
        make = partial(write, self.photo, self.size, self.folder)
        self.bytes = sum((pool.map if pool else map)(make, [next(seeds) for _ in shares], shares)) // sum(shares)
        return sum(shares)

    def read(self, batch_size: int, seconds: float) -> float:
        """Crops per second from the files to batches."""
        pixels = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
        batches = Loaded(ImageFolder(self.folder, pixels), batch_size, self.workers)
        batches.start()
        found = rate(lambda: len(batches.next()[0]), seconds)()
        batches.stop()
        return found


@contextmanager
def writing(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes that write, each with one thread as loader workers have; None where this process is to do it."""
    if not workers:
        yield None
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("--photo", default="china", help="an image file, or a bundled photo")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 128, 256], help="sides of the crops in pixels")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="processes that write and load")
    parser.add_argument("--num-crops", type=int, default=100, help="written at a time, three times per round")
    parser.add_argument("--seconds", type=float, default=1.0, help="per reading side and round")
    given = parsed(parser, words, sizes=[16], batch_size=4, num_crops=8, seconds=0.02)
    keep_freed_memory()  # as the command line does
    pixels = photos(given.photo)[0].image
    photo = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
    tables, remarks = [], [f"The photo is {given.photo}, {photo.width} x {photo.height}."]
    with writing(given.workers) as pool:
        for size in given.sizes:
            ours = fresh(Crops(given.photo, [pixels], 10**6, size, 0, CROPPING), given.batch_size)
            wrote = written_while(ours)
            with TemporaryDirectory() as folder:
                other = Written(photo, size, Path(folder), given.workers, given.num_crops)
                sides = compared(ours, other, pool, given.batch_size, given.seconds)
                tables.append(Table(f"crops of {size} px", "crops/s", interleaved(sides, given.rounds)))
            remarks.append(f"{size} px: written by ours {wrote}; by the other {other.bytes:,} bytes per crop.")
    remarks.append("Written once and read once is a first epoch; later epochs read only.")
    publish("crops", "One photo into crops", tables, remarks, given)


def fresh(source: Crops, batch_size: int) -> Callable[[], int]:
    """A function that makes the next batch of our crops."""
    starts = count(0, batch_size)

    def step() -> int:
        first = next(starts) % (len(source) - batch_size)
        batch = source.batch(torch.arange(first, first + batch_size), torch.device("cpu"))
        return len(batch.warp(identity(batch_size), source.side))

    return step


def compared(
    ours: Callable[[], int], other: Written, pool: ProcessPoolExecutor | None, batch_size: int, seconds: float
) -> dict[str, Callable[[], float]]:
    """The sides, each a function that says its crops per second."""
    seeds = count()
    other.write(pool, seeds)  # something to read

    def first_epoch() -> float:
        writes = rate(lambda: other.write(pool, seeds), 0.0)()
        return 1 / (1 / writes + 1 / other.read(batch_size, seconds))

    workers = f"{other.workers} workers"
    return {
        "ours": rate(ours, seconds),
        f"written and read once, {workers}": first_epoch,
        f"read only, {workers}": lambda: other.read(batch_size, seconds),
    }


if __name__ == "__main__":
    main()
