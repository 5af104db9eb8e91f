"""Several processes that train one run: the only module that communicates.

Processes find each other by the variables of torchrun or Slurm (see `launch`), and send tensors by gloo between CPUs
and NCCL between GPUs. A process that fails writes it to a store that all can read, so that one error gives one message.
"""

import inspect
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from itertools import count
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch.autograd.function import Function, once_differentiable
from torch.nn.parallel import DistributedDataParallel

from selftaught.display.console import silence
from selftaught.errors import ProcessLostError, ReportedError
from selftaught.modules.processes import Processes, processes, using
from selftaught.training.launch import Launch, launch
from selftaught.training.plan import choose_device

if TYPE_CHECKING:
    from lightning_fabric.strategies.ddp import DDPStrategy

T = TypeVar("T")

START = timedelta(minutes=10)
"""How long processes wait for each other at the start; the nodes of a job may start at different times."""
ANSWER = timedelta(hours=1)
"""How long a process waits for the others within a step: for hung ones, as killed ones are noticed at once."""
POLL = 0.2
"""Seconds between two looks for a message of another process."""
EXPLANATION = 5.0
"""Seconds that a process which lost another one waits for that one's reason."""
_NUMBERS = count()
BROKEN = re.compile(r"gloo|NCCL|TCPStore|Connection (closed|reset|refused)|Broken pipe|peer|recvBytes|sendBytes", re.I)
"""Text of errors that come from the loss of another process: torch has no exception class for it."""


class Group(Processes):
    """The processes of a run.

    Args:
        place: this process.
        device: its device, which decides how tensors are sent.
    """

    def __init__(self, place: Launch, device: torch.device) -> None:
        self.rank, self.count, self.device = place.rank, place.count, device
        from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

        host = SLURMEnvironment.resolve_root_node_address(place.address)
        opens = place.rank == 0 and not place.has_store
        number = next(_NUMBERS)  # a script may train several runs
        self.store = PrefixStore(f"selftaught/{place.attempt}/{number}", _store(host, place.port, opens))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=self.store,
            rank=place.rank,
            world_size=place.count,
            timeout=ANSWER,
        )
        self.signals = self.arrivals = 0
        self.pending: tuple[Any, Tensor] | None = None

    def gather(self, rows: Tensor) -> Tensor:
        """See `Processes`."""
        gathered: Tensor = _Gather.apply(rows, self)
        return gathered

    def total(self, values: Tensor) -> Tensor:
        """See `Processes`."""
        total = values.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    def first(self, make: Callable[[], T]) -> T:
        """See `Processes`. The others wait for at most `ANSWER`."""
        made: list[Any] = [make() if self.rank == 0 else None]
        dist.broadcast_object_list(made, 0)
        result: T = made[0]
        return result

    def signal(self) -> None:
        """Tell the other processes to go on after `await_signal`."""
        self.store.set(f"signal/{self.signals}", "")
        self.signals += 1

    def await_signal(self) -> None:
        """Wait for the first process's `signal`, which may take hours, and raise an error if it fails."""
        while not self.store.check([f"signal/{self.signals}"]):
            if (reason := self._failure()) is not None:
                raise ReportedError(reason)
            sleep(POLL)
        self.signals += 1

    def arrive(self) -> None:
        """Wait until all processes have called this, which may take hours, and raise an error if one fails."""
        self.store.set(f"arrival/{self.arrivals}/{self.rank}", "")
        while not self.store.check([f"arrival/{self.arrivals}/{rank}" for rank in range(self.count)]):
            if (reason := self._failure()) is not None:
                raise ReportedError(reason)
            sleep(POLL)
        self.arrivals += 1

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """See `Processes`."""
        for tensor in tensors:
            dist.broadcast(tensor, 0)

    def agree(self, number: int) -> int:
        """See `Processes`. The answer arrives during the next step, so that no step waits for it."""
        agreed = 0
        if self.pending is not None:
            work, value = self.pending
            work.wait()
            agreed = int(value)
        value = torch.tensor(number)
        self.pending = dist.all_reduce(value, dist.ReduceOp.MAX, async_op=True), value
        return agreed

    def explain(self, error: BaseException) -> BaseException:
        """The error to raise for `error`: itself in the process that reports it, a `ReportedError` in the others.

        A process that lost another one first waits for the other's reason. If there is none, it was killed.
        """
        if isinstance(error, ReportedError):
            return error
        if is_lost(error):
            begun = monotonic()
            while monotonic() - begun < EXPLANATION:
                if (reason := self._failure()) is not None:
                    return ReportedError(reason)
                sleep(POLL)
            error = ProcessLostError(
                "a process of this run ended unexpectedly (killed, or out of memory): continue the run with --resume."
            )
        try:
            reports = self.store.add("failures", 1) == 1
            if reports:
                self.store.set("failure", kind_of(error))
        except RuntimeError:  # the process that had the store is lost
            reports = True
        return error if reports else ReportedError(self._failure() or kind_of(error))

    def _failure(self) -> str | None:
        """The kind of failure that another process reported, if any."""
        try:
            return self.store.get("failure").decode() if self.store.check(["failure"]) else None
        except RuntimeError:  # the process that had the store is lost
            return None


@cache
def _store(host: str, port: int, opens: bool) -> TCPStore:
    """The store of all processes, opened once."""
    return TCPStore(host, port, None, opens, timeout=START, wait_for_workers=False)


def kind_of(error: BaseException) -> str:
    """The consequence of an error for the other processes: "resumable" if the run can be continued, else "final"."""
    return "resumable" if isinstance(error, ProcessLostError) or not isinstance(error, Exception) else "final"


def is_lost(error: BaseException) -> bool:
    """Whether an error is the consequence of the loss of another process."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and bool(BROKEN.search(str(error))))


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Join the other processes of the run for the block, if torchrun or Slurm started several.

    Args:
        device: as in `choose_device`.

    Raises:
        ReportedError: another process failed, and reports why.
    """
    place = launch()
    if place is None or isinstance(processes(), Group):
        yield
        return
    if place.rank:
        silence()
        logging.getLogger("selftaught").setLevel(logging.ERROR)
    group = Group(place, choose_device(device))
    with using(group), explained():
        yield
        group.total(torch.zeros(1))  # all have finished; on CPUs, as `barrier` would choose a GPU
    dist.destroy_process_group()  # not after an error: it could wait for processes that are lost


@contextmanager
def explained() -> Iterator[None]:
    """Tell the other processes of an error in the block, and let one of them report it."""
    try:
        yield
    except BaseException as error:
        group = processes()
        if not isinstance(group, Group) or getattr(error, "explained", False):
            raise
        reason = group.explain(error)
        reason.explained = True  # type: ignore[attr-defined]
        if reason is error:
            raise
        raise reason from error


def in_turn(make: Callable[[], T]) -> T:
    """The result of `make`, called in the first process and then in the others, which use its caches."""
    group = processes()
    if not isinstance(group, Group):
        return make()
    if group.rank:
        group.await_signal()
    made = make()
    if not group.rank:
        group.signal()
    return made


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns in the first process, where alone it is called; the others wait as long as it takes."""
    group = processes()
    if not isinstance(group, Group):
        return make()
    if group.rank:
        group.await_signal()
        return group.first(make)
    made = make()
    group.signal()
    return group.first(lambda: made)


def all_arrived(flag: bool = False) -> bool:
    """Wait for all processes, as long as it takes; whether any of them gave the flag."""
    group = processes()
    if not isinstance(group, Group):
        return flag
    group.arrive()
    return bool(group.total(torch.tensor(int(flag))))


def strategy(two_players: bool) -> "DDPStrategy":
    """Fabric's strategy: gradients are averaged over processes; buffers are not overwritten by those of the first.

    Args:
        two_players: whether a step trains only some of the weights.
    """
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    class Joined(ClusterEnvironment):
        """The group that exists already, as one process on each of `count` nodes."""

        creates_processes_externally = True
        main_address, main_port = "", 0
        detect = staticmethod(lambda: False)
        world_size = staticmethod(lambda: processes().count)
        global_rank = node_rank = staticmethod(lambda: processes().rank)
        local_rank = staticmethod(lambda: 0)

        def set_world_size(self, size: int) -> None:
            pass

        def set_global_rank(self, rank: int) -> None:
            pass

    # Newer versions of torch have another name for the option. Buffers are still copied once at the start.
    parameters = inspect.signature(DistributedDataParallel.__init__).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    options: dict[str, Any] = {"find_unused_parameters": two_players, buffers: False}
    return DDPStrategy(cluster_environment=Joined(), **options)


class _Gather(Function):
    """Concatenates the rows of all processes; the gradient of a row is the sum over the processes' losses."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Group) -> Tensor:
        ctx.group, ctx.rows = group, len(rows)
        rows = rows.contiguous()
        parts = [torch.empty_like(rows) for _ in range(group.count)]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = ctx.group.total(grad.float() if grad.dtype.itemsize < 4 else grad)
        first = ctx.rows * ctx.group.rank
        return total[first : first + ctx.rows].to(grad.dtype), None
