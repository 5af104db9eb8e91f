"""A guard that notices, on a CPU, what would make a GPU's step wait: results that the host reads from the device.

On a CPU nothing is copied, so calls are counted: `.item()`, `.cpu()`, `bool(tensor)` and the like, and operations whose
result has a size that depends on values, such as `nonzero` and indexing with a mask. In a loss every tensor is on the
device. In views some are on the CPU by design (matrices); there only those count that come from the batch, which are
`OnDevice`.
"""

import traceback
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from selftaught.contracts import Batch

METHODS = {
    *("item", "cpu", "numpy", "tolist", "nonzero", "masked_select", "unique", "unique_consecutive", "bincount"),
    *("__bool__", "__int__", "__float__", "__index__", "__contains__", "equal", "allclose", "is_nonzero", "argwhere"),
}
OPERATIONS = {
    *("_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive"),
    *("bincount", "equal", "is_nonzero", "repeat_interleave"),
}


def is_copy_to_host(name: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> bool:
    """Whether a call is `tensor.to("cpu")`; `.to` of another tensor's device does not count, as it is no copy."""
    return name == "to" and any(value == "cpu" for value in [*arguments[1:], *options.values()] if type(value) is str)


def has_mask(name: str, arguments: tuple[Any, ...]) -> bool:
    """Whether a tensor is read at a mask; a value written to the places of a mask needs no size."""
    indices = arguments[1] if name in ("__getitem__", "index") and len(arguments) > 1 else ()
    indices = indices if isinstance(indices, tuple | list) else (indices,)
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices)


class Found(list[str]):
    """The places where the host waits: file, line and operation."""

    def add(self, name: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if "/selftaught/" in frame.filename]
        where = f"{frames[-1].filename.rpartition('/selftaught/')[2]}:{frames[-1].lineno}" if frames else "test"
        self.append(f"{where} {name}")


class Methods(TorchFunctionMode):
    """Notices methods that read a tensor."""

    def __init__(self, found: Found) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        name, options = getattr(function, "__name__", ""), options or {}
        if name in METHODS or is_copy_to_host(name, arguments, options) or has_mask(name, arguments):
            self.found.add(name)
        before = len(self.found)
        result = function(*arguments, **options)
        if name == "one_hot" and (len(arguments) > 1 or "num_classes" in options):
            del self.found[before:]  # checks the range of the values on a CPU only
        return result


class Operations(TorchDispatchMode):
    """Notices operations that read a tensor, inside of others too."""

    def __init__(self, found: Found) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in OPERATIONS or has_mask(name, arguments):
            self.found.add(name)
        return function(*arguments, **(options or {}))


class OnDevice(Tensor):
    """A tensor that stands for one on a GPU; so does what is computed from it."""

    found = Found()

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        name, options = getattr(function, "__name__", ""), options or {}
        if name in METHODS or is_copy_to_host(name, arguments, options) or has_mask(name, arguments):
            cls.found.add(name)
        return super().__torch_function__(function, types, arguments, options)


class DeviceBatch(Batch):
    """A batch whose images, targets and indices are `OnDevice`."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.population = batch, batch.population
        self.index = batch.index.as_subclass(OnDevice)
        self.targets = {name: target.as_subclass(OnDevice) for name, target in batch.targets.items()}

    def __len__(self) -> int:
        return len(self.batch)

    def warp(self, matrix: Tensor, size: int, of: str = "image") -> Tensor:
        if isinstance(matrix, OnDevice):
            OnDevice.found.add("warp with a matrix on the device")
            matrix = matrix.as_subclass(Tensor)
        return self.batch.warp(matrix, size, of).as_subclass(OnDevice)
