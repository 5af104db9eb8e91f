"""Settings of a run: flat names, each defined once where it is used; the same in Python, as flags and in YAML.

A setting belongs to the run (`General`), its optimizer, its crops, its task or its encoder; which settings the last two
have depends on the choice. `offered` lists all settings, `Settings.of` sorts flat values by owner, and `flat` is the
inverse: the content of `config.yaml`.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
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
"""Upper bounds that catch typos before they exhaust the memory."""
BUDGETS = ("minutes", "epochs", "steps")
"""At most one of them is given; a flag overrides all those of a config."""


@dataclass(frozen=True)
class General:
    """Settings of every run, whatever its task and encoder."""

    task: str = "rotation"
    """Pretext task, see `selftaught list tasks`."""
    encoder: str = "convnet"
    """Encoder, see `selftaught list encoders`; `timm:NAME` for any of timm's."""
    minutes: float | None = None
    """Minutes of training, approximately: the number of steps is estimated from the first ones. Default: 10."""
    epochs: float | None = None
    """Number of passes over the images."""
    steps: int | None = None
    """Number of optimizer steps."""
    restarts: tuple[int, ...] = ()
    """Steps after which the learning-rate schedule starts again, warm-up included (warm restarts). Extending a finished
    run adds one."""
    size: int | None = None
    """Side of the views in pixels; default: that of the images, at most 128."""
    batch_size: int = 64
    """Number of images per step; a task may use several views of each."""
    seed: int = 0
    """Random seed."""
    limit: int | None = None
    """Number of images to use, a random subset."""
    crops: int | None = None
    """Number of virtual crops of the photos, if the source is photos. Default: 100000."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, mps."""
    precision: Precision = "auto"
    """32, bf16, or auto: bf16 where it is faster."""
    threads: int | None = None
    """Number of CPU threads; default: that of torch. Kept in the config, since it changes the order of sums."""
    compile: Compile = "auto"
    """torch.compile; auto: on GPUs, for runs over ten minutes, if it is faster and agrees with eager mode."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("steps", "size", "batch_size", "limit", "crops", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
        for name, most in MOST.items():
            value = getattr(self, name)
            if value is not None and value > most:
                raise UserError(f"--{name.replace('_', '-')} must be at most {most:,}, got {value:,}.")
        if self.seed < 0:
            raise UserError(f"--seed must be at least 0, got {self.seed}.")
        bounds = (0, *self.restarts, *([] if self.steps is None else [self.steps]))
        if any(after <= before for before, after in pairwise(bounds)):
            below = "" if self.steps is None else f" and below --steps {self.steps:,}"
            raise UserError(f"--restarts must be positive, ascending{below}, got {' '.join(map(str, self.restarts))}.")

    @property
    def budget(self) -> Budget:
        """How long to train."""
        if self.minutes is self.epochs is self.steps is None:
            return Budget(minutes=10)
        return Budget(self.minutes, self.epochs, self.steps)


class Setting(NamedTuple):
    """A setting by its name."""

    name: str
    annotation: Any
    default: Any
    help: str
    owner: str
    """Heading in the help: "Run", "Optimizer", "Crops of photos", "Task rotation", "Encoder convnet"."""


@dataclass(frozen=True)
class Settings:
    """All settings of a run, by owner."""

    general: General
    optimization: Optimization
    cropping: Cropping
    task: Mapping[str, Any]
    """Settings of the task but `size`, which may depend on the images."""
    encoder: Mapping[str, Any]
    """Settings of the encoder but `size` and `reads`, which the task may decide."""

    @classmethod
    def of(cls, **flat: Any) -> "Settings":
        """Sort flat values by owner; what is not given has its default.

        Raises:
            UserError: a name that the chosen task and encoder do not have, or a value of the wrong type.
        """
        offers = offered_for(flat)
        task, encoder = str(flat.get("task", General.task)), str(flat.get("encoder", default_encoder(flat)))
        known = {setting.name: setting for setting in offers}
        for name, value in flat.items():
            if name not in known:
                raise unknown(f"setting of {task} on {encoder}", name, known)
            flat[name] = tupled(value)
            if not _fits(flat[name], known[name].annotation):
                given_value = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:80]} ..."
                expected = _expected(known[name].annotation)
                raise UserError(f"--{name.replace('_', '-')} expects {expected}, got {given_value}.")

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
    """The fields of a dataclass; `better` overrides its defaults."""
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
"""Larger numbers, infinities and NaN are refused: torch could not represent them."""


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value has the type of a setting: a number, text, a choice, a tuple of these, or None."""
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


def _expected(annotation: Any) -> str:
    """The expected type in words."""
    kind, parts = get_origin(annotation), get_args(annotation)
    if kind is Literal:
        return " or ".join(map(str, parts))
    if kind in (Union, UnionType):
        return " or ".join(_expected(part) for part in parts if part is not type(None))
    if kind is tuple:
        return (
            f"a list, each {_expected(parts[0])}"
            if parts[-1] is Ellipsis
            else f"{len(parts)} values, each {_expected(parts[0])}"
        )
    names = {int: "an integer of at most 18 digits", float: "a finite number", bool: "true or false", str: "text"}
    return names.get(annotation, str(annotation))


def tupled(value: Any) -> Any:
    """A value of YAML or JSON as a setting: lists become tuples."""
    return tuple(tupled(item) for item in value) if isinstance(value, list | tuple) else value


def plain(value: Any) -> Any:
    """A setting as a value of YAML or JSON."""
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
