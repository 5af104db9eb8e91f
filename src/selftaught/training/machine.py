"""What the machine is, and the two settings of a process that decide how fast a CPU trains."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def hardware(device: torch.device) -> str:
    """The device in words, for logs and results: "NVIDIA H100, 80 GB" or "Intel Xeon, 2 threads"."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GB"
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123 (not a file of anybody's)
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


@contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Compute with this many CPU threads within the block; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks instead of giving them back to the system after each use.

    A training step on a CPU frees and takes hundreds of megabytes. By default each of those is mapped anew and zeroed
    page by page by the kernel: half of all time in a small convnet's step (measured: 2.2 times as fast without, see
    results). The price is that a process keeps its largest size. Elsewhere than on glibc nothing happens.
    """
    if sys.platform != "linux" or "MALLOC_MMAP_MAX_" in os.environ:
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 2**27)
