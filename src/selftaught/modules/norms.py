"""Batch norm: forward passes that leave the running statistics unchanged."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def untracked(module: nn.Module) -> Iterator[None]:
    """Disable updates of batch norm's running statistics; batches are normalized as before.

    For batches from another distribution than that of later inputs: an encoder that also classifies generated images
    would otherwise have statistics of a mixture, which fit neither kind.

    Args:
        module: a module, which may contain batch norms.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False  # in training mode the batch's own statistics are used in any case
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
