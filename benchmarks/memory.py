"""Memory and time per image as the source grows from 1,000 to 1,000,000 images.

    python -m benchmarks.memory --out results
    python -m benchmarks.memory --sources shards --rounds 1 --counts 200000 1000000

Sources are generated: parquet files in Hugging Face's image layout, folders with 100 classes, and tar shards, all of
16-pixel JPEGs. Each source is opened and decoded, then opened again from the cache; for folders, listing alone is
measured too. From parquet, training batches of rotation views are made, once as on this machine and once with all
images read from the memory map, as on a machine where they do not fit into memory. From shards, images are decoded on
the fly: the shards are indexed and checked, opened again up to the first batch, and read in random order.

Each measurement is a process of its own. "Own" memory is the peak of anonymous memory (heap, pinned images), which the
system cannot reclaim; "all" also counts pages of mapped files, which it can.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from benchmarks.images import noise
from benchmarks.interleaved import Table, parse_options, publish, shared_options
from selftaught.data import open_source, stored
from selftaught.data.folder import folder_splits
from selftaught.figures.style import FONT, INK, chart, series
from selftaught.pretext.rotation import Rotation
from selftaught.training.randomness import epoch_indices

SIDE = 16
DISTINCT = 256
"""Number of different images. A row group repeats them, so a million images are written in seconds."""
ROW_GROUP = 1024
"""Rows of a row group."""
PARTS = {
    "open": "opened, decoded",
    "again": "opened again",
    "batches": "training batches",
    "mapped": "training batches, memory-mapped",
}
FOLDER_PARTS = {"list": "folder, listed", "open": "folder, opened, decoded", "again": "folder, opened again"}
"""Measurements of folders; training batches do not depend on the kind of source."""
SHARD_PARTS = {
    "index": "tar shards, indexed and checked",
    "start": "tar shards, opened again, to the first batch",
    "batches": "tar shards, training batches",
}
"""Measurements of tar shards, whose images stay encoded."""
CLASSES = 100
SHARD = 10_000
"""Images of a tar file."""


def write_parquet(path: Path, rows: int) -> None:
    """Write a parquet file of `rows` JPEGs without labels or a dictionary (which would store each JPEG once)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [jpeg_bytes(pixels) for pixels in noise(DISTINCT, SIDE)]
    images = [{"bytes": files[row % DISTINCT], "path": None} for row in range(ROW_GROUP)]
    image_type = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    group = pa.table({"image": pa.array(images, image_type)})
    with pq.ParquetWriter(path, group.schema, use_dictionary=False, compression="none") as writer:
        for start in range(0, rows, ROW_GROUP):
            writer.write_table(group.slice(0, min(ROW_GROUP, rows - start)))


def write_folder(root: Path, count: int) -> None:
    """Write a folder of `count` JPEGs in class folders: hard links to as few files as the file system allows."""
    files = [jpeg_bytes(pixels) for pixels in noise(DISTINCT, SIDE)]
    linked = [root / str(number) for number in range(DISTINCT)]
    for number in range(CLASSES):
        (root / f"class {number}").mkdir(parents=True)
    for number in range(count):
        path = root / f"class {number % CLASSES}" / f"{number}.jpg"
        try:
            os.link(linked[number % DISTINCT], path)
        except OSError:  # no file yet, or its maximum number of links is reached
            path.write_bytes(files[number % DISTINCT])
            linked[number % DISTINCT] = path


def write_shards(root: Path, count: int) -> None:
    """Write tar files with `count` JPEGs, without labels."""
    files = [jpeg_bytes(pixels) for pixels in noise(DISTINCT, SIDE)]
    padded = [file + bytes(-len(file) % tarfile.BLOCKSIZE) for file in files]
    root.mkdir()
    for start in range(0, count, SHARD):
        with (root / f"{start // SHARD:06}.tar").open("wb") as shard:
            for number in range(start, min(start + SHARD, count)):
                member = tarfile.TarInfo(f"{number:09}.jpg")
                member.size = len(files[number % DISTINCT])
                shard.write(member.tobuf(tarfile.USTAR_FORMAT) + padded[number % DISTINCT])
            shard.write(bytes(2 * tarfile.BLOCKSIZE))


def jpeg_bytes(pixels: np.ndarray) -> bytes:
    """(3, S, S) uint8 as a JPEG."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(stream, "JPEG")
    return stream.getvalue()


class Memory:
    """Peak memory of this process in MB (10 ** 6 bytes); 0 if the system does not report it."""

    def __init__(self) -> None:
        self.peak = 0.0

    @staticmethod
    def now(field: str) -> float:
        """A field of the process status: VmHWM (peak of all pages) or RssAnon (current anonymous pages)."""
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
        except OSError:
            return 0.0
        return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{field}:")), 0.0)

    @contextmanager
    def tracked(self, interval: float = 0.02) -> Iterator[None]:
        """Record the peak of anonymous memory within the block, sampled at an interval in seconds."""
        done = threading.Event()

        def sample() -> None:
            while not done.wait(interval):
                self.peak = max(self.peak, self.now("RssAnon"))

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            yield
        finally:
            done.set()
            sampler.join()
            self.peak = max(self.peak, self.now("RssAnon"))


def child(part: str, path: Path, batches: int) -> dict[str, float]:
    """One measurement, run in a process of its own: time in total and per image, and peak memory."""
    if part == "mapped":
        stored.MAX_MEMORY_SHARE = 0.0  # no array fits, as on a machine with less memory
    memory, storage = Memory(), "encoded" if any(path.glob("*.tar")) else "auto"
    with memory.tracked():
        start = time.perf_counter()
        source = folder_splits(path)["all"] if part == "list" else open_source(path, split="all", storage=storage)
        images = len(source)
        if part == "start":
            source.batch(epoch_indices(0, 0, images)[:64], torch.device("cpu"))
        if part in ("batches", "mapped"):
            source.batch(
                torch.arange(1), torch.device("cpu")
            )  # loads the array if it fits; not part of the time per batch
            task, generator, size = Rotation(size=SIDE), torch.Generator().manual_seed(0), min(64, images)
            start = time.perf_counter()
            indices = epoch_indices(0, 0, images)
            for number in range(batches):
                first = number * size % (images - size + 1)
                task.views(source.batch(indices[first : first + size], torch.device("cpu")), generator)
            images = batches * size
        seconds = time.perf_counter() - start
    return {"microseconds": 1e6 * seconds / images, "seconds": seconds, "own": memory.peak, "all": memory.now("VmHWM")}


def measure(part: str, path: Path, options: argparse.Namespace, cache: Path) -> dict[str, float]:
    """Run `child` in a new process and return its result."""
    arguments = ["--child", part, str(path), "--batches", str(options.batches)]
    arguments += ["--threads", str(options.threads)] if options.threads else []
    environment = {**os.environ, "SELFTAUGHT_CACHE": str(cache)}
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    root = Path(__file__).parent.parent
    process = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=root)
    return json.loads(process.stdout)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = shared_options(__doc__, rounds=2)
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000], help="numbers of images"
    )
    parser.add_argument(
        "--sources", nargs="+", choices=list(SOURCES), default=list(SOURCES), help="kinds of sources to measure"
    )
    parser.add_argument("--batches", type=int, default=100, help="number of batches of 64 images per measurement")
    parser.add_argument("--figure", type=Path, help="PNG file for a figure of time and memory")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parse_options(parser, arguments, rounds=1, counts=[50, 200], batches=3)
    if options.child:
        part, path = options.child
        print(json.dumps(child(part, Path(path), options.batches)))
        return
    results = {}
    for kind in options.sources:
        write, parts = SOURCES[kind]
        with TemporaryDirectory() as folder:
            places = {count: Path(folder) / f"{count}.{kind}" for count in options.counts}
            for count, place in places.items():
                write(place, count)
            results[kind] = rounds(parts, places.__getitem__, options)
    tables = [table(SOURCES[kind][1][part], by_count) for kind, of in results.items() for part, by_count in of.items()]
    remarks = [
        f"JPEGs of {SIDE} px in row groups of {ROW_GROUP}, in {CLASSES} class folders, or in tar files of {SHARD:,}.",
        f"{options.batches} batches of 64 images.",
        "Memory is the maximum over the rounds, of a process that includes torch. Own memory cannot be reclaimed.",
        "Images that take less than a quarter of the free memory are loaded completely, except in the memory-mapped "
        "table.",
    ]
    publish("memory", "Memory and time per image as the source grows", tables, remarks, options)
    if options.figure is not None and "parquet" in results:
        draw(results["parquet"], options.figure)


SOURCES: dict[str, tuple[Callable[[Path, int], None], dict[str, str]]] = {
    "parquet": (write_parquet, PARTS),
    "folders": (write_folder, FOLDER_PARTS),
    "shards": (write_shards, SHARD_PARTS),
}
"""Kind of source -> what writes it, and its measurements."""


def rounds(
    parts: Mapping[str, str], source: Callable[[int], Path], options: argparse.Namespace
) -> dict[str, dict[int, list[dict[str, float]]]]:
    """Part -> number of images -> one measurement per round. Each round has a new cache, so it decodes again."""
    results: dict[str, dict[int, list[dict[str, float]]]] = {part: {} for part in parts}
    for number in range(options.rounds):
        for count in options.counts if number % 2 == 0 else reversed(options.counts):
            with TemporaryDirectory() as cache:
                for part in parts:
                    results[part].setdefault(count, []).append(measure(part, source(count), options, Path(cache)))
    return results


def table(title: str, by_count: dict[int, list[dict[str, float]]]) -> Table:
    """Time per image by number of images; total time and memory as notes."""
    ordered = dict(sorted(by_count.items()))
    sides = {f"{count:,} images": [round_["microseconds"] for round_ in rounds] for count, rounds in ordered.items()}
    notes = {
        f"{count:,} images": f"own {max(round_['own'] for round_ in rounds):,.0f} MB, "
        f"all {max(round_['all'] for round_ in rounds):,.0f} MB, {max(round_['seconds'] for round_ in rounds):.2g} s"
        for count, rounds in ordered.items()
    }
    return Table(title, "microseconds/image", sides, next(iter(sides)), "less", notes)


def draw(results: dict[str, dict[int, list[dict[str, float]]]], path: Path) -> None:
    """Plot own memory over the number of images, one line per part; the legend has the time per image."""
    figure, axes = chart("images in the source", "own memory (MB)", below=0.9)
    for number, (part, by_count) in enumerate(results.items()):
        counts = sorted(by_count)
        own = [max(round_["own"] for round_ in by_count[count]) for count in counts]
        times = [min(round_["microseconds"] for round_ in by_count[count]) for count in counts]
        color, marker = series(number)
        text = f"{PARTS[part]}: {times[0]:,.0f} to {times[-1]:,.0f} µs/image"
        axes.plot(counts, own, color=color, marker=marker, label=text)
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts], minor=False)
    axes.minorticks_off()
    axes.set_ylim(bottom=0, top=1.1 * axes.get_ylim()[1])
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.25), frameon=False, fontsize=FONT, labelcolor=INK)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, facecolor="white")


if __name__ == "__main__":
    main()
