"""Batch norm: whose statistics are remembered."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def untracked(module: nn.Module) -> Iterator[None]:
    """Meanwhile batches that pass are normed as ever, but leave nothing in the running statistics.

    For batches that are not of what the module will be asked about later: an encoder that also judges generated images
    would otherwise remember a mixture of both kinds, which is neither.

    Args:
        module: any; what it holds of batch norms is meant.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False  # in training mode the batch's own statistics are used either way
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
