"""Crops of one photo: ours on the fly, against crops written as JPEG files and read back.

    python -m benchmarks.crops
    python -m benchmarks.crops --photo market_street.jpg --sizes 32 128 256

The other side reimplements the generator released with Asano et al. 2020: a square crop of half the short side, a
random-resized crop of sqrt(2) times the size (area 1/500 to 1, bicubic), a random affine transformation (rotation and
shear up to 30 degrees, bilinear, black outside of the image), a center crop, color jitter 0.4 0.4 0.4 0.1 with
probability 0.5, a JPEG file; then ImageFolder and a DataLoader. Several processes write in parallel here, which the
released script does not do, so this favors the other side. Ours uses the same ranges of angles. The result of both is a
batch of crops as float pixels; making a task's views of them is not included.
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

from benchmarks.images import LoaderBatches
from benchmarks.interleaved import Table, interleaved, parse_options, publish, rate, shared_options
from selftaught.augment.warp import identity
from selftaught.cli.process import keep_freed_memory
from selftaught.data import photos
from selftaught.data.crops import Cropping, Crops

CROPPING = Cropping(crop_area=(1 / 500, 1.0), crop_rotation=30.0, crop_shear=30.0)
"""Our crops, with the ranges of the other side."""


def generated(photo: Image.Image, size: int) -> Image.Image:
    """One crop, as made by the released generator."""
    larger = math.ceil(math.sqrt(2) * size)
    steps = [
        v2.RandomCrop(min(photo.size) // 2),
        v2.RandomResizedCrop(larger, (1 / 500, 1.0), interpolation=InterpolationMode.BICUBIC),
        v2.RandomAffine(30, shear=30, interpolation=InterpolationMode.BILINEAR),
        v2.CenterCrop(size),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.5),
    ]
    return v2.Compose(steps)(photo)


def write(photo: Image.Image, size: int, folder: Path, seed: int, num_crops: int) -> int:
    """Write crops as JPEGs into an image folder with one class; returns the total size of the files in bytes."""
    torch.manual_seed(seed)
    written = 0
    (folder / "photo").mkdir(parents=True, exist_ok=True)
    for number in range(num_crops):
        file = folder / "photo" / f"{seed}-{number}.jpg"
        generated(photo, size).save(file)
        written += file.stat().st_size
    return written


def bytes_written_by(step: Callable[[], int], times: int = 3) -> str:
    """Number of bytes that this process writes, to any file, in some steps."""
    before = _bytes_written()
    for _ in range(times):
        step()
    after = _bytes_written()
    return "not counted on this system" if before is None or after is None else f"{after - before} bytes"


def _bytes_written() -> int | None:
    """Bytes written since this process started; None if the system does not count them."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


class CropFiles:
    """The other side: a folder of crops and a DataLoader over it.

    Args:
        photo: the photo.
        size: side of the crops in pixels.
        folder: folder of the JPEG files.
        workers: number of processes that write, and of loader workers.
        num_crops: crops written per call of `write`.
    """

    def __init__(self, photo: Image.Image, size: int, folder: Path, workers: int, num_crops: int) -> None:
        self.photo, self.size, self.folder = photo, size, folder
        self.workers, self.num_crops = workers, num_crops
        self.bytes_per_crop = 0

    def write(self, pool: ProcessPoolExecutor | None, seeds: Iterator[int]) -> int:
        """Write crops, an equal number per process; returns their number."""
        shares = [self.num_crops // max(1, self.workers) or 1] * max(1, self.workers)
        make = partial(write, self.photo, self.size, self.folder)
        self.bytes_per_crop = sum((pool.map if pool else map)(make, [next(seeds) for _ in shares], shares)) // sum(
            shares
        )
        return sum(shares)

    def read(self, batch_size: int, seconds: float) -> float:
        """Crops per second from files to batches."""
        pixels = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
        batches = LoaderBatches(ImageFolder(self.folder, pixels), batch_size, self.workers)
        batches.start()
        crops_per_second = rate(lambda: len(batches.next()[0]), seconds)()
        batches.stop()
        return crops_per_second


@contextmanager
def writing(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """A pool of processes that write, with one thread each, as loader workers have; None for 0 workers."""
    if not workers:
        yield None
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = shared_options(__doc__, rounds=5)
    parser.add_argument("--photo", default="china", help="image file, or name of a bundled photo")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 128, 256], help="sides of the crops in pixels")
    parser.add_argument("--batch-size", type=int, default=64, help="crops per batch")
    parser.add_argument("--workers", type=int, default=2, help="number of processes that write, and of loader workers")
    parser.add_argument("--num-crops", type=int, default=100, help="crops written at a time, three times per round")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per round, for ours and for reading")
    options = parse_options(parser, arguments, sizes=[16], batch_size=4, num_crops=8, seconds=0.02)
    keep_freed_memory()  # as the command line does
    pixels = photos(options.photo)[0].image
    photo = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
    tables, remarks = [], [f"The photo is {options.photo}, {photo.width} x {photo.height}."]
    with writing(options.workers) as pool:
        for size in options.sizes:
            ours = batches_of(Crops(options.photo, [pixels], 10**6, size, 0, CROPPING), options.batch_size)
            written = bytes_written_by(ours)
            with TemporaryDirectory() as folder:
                other = CropFiles(photo, size, Path(folder), options.workers, options.num_crops)
                sides = sides_of(ours, other, pool, options.batch_size, options.seconds)
                tables.append(Table(f"crops of {size} px", "crops/s", interleaved(sides, options.rounds)))
            remarks.append(f"{size} px: ours writes {written}; the other side {other.bytes_per_crop:,} bytes per crop.")
    remarks.append("The first epoch writes and reads each crop; later epochs only read.")
    publish("crops", "Crops of one photo", tables, remarks, options)


def batches_of(source: Crops, batch_size: int) -> Callable[[], int]:
    """A function that makes the next batch of our crops and returns their number."""
    starts = count(0, batch_size)

    def step() -> int:
        first = next(starts) % (len(source) - batch_size)
        batch = source.batch(torch.arange(first, first + batch_size), torch.device("cpu"))
        return len(batch.warp(identity(batch_size), source.side))

    return step


def sides_of(
    ours: Callable[[], int], other: CropFiles, pool: ProcessPoolExecutor | None, batch_size: int, seconds: float
) -> dict[str, Callable[[], float]]:
    """Side -> a function that returns its crops per second."""
    seeds = count()
    other.write(pool, seeds)  # files for the side that only reads

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
