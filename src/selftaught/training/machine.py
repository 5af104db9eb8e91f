"""Description of the hardware, and control of the number of CPU threads."""

import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock

import torch


def hardware(device: torch.device) -> str:
    """Name of the device for logs and results: "NVIDIA H100, 80 GB" or "Intel Xeon, 2 threads"."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GB"
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' * (threads != 1)}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123 (a file of the kernel)
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


_LOCK = Lock()
"""Held while a thread count is changed: threads started later inherit the count set last in any thread."""


@contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Set the number of CPU threads for the block; None keeps the current number."""
    with _LOCK:
        before = torch.get_num_threads()
        torch.set_num_threads(count or before)
    try:
        yield
    finally:
        with _LOCK:
            torch.set_num_threads(before)


@contextmanager
def single_threaded_worker() -> Iterator[ThreadPoolExecutor]:
    """A worker thread that computes on one CPU thread; the thread count of other threads is unchanged.

    Every computing thread gets its own team of OpenMP threads, and two teams compete for the cores: with one thread for
    the worker, a step of a ResNet-18 is 10 % shorter.
    """
    with ThreadPoolExecutor(max_workers=1) as worker:
        with _LOCK:
            count = torch.get_num_threads()
            worker.submit(_compute_on_one_thread).result()
            torch.set_num_threads(count)
        yield worker


def _compute_on_one_thread() -> None:
    torch.get_num_threads()  # the first call in a thread adopts the process's count and would undo the next line
    torch.set_num_threads(1)
