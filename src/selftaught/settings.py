"""Settings of a run: flat names, each defined once where it acts, the same in Python, on the command line and in YAML.

A setting belongs to the run (`General`), its optimizer, its crops, its task or its encoder; the last two depend on
what was chosen. `offered` lists what there is for a choice, `Settings.of` sorts flat values to their owners, `flat`
gives them back: what `config.yaml` holds.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse, parse_from_object

from selftaught.contracts import Encoder, Task
from selftaught.data.crops import Cropping
from selftaught.encoders import encoder_class
from selftaught.errors import UserError, unknown
from selftaught.pretext import task_class
from selftaught.training.optimizer import Optimization, optimizer_defaults
from selftaught.training.plan import Budget, Compile, Precision

MOST = {
    "minutes": 10**7, "epochs": 10**6, "steps": 10**12, "size": 4096, "batch_size": 2**20, "seed": 2**32 - 1,
    "crops": 10**8, "threads": 1024,
}  # fmt: skip
"""Above these a number is a slip of the hand; what memory there is ends sooner, but only after a while."""


@dataclass(frozen=True)
class General:
    """What every run has, whatever its task and encoder."""

    task: str = "rotation"
    """The pretext task: see `selftaught list tasks`."""
    encoder: str = "convnet"
    """What is trained: see `selftaught list encoders`; `timm:NAME` for any of timm's."""
    minutes: float | None = None
    """Train for about this long: the first steps are measured and minutes become steps. Without any budget: 10."""
    epochs: float | None = None
    """Train for this many passes over the images."""
    steps: int | None = None
    """Train for this many optimizer steps."""
    size: int | None = None
    """Side of the views in pixels; by default the images' own, at most 128."""
    batch_size: int = 64
    """Images per step; a task may show each several times."""
    seed: int = 0
    """Of everything random."""
    limit: int | None = None
    """Take only this many images, a random part."""
    crops: int | None = None
    """Treat the source as photos and cut this many virtual crops from them (100000 where the source is a photo)."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, mps."""
    precision: Precision = "auto"
    """bf16 where it is faster, else 32."""
    threads: int | None = None
    """CPU threads; by default those that torch takes. Stored, because sums in another order are other sums."""
    compile: Compile = "auto"
    """torch.compile: auto only on GPUs, for many --minutes, if it agrees with eager and pays."""

    def __post_init__(self) -> None:
        """Refuse numbers of nothing."""
        for name in ("size", "batch_size", "limit", "crops", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, found {value}: give a larger one.")
        for name, most in MOST.items():
            value = getattr(self, name)
            if value is not None and value > most:
                raise UserError(
                    f"--{name.replace('_', '-')} must be at most {most:,}, found {value:,}: give a smaller one."
                )
        if self.seed < 0:
            raise UserError(f"--seed must be at least 0, found {self.seed}: give a larger one.")

    @property
    def budget(self) -> Budget:
        """How long to train."""
        if self.minutes is self.epochs is self.steps is None:
            return Budget(minutes=10)
        return Budget(self.minutes, self.epochs, self.steps)


class Setting(NamedTuple):
    """One name that can be set."""

    name: str
    annotation: Any
    default: Any
    help: str
    owner: str
    """A heading for people: "Run", "Optimizer", "Crops of photos", "Task rotation", "Encoder convnet"."""


@dataclass(frozen=True)
class Settings:
    """All settings of a run, each with its owner."""

    general: General
    optimization: Optimization
    cropping: Cropping
    task: Mapping[str, Any]
    """What is set of the task, `size` apart, which is known once the images are."""
    encoder: Mapping[str, Any]
    """What is set of the encoder, `size` and `reads` apart: the task may want one of them."""

    @classmethod
    def of(cls, **flat: Any) -> "Settings":
        """Sort flat values to their owners; what is not given has its default.

        Raises:
            UserError: a name that the chosen task and encoder do not have, or a value that cannot be.
        """
        offers = offered_for(flat)
        task, encoder = str(flat.get("task", General.task)), str(flat.get("encoder", default_encoder(flat)))
        known = {setting.name: setting for setting in offers}
        for name, value in flat.items():
            if name not in known:
                raise unknown(f"setting of {task} on {encoder}", name, known)
            flat[name] = tupled(value)
            if not _fits(flat[name], known[name].annotation):
                found = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:80]} ..."
                wanted = _wanted(known[name].annotation)
                raise UserError(
                    f"--{name.replace('_', '-')} must be {wanted}, found {found}: give one, or leave it out."
                )

        def chosen(owner: str) -> dict[str, Any]:
            return {s.name: flat.get(s.name, s.default) for s in offers if s.owner.startswith(owner)}

        return cls(
            General(**chosen("Run")),
            Optimization(**chosen("Optimizer")),
            Cropping(**chosen("Crops of photos")),
            chosen("Task "),
            chosen("Encoder "),
        )

    def flat(self) -> dict[str, Any]:
        """Name -> value of every setting, as `of` takes them."""
        return {**vars(self.general), **vars(self.optimization), **vars(self.cropping), **self.task, **self.encoder}


def default_encoder(flat: Mapping[str, Any]) -> str:
    """The encoder of a run where none is chosen: the task's, if it needs a certain one."""
    return str(task_class(str(flat.get("task", General.task))).defaults.get("encoder", General.encoder))


def offered_for(flat: Mapping[str, Any]) -> list[Setting]:
    """The settings that exist, given the values of some."""
    encoder = flat.get("encoder", default_encoder(flat))
    optimizer = flat.get("optimizer")
    return offered(str(flat.get("task", General.task)), str(encoder), None if optimizer is None else str(optimizer))


def offered(task: str, encoder: str, optimizer: str | None = None) -> list[Setting]:
    """The settings of a task, an encoder and an optimizer (by default the task's), with their defaults for these."""
    advised = task_class(task).defaults
    found = [
        *_fields(General, "Run", advised),
        *_fields(task_class(task), f"Task {task}"),
        *_arguments(encoder_class(encoder), f"Encoder {encoder}"),
        *_fields(Optimization, "Optimizer", optimizer_defaults(advised, optimizer)),
        *_fields(Cropping, "Crops of photos", advised),
    ]
    names = [setting.name for setting in found]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"two owners have settings called {twice}: on the command line they would be one"
    return found


def _fields(owner: type[Any], heading: str, better: Mapping[str, Any] = MappingProxyType({})) -> list[Setting]:
    """The fields of a dataclass; `better` holds defaults in the place of its own."""
    said = {p.arg_name: p.description or "" for c in reversed(owner.__mro__[:-1]) for p in parse_from_object(c).params}
    hints = get_type_hints(owner)
    return [
        Setting(f.name, hints[f.name], better.get(f.name, f.default), said.get(f.name, ""), heading)
        for f in fields(owner)
        if not (issubclass(owner, Task) and f.name == "size")  # the run has it
    ]


def _arguments(owner: type[Encoder], heading: str) -> list[Setting]:
    said = {p.arg_name: p.description or "" for p in parse(owner.__doc__ or "").params}
    hints = get_type_hints(owner.__init__)
    return [
        Setting(name, hints[name], parameter.default, said.get(name, ""), heading)
        for name, parameter in inspect.signature(owner).parameters.items()
        if name not in ("name", "size", "reads", "causal")  # of the encoder's name, of the run, the rest of the task
    ]


HUGE = 10**18
"""Larger numbers, infinities and what is no number (NaN) are no settings: torch could not hold them."""


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value is of a type that a setting may have: numbers, text, choices, tuples of these, or None."""
    kind, parts = get_origin(annotation), get_args(annotation)
    if kind is Literal:
        return value in parts
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is tuple:
        parts = (parts[0],) * len(value) if isinstance(value, tuple) and parts[-1] is Ellipsis else parts
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_fits, value, parts))
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < HUGE
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < HUGE
    return isinstance(value, annotation)


def _wanted(annotation: Any) -> str:
    """What a value must be, for people."""
    kind, parts = get_origin(annotation), get_args(annotation)
    if kind is Literal:
        return " or ".join(map(str, parts))
    if kind in (Union, UnionType):
        return " or ".join(_wanted(part) for part in parts if part is not type(None))
    if kind is tuple:
        return (
            f"a list, each {_wanted(parts[0])}" if parts[-1] is Ellipsis else f"{len(parts)}, each {_wanted(parts[0])}"
        )
    names = {int: "a whole number of at most 18 digits", float: "a finite number", bool: "true or false", str: "text"}
    return names.get(annotation, str(annotation))


def tupled(value: Any) -> Any:
    """A value as settings have it: YAML and JSON have lists where settings are tuples."""
    return tuple(tupled(item) for item in value) if isinstance(value, list | tuple) else value


def plain(value: Any) -> Any:
    """A value as YAML and JSON know them."""
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
