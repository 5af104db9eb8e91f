"""Memory and time per image while the source grows from 1,000 to 1,000,000 images.

    python -m benchmarks.memory --out results
    python -m benchmarks.memory --figure results/memory.png

Sources are parquet files in Hugging Face's image layout and folders with 100 classes, 16-pixel JPEGs, written for the
occasion. Folders are also only listed and interpreted. Each source is opened (and decoded) and opened again; parquet
is made into training batches of rotation views, first as it comes and then from the memory map, as on a machine whose
memory the images do not fit in. Every measurement is a process of its own. "Own" is the largest sum of memory that the
process could not give back (heap, pinned images); "all" counts mapped files, too, whose pages the system may take back
whenever it wants.
"""

import argparse
import io
import json
import os
import subprocess
import sys
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
from benchmarks.interleaved import Table, options, parsed, publish
from selftaught.data import open_source, stored
from selftaught.data.folder import folder_splits
from selftaught.figures.style import FONT, INK, chart, series
from selftaught.pretext.rotation import Rotation
from selftaught.training.randomness import epoch_indices

SIDE = 16
DISTINCT = 256
"""Different images; a row group repeats them, so a million are written in seconds and read like any others."""
GROUP = 1024
"""Rows of a row group."""
PARTS = {
    "open": "opened, decoded",
    "again": "opened again",
    "batches": "training batches",
    "mapped": "training batches, from the map",
}
FOLDER_PARTS = {"list": "folder, listed", "open": "folder, opened, decoded", "again": "folder, opened again"}
"""Measured on folders; what follows is the same for every source."""
CLASSES = 100


def write_parquet(path: Path, rows: int) -> None:
    """A parquet file of `rows` JPEGs without labels, not deduplicated by a dictionary."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [encoded(pixels) for pixels in noise(DISTINCT, SIDE)]
    images = [{"bytes": files[row % DISTINCT], "path": None} for row in range(GROUP)]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    group = pa.table({"image": pa.array(images, kind)})
    with pq.ParquetWriter(path, group.schema, use_dictionary=False, compression="none") as writer:
        for start in range(0, rows, GROUP):
            writer.write_table(group.slice(0, min(GROUP, rows - start)))


def write_folder(root: Path, count: int) -> None:
    """A folder of `count` JPEGs in class folders: hard links to few files, each with as many as its disk allows."""
    files = [encoded(pixels) for pixels in noise(DISTINCT, SIDE)]
    last = [root / str(number) for number in range(DISTINCT)]
    for number in range(CLASSES):
        (root / f"class {number}").mkdir(parents=True)
    for number in range(count):
        path = root / f"class {number % CLASSES}" / f"{number}.jpg"
        try:
            os.link(last[number % DISTINCT], path)
        except OSError:  # the first, or one link too many
            path.write_bytes(files[number % DISTINCT])
            last[number % DISTINCT] = path


def encoded(pixels: np.ndarray) -> bytes:
    """(3, S, S) uint8 as a JPEG."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(stream, "JPEG")
    return stream.getvalue()


class Memory:
    """Watches the memory of this process, in MB (10 ** 6 bytes); zeros where the system does not tell."""

    def __init__(self) -> None:
        self.own = 0.0

    @staticmethod
    def now(field: str) -> float:
        """A line of the process's status: VmHWM (the most, all pages) or RssAnon (own pages, now)."""
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
        except OSError:
            return 0.0
        return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{field}:")), 0.0)

    @contextmanager
    def watched(self, every: float = 0.02) -> Iterator[None]:
        """Within the block, keep the largest own memory."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(every):
                self.own = max(self.own, self.now("RssAnon"))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            self.own = max(self.own, self.now("RssAnon"))


def child(part: str, path: Path, batches: int) -> dict[str, float]:
    """One measurement, in a process of its own: seconds of the part, per image, and memory."""
    if part == "mapped":
        stored.SHARE = 10**12  # nothing fits, as on a machine with less memory
    memory = Memory()
    with memory.watched():
        begun = time.perf_counter()
        source = folder_splits(path)["all"] if part == "list" else open_source(path, split="all")
        images = len(source)
        if part in ("batches", "mapped"):
            source.batch(torch.arange(1), torch.device("cpu"))  # loads what fits; not per batch
            task, generator, size = Rotation(size=SIDE), torch.Generator().manual_seed(0), min(64, images)
            begun = time.perf_counter()
            drawn = epoch_indices(0, 0, images)
            places = [number * size % (images - size + 1) for number in range(batches)]
            for place in places:
                task.views(source.batch(drawn[place : place + size], torch.device("cpu")), generator)
            images = batches * size
        spent = time.perf_counter() - begun
    return {"microseconds": 1e6 * spent / images, "seconds": spent, "own": memory.own, "all": memory.now("VmHWM")}


def measured(part: str, path: Path, given: argparse.Namespace, cache: Path) -> dict[str, float]:
    """Start a child and read what it found."""
    words = ["--child", part, str(path), "--batches", str(given.batches)]
    words += ["--threads", str(given.threads)] if given.threads else []
    environment = {**os.environ, "SELFTAUGHT_CACHE": str(cache)}
    command = [sys.executable, "-m", "benchmarks.memory", *words]
    root = Path(__file__).parent.parent
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=root)
    return json.loads(found.stdout)


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = options(__doc__, rounds=2)
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--batches", type=int, default=100, help="of 64 images, per measurement")
    parser.add_argument("--figure", type=Path, help="draw time and memory into this PNG file")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parsed(parser, words, rounds=1, counts=[50, 200], batches=3)
    if given.child:
        part, path = given.child
        print(json.dumps(child(part, Path(path), given.batches)))
        return
    with TemporaryDirectory() as folder:
        for count in given.counts:
            write_parquet(Path(folder) / f"{count}.parquet", count)
        found = rounds(PARTS, lambda count: Path(folder) / f"{count}.parquet", given)
    with TemporaryDirectory() as folder:
        for count in given.counts:
            write_folder(Path(folder) / f"{count}", count)
        folders = rounds(FOLDER_PARTS, lambda count: Path(folder) / f"{count}", given)
    tables = [table(words, found[part]) for part, words in PARTS.items()]
    tables += [table(words, folders[part]) for part, words in FOLDER_PARTS.items()]
    remarks = [
        f"JPEGs of {SIDE} px in row groups of {GROUP}, or in {CLASSES} class folders.",
        f"Batches of 64 images, {given.batches} of them.",
        "Memory is the most of all rounds, of a process with torch in it; own memory cannot be given back.",
        "Images that take less than a quarter of the free memory are loaded whole, except in the table from the map.",
    ]
    publish("memory", "Memory and time while the source grows", tables, remarks, given)
    if given.figure is not None:
        draw(found, given.figure)


def rounds(
    parts: Mapping[str, str], source: Callable[[int], Path], given: argparse.Namespace
) -> dict[str, dict[int, list[dict[str, float]]]]:
    """Part -> number of images -> measurements, with a new cache for each round, so that each decodes."""
    found: dict[str, dict[int, list[dict[str, float]]]] = {part: {} for part in parts}
    for number in range(given.rounds):
        for count in given.counts if number % 2 == 0 else reversed(given.counts):
            with TemporaryDirectory() as cache:
                for part in parts:
                    found[part].setdefault(count, []).append(measured(part, source(count), given, Path(cache)))
    return found


def table(title: str, found: dict[int, list[dict[str, float]]]) -> Table:
    """Time per image by count, with the memory beside it."""
    ordered = dict(sorted(found.items()))
    sides = {f"{count:,} images": [one["microseconds"] for one in rounds] for count, rounds in ordered.items()}
    notes = {
        f"{count:,} images": f"own {max(one['own'] for one in rounds):,.0f} MB, "
        f"all {max(one['all'] for one in rounds):,.0f} MB, {max(one['seconds'] for one in rounds):.2g} s"
        for count, rounds in ordered.items()
    }
    return Table(title, "microseconds/image", sides, next(iter(sides)), "less", notes)


def draw(found: dict[str, dict[int, list[dict[str, float]]]], path: Path) -> None:
    """Own memory over the number of images, one line per part, time per image written at its ends."""
    figure, axes = chart("images in the source", "own memory (MB)", below=0.9)
    for number, (part, by_count) in enumerate(found.items()):
        counts = sorted(by_count)
        own = [max(one["own"] for one in by_count[count]) for count in counts]
        times = [min(one["microseconds"] for one in by_count[count]) for count in counts]
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
