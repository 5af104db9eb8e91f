"""selftaught pretrains image encoders on self-supervised pretext tasks and probes every layer.

import selftaught

run = selftaught.pretrain("photos/", task="rotation", minutes=10)
table = run.probe("cifar10")
run.report()
"""

import random
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from selftaught.api.baseline import baseline
    from selftaught.api.pretrain import pretrain
    from selftaught.api.profile import profile
    from selftaught.api.run import Run
    from selftaught.api.saving import save_encoder
    from selftaught.api.shard import shard
    from selftaught.contracts import Batch, Encoder, EpochUpdate, Layer, Source, Task
    from selftaught.data import list_sources, open_source, open_splits
    from selftaught.encoders import ENCODERS, make_encoder
    from selftaught.errors import UserError
    from selftaught.pretext import TASKS
    from selftaught.rendering.render import render
    from selftaught.report import write_report

_MODULES = {
    "selftaught.contracts": ("Batch", "Encoder", "Layer", "EpochUpdate", "Source", "Task"),
    "selftaught.data": ("list_sources", "open_source", "open_splits"),
    "selftaught.encoders": ("ENCODERS", "make_encoder"),
    "selftaught.errors": ("UserError",),
    "selftaught.pretext": ("TASKS",),
    "selftaught.rendering.render": ("render",),
    "selftaught.report": ("write_report",),
    "selftaught.api.baseline": ("baseline",),
    "selftaught.api.pretrain": ("pretrain",),
    "selftaught.api.profile": ("profile",),
    "selftaught.api.run": ("Run",),
    "selftaught.api.saving": ("save_encoder",),
    "selftaught.api.shard": ("shard",),
}

__all__ = [
    "ENCODERS",
    "TASKS",
    "Batch",
    "Encoder",
    "EpochUpdate",
    "Layer",
    "Run",
    "Source",
    "Task",
    "UserError",
    "baseline",
    "list_sources",
    "make_encoder",
    "open_source",
    "open_splits",
    "pretrain",
    "profile",
    "render",
    "save_encoder",
    "shard",
    "write_report",
]


def __getattr__(name: str) -> Any:
    # Importing torch takes two seconds; `selftaught --help` should not wait for it.
    for module, names in _MODULES.items():
        if name in names:
            state = random.getstate()  # rich draws a number when it is imported
            try:
                return getattr(import_module(module), name)
            finally:
                random.setstate(state)
    raise AttributeError(f"module 'selftaught' has no attribute {name!r}")
