"""The part of a batch of one process: views of its images, and values of the whole batch."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from selftaught.augment.draws import OnlyTheseDraws, PartGenerator
from selftaught.contracts import Batch, Outputs, Task, Views
from selftaught.modules.processes import average, gather, processes


def view_generator() -> torch.Generator:
    """The generator of views: with several processes, that of the part of this process."""
    those = processes()
    return torch.Generator() if those.count == 1 else PartGenerator(those.rank, those.count)


def make_views(task: Task, batch: Batch, generator: torch.Generator) -> Views:
    """Make views of the images of this process."""
    with OnlyTheseDraws() if isinstance(generator, PartGenerator) else nullcontext():
        return task.views(batch, generator)


def purpose(what: str) -> str:
    """The purpose of global random numbers, which differ between processes: dropout masks of different images."""
    return f"{what}/{processes().rank}" if processes().rank else what


def averaged(logged: Outputs) -> Outputs:
    """The scalars among logged values, averaged over processes."""
    if processes().count == 1:
        return logged
    scalars = {name: value for name, value in logged.items() if value.ndim == 0}
    means = average(torch.stack([value.float() for value in scalars.values()]))
    return dict(zip(scalars, means.unbind(), strict=True))


class WholeBatch(dict[str, Tensor]):
    """Tensors by name that are those of the whole batch: the rows of all processes, or the mean of scalars.

    A tensor is gathered when it is looked up, because few are needed and images are large.
    """

    def __getitem__(self, name: str) -> Tensor:
        """The tensor `name` of the whole batch."""
        value = super().__getitem__(name)
        return gather(value) if value.ndim else average(value)

    def get(self, name: str, default: Any = None) -> Any:
        """The tensor `name` of the whole batch, or the default."""
        return self[name] if name in self else default  # noqa: SIM401 (this is `get`)
