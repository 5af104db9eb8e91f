"""Counts what processes send to each other in a step of a task: see `communication`.

Every process takes steps on a CPU and counts the collective operations of torch.distributed, and the bytes of its TCP
connections. A group of processes is started for each encoder.
"""

import json
import os
import socket
import struct
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.images import noise, stored
from benchmarks.processes import start
from selftaught.contracts import Task
from selftaught.encoders import make_encoder
from selftaught.modules.bank import MemoryBank
from selftaught.modules.processes import processes
from selftaught.pretext import task_class
from selftaught.training.distributed import joined
from selftaught.training.interruption import Stop
from selftaught.training.loop import Pretraining
from selftaught.training.optimizer import Optimization
from selftaught.training.parts import averaged
from selftaught.training.plan import make_fabric
from selftaught.training.trial import Trial

CPU = torch.device("cpu")
OPERATIONS = {"allreduce_": ("all-reduce", 0), "allgather_": ("all-gather", 1), "broadcast_": ("broadcast", 0)}
"""Operator of torch -> its name, and the position of the argument with the tensors that a process contributes."""
PURPOSES = {
    ":after_step;": "bank, queue",
    "modules/synchronized.py:": "batch norm",
    ":averaged;": "log, signals",
    ":agree;": "log, signals",
    "modules/processes.py:": "loss",
    "training/distributed.py:backward;": "loss",
}
"""What an operation is for, by a function that is being executed; the first that matches."""
REST = "gradients"
"""What an operation is for if none matches: DistributedDataParallel has no functions in Python."""
SMALL: dict[str, dict[str, Any]] = {name: {"negatives": 16, "bank_init": "random"} for name in ("npid", "pirl")}
"""Settings of tasks that make the counted steps fast and change nothing in what is sent."""
IMAGES = 67
"""Images of the source, which are noise."""


@dataclass(frozen=True)
class Traffic:
    """The operations of one kind and purpose in a step."""

    purpose: str
    operation: str
    calls: int
    fixed: float
    """Bytes that a process contributes whatever the batch."""
    per_image: float
    """Bytes that it contributes for each of its images; in an all-reduce, for each image of all processes."""

    def contributed(self, batch_size: int, count: int) -> float:
        """Bytes P of a process, for a batch of all `count` processes together."""
        return self.fixed + self.per_image * batch_size / (count if self.operation == "all-gather" else 1)

    def sent(self, batch_size: int, count: int) -> float:
        """Bytes that a process sends on a ring."""
        factor = {"all-reduce": 2 * (count - 1) / count, "all-gather": count - 1, "broadcast": 1}[self.operation]
        return factor * self.contributed(batch_size, count)


@dataclass(frozen=True)
class Step:
    """What was counted in the steps of a task."""

    task: str
    encoder: str
    count: int
    """Number of processes that were counted."""
    batch_size: int
    """Batch size of the larger step."""
    traffic: list[Traffic]
    parameters: int
    """Trainable parameters."""
    operations: float
    """Floating-point operations per image."""
    bank: float
    """Bytes of the memory bank per image of the source."""
    each_epoch: float
    """Bytes of encoder and heads, without the bank, if the first process sends them to the others before an epoch."""
    tcp: float | None
    """Bytes that a process sent by TCP in the larger step; None where the system does not report them."""

    def sent(self, batch_size: int, count: int, *purposes: str) -> float:
        """Bytes that a process sends in a step, for some purposes or for all."""
        return sum(t.sent(batch_size, count) for t in self.traffic if not purposes or t.purpose in purposes)


class Counter(TorchDispatchMode):
    """Counts collective operations and the bytes that this process contributes, those of torch's own C++ included."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        """(purpose, operation) -> calls and bytes."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation, and run it."""
        if func.namespace == "c10d":
            operation, place = OPERATIONS[func.overloadpacket.__name__]
            entry = self.counted[purpose(), operation]
            entry[0] += 1
            entry[1] += sum(part.nbytes for part in tree_leaves(args[place]) if isinstance(part, Tensor))
        return func(*args, **(kwargs or {}))


def purpose() -> str:
    """What the present operation is for."""
    functions, frame = "", sys._getframe(2)
    while frame is not None:
        functions += f"{frame.f_code.co_filename}:{frame.f_code.co_name};"
        frame = frame.f_back  # type: ignore[assignment]
    return next((name for part, name in PURPOSES.items() if part in functions), REST)


def sent_by_tcp() -> int | None:
    """Bytes that the open TCP connections of this process have sent and the other side has received (Linux)."""
    if sys.platform != "linux":
        return None
    total = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the entry of this listing itself
            if entry.readlink().name.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(entry.name))) as connection:
                    if connection.type == socket.SOCK_STREAM and connection.family != socket.AF_UNIX:
                        facts = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                        total += struct.unpack_from("Q", facts, 120)[0]  # tcpi_bytes_acked of linux/tcp.h
    return total


def count_step(name: str, encoder_name: str, size: int, batch_size: int) -> dict[str, Any]:
    """Count a step of a task in this process; `batch_size` images of all processes."""
    torch.manual_seed(0)
    source, task = stored(noise(IMAGES, 32)), task_class(name)(size=size, **SMALL.get(name, {}))
    encoder = make_encoder(encoder_name, **{**task.encoder_options(), "size": size})
    run = Pretraining(task, encoder, task.heads(encoder, source), source, Optimization(), 1, batch_size, 0)
    trial = Trial(run, make_fabric(CPU, "32", run.has_critic), False)
    for step in range(2):  # DistributedDataParallel rearranges its buckets at the beginning of the second one
        trial.step(step)
    processes().total(torch.zeros(1))  # all are here
    before = sent_by_tcp()
    with FlopCounterMode(display=False) as operations, Counter() as counter:
        averaged(trial.step(2))
        Stop().agreed()
    processes().total(torch.zeros(1))
    after = sent_by_tcp()
    module = trial.trainer.module
    banks = [each for each in module.modules() if isinstance(each, MemoryBank)]
    state = sum(value.nbytes for value in module.state_dict().values()) - sum(each.entries.nbytes for each in banks)
    return {
        "counted": [[*key, *value] for key, value in counter.counted.items()],
        "parameters": sum(weight.numel() for weight in module.parameters() if weight.requires_grad),
        "operations": operations.get_total_flops() * processes().count / batch_size,
        "bank": sum(each.entries.nbytes / len(each.entries) for each in banks),
        "each_epoch": state if type(task).before_epoch is not Task.before_epoch else 0,
        "tcp": None if before is None or after is None else after - before,
    }


def count_steps(tasks: Sequence[str], encoder: str, size: int, images: int, count: int) -> Iterator[Step]:
    """Count steps of tasks in `count` processes with `images` images each, and with twice as many."""
    job = json.dumps([list(tasks), encoder, size, [images * count, 2 * images * count]])
    children = start(["benchmarks.collectives", job], count)
    outputs = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        raise RuntimeError("a process that was counted failed; its message is above.")
    for task, *found in zip(tasks, *(json.loads(output.splitlines()[-1]) for output in outputs), strict=True):
        small, large = found[0]
        tcp = [each[1]["tcp"] for each in found]
        yield Step(
            task, f"{encoder}, {size} px", count, 2 * images * count,
            list(fitted(small["counted"], large["counted"], images, count)),
            **{key: large[key] for key in ("parameters", "operations", "bank", "each_epoch")},
            tcp=None if None in tcp else fmean(tcp),
        )  # fmt: skip


def fitted(small: list[Any], large: list[Any], images: int, count: int) -> Iterator[Traffic]:
    """The operations of two steps with `images` images per process and with twice as many."""
    for (purpose, operation, calls, first), (*same, second) in zip(small, large, strict=True):
        if same != [purpose, operation, calls]:
            raise RuntimeError(f"{purpose}: the number of operations depends on so small a batch: give more --images.")
        more = images * (1 if operation == "all-gather" else count)
        yield Traffic(purpose, operation, calls, 2 * first - second, (second - first) / more)


def work(tasks: Sequence[str], encoder: str, size: int, batch_sizes: Sequence[int]) -> None:
    """Print what this process counts, as JSON."""
    with joined("cpu"):
        print(json.dumps([[count_step(task, encoder, size, batch) for batch in batch_sizes] for task in tasks]))


if __name__ == "__main__":
    work(*json.loads(sys.argv[1]))
