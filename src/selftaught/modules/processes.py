"""Operations over all processes of a run, in terms of the images of a batch; with one process they change nothing.

A batch is split into parts of the same size, one for each process: process r has the r-th part, in the order of the
batch. `loss` gets the views of the own part and returns the loss of the part; the run minimizes the mean over all
processes. So a loss that is a mean over images needs nothing. One that compares images of a batch, or divides by a
count that differs between images, uses

    gather(rows)        rows of the whole batch, with gradients to the processes that they come from
    own(rows)           the part of this process, of rows of the whole batch
    average(values)     mean over processes, without gradients

Gradients of `gather` are those of the sum of all processes' losses; gradients of weights are then averaged. So the
gradient is that of the mean loss, exactly, whether every process computes the loss of all images or of its own part.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Processes:
    """The processes of a run: a single one. `training.distributed` has those of several."""

    rank: int = 0
    """Number of this process, from 0."""
    count: int = 1
    """Number of processes."""

    def gather(self, rows: Tensor) -> Tensor:
        """Rows (n, ...) of every process, in the order of their ranks: (count * n, ...); differentiable."""
        return rows

    def total(self, values: Tensor) -> Tensor:
        """Sum over processes, without gradients."""
        return values

    def first(self, make: Callable[[], T]) -> T:
        """The result of `make`, which is called in the first process only."""
        return make()

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the first process."""

    def agree(self, number: int) -> int:
        """The largest number that any process gave; with several processes, that of the previous call."""
        return number


_current = Processes()


def processes() -> Processes:
    """The processes of this run."""
    return _current


@contextmanager
def using(those: Processes) -> Iterator[None]:
    """Let `processes` return those within the block."""
    global _current
    before, _current = _current, those
    try:
        yield
    finally:
        _current = before


@contextmanager
def alone() -> Iterator[None]:
    """Within the block this process computes for itself, for what one process does without the others."""
    with using(Processes()):
        yield


def gather(rows: Tensor) -> Tensor:
    """Rows of the whole batch from the rows (n, ...) of the own part, which every process has equally many of."""
    return processes().gather(rows)


def own(rows: Tensor) -> Tensor:
    """The rows of the own part, of rows of the whole batch: what `gather` was given."""
    those = processes()
    return rows if those.count == 1 else rows.chunk(those.count)[those.rank]


def average(values: Tensor) -> Tensor:
    """Mean over processes, without gradients; `values` itself with one process."""
    those = processes()
    return values if those.count == 1 else those.total(values.detach()) / those.count


def in_parts(rows: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute (n, ...) from rows (n, ...), each process for its own part: for passes over images before an epoch.

    Args:
        rows: the same in all processes, for instance indices of images.
        compute: maps some of the rows to as many results.
    """
    those = processes()
    if len(rows) < those.count or those.count == 1:
        return compute(rows)
    parts = rows.tensor_split(those.count)
    return join_parts(compute(parts[those.rank]), [len(part) for part in parts])


def join_parts(computed: Tensor, sizes: Sequence[int]) -> Tensor:
    """Concatenate the rows (n, ...) of all processes, of which `sizes` is the number; without gradients of padding."""
    padding = computed.new_zeros(max(sizes) - len(computed), *computed.shape[1:])
    everything = torch.split(processes().gather(torch.cat([computed, padding])), max(sizes))
    return torch.cat([part[:size] for part, size in zip(everything, sizes, strict=True)])
