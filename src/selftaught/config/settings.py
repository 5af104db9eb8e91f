"""Settings of a run, each defined once where it acts, and the same in Python, on the command line and in YAML.

A setting belongs to the run (`General`), its optimizer, its crops of photos, its task or its encoder; the last two
depend on what was chosen. Settings are nested in YAML and have dotted keys elsewhere (`task.angles`, see
`runs.sections`), so two owners may have settings of one name; where only one has it, the name alone will do (`angles`).
"""

import inspect
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, get_type_hints

from docstring_parser import parse, parse_from_object

from selftaught.config.types import describe, from_yaml, has_type, is_path
from selftaught.contracts import Task
from selftaught.data.crops import Cropping
from selftaught.data.storage import Storage
from selftaught.encoders import encoder_class
from selftaught.errors import UserError, require_between, unknown
from selftaught.limits import BATCH, CROPS, EPOCHS, MINUTES, NUM_IMAGES, SEED, SIZE, STEPS, THREADS
from selftaught.pretext import task_class
from selftaught.runs.sections import flatten
from selftaught.training.optimizer import Optimization, optimizer_defaults
from selftaught.training.plan import Budget, Compile, Precision

RANGES = {
    "minutes": MINUTES, "epochs": EPOCHS, "steps": STEPS, "size": SIZE, "batch_size": BATCH, "seed": SEED,
    "limit": NUM_IMAGES, "num_crops": CROPS, "threads": THREADS,
}  # fmt: skip
"""Ranges of the numbers that every run has."""
BUDGETS = ("minutes", "epochs", "steps")
"""At most one of them is given; a flag overrides all those of a config."""


@dataclass(frozen=True)
class General:
    """Settings of every run, whatever its task and encoder."""

    task: str = "rotation"
    """Pretext task, see `selftaught list tasks`."""
    encoder: str = "convnet"
    """Encoder, see `selftaught list encoders`; `timm:NAME` for any model of timm."""
    encoder_from: Path | None = None
    """Initial weights of the encoder: those in a run folder, or kmeans or pca, which compute them from the images;
    default: random weights."""
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
    num_crops: int | None = None
    """Number of virtual crops of the photos, if the source is photos. Default: 100000."""
    storage: Storage = "auto"
    """decoded: decode the images once and keep them in the cache. encoded: decode them on the fly, to the same pixels.
    auto: encoded if the decoded images would take more than 32 GiB."""
    monitor: str | None = None
    """Labeled source whose k-NN accuracy is logged during training, such as cifar10; its test part is not used."""
    device: str = "auto"
    """Device: auto (CUDA if available), cpu, cuda, cuda:1 or mps."""
    precision: Precision = "auto"
    """Precision: 32, bf16, or auto, which is bf16 where it is faster."""
    threads: int | None = None
    """Number of CPU threads; default: that of torch. Stored in the config, because it changes the order of sums."""
    compile: Compile = "auto"
    """Whether to use torch.compile; auto: on GPUs, in runs over ten minutes, if it is faster and agrees
    with eager mode."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, limits in RANGES.items():
            if (value := getattr(self, name)) is not None:
                require_between(f"--{name.replace('_', '-')}", value, *limits)
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
    """A setting of an owner."""

    name: str
    annotation: Any
    default: Any
    help: str
    owner: str
    """Heading in the help: "Run", "Optimizer", "Crops of photos", "Task rotation", "Encoder convnet"."""
    section: str = ""
    """Section in YAML; empty for settings of the run."""

    @property
    def key(self) -> str:
        """The name that no other setting has: "steps", "task.angles"."""
        return f"{self.section}.{self.name}" if self.section else self.name


@dataclass(frozen=True)
class Settings:
    """All settings of a run, by owner."""

    general: General
    optimization: Optimization
    cropping: Cropping
    task: Mapping[str, Any]
    """Settings of the task but `size`, which may depend on the images."""
    encoder: Mapping[str, Any]
    """Settings of the encoder but `size` and `input_mode`, which the task may decide."""

    @classmethod
    def of(cls, **named: Any) -> "Settings":
        """Sort values by owner; what is not given has its default.

        Args:
            named: values by name (`angles`), by key (`task.angles`) or in sections (`task={"name": "rotation", ...}`).

        Raises:
            UserError: a name that the chosen task, encoder and optimizer do not have or that several of them have, or a
                value of the wrong type.
        """
        offers, values = resolve(named)
        by_key = {setting.key: setting for setting in offers}
        for key, value in values.items():
            values[key] = from_yaml(value)
            if not has_type(values[key], by_key[key].annotation):
                shown = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:80]} ..."
                raise UserError(
                    f"{shortest_flag(by_key[key], offers)} expects {describe(by_key[key].annotation)}, got {shown}."
                )

        def chosen(owner: str) -> dict[str, Any]:
            return {s.name: values.get(s.key, s.default) for s in offers if s.owner.startswith(owner)}

        return cls(
            General(**chosen("Run")),
            Optimization(**chosen("Optimizer")),
            Cropping(**chosen("Crops of photos")),
            chosen("Task "),
            chosen("Encoder "),
        )

    def values(self) -> dict[str, Any]:
        """The value of every setting by its key, as `of` takes them."""
        optimizer = vars(self.optimization)
        return {
            **vars(self.general),
            **{f"task.{name}": value for name, value in self.task.items()},
            **{f"encoder.{name}": value for name, value in self.encoder.items()},
            "optimizer": optimizer["optimizer"],
            **{f"optimizer.{name}": value for name, value in optimizer.items() if name != "optimizer"},
            **{f"photos.{name}": value for name, value in vars(self.cropping).items()},
        }


def resolve(named: Mapping[str, Any]) -> tuple[list[Setting], dict[str, Any]]:
    """The settings that exist for some given values, and these values by key.

    Args:
        named: values by name, by key or in sections, see `Settings.of`.

    Raises:
        UserError: a name that no setting or several settings have.
    """
    flat = flatten(named)
    offers = offered_for(flat)
    keys = {setting.key for setting in offers}
    values: dict[str, Any] = {}
    for name, value in flat.items():
        owners = [setting for setting in offers if setting.name == name]
        if name not in keys and len(owners) > 1:
            several = " and ".join(setting.key for setting in owners)
            raise UserError(f"{name} is ambiguous: choose {several}.")
        if name not in keys and not owners:
            raise unknown("setting of this task, encoder and optimizer", name, [*keys, *(s.name for s in offers)])
        setting = owners[0] if name not in keys else next(each for each in offers if each.key == name)
        values[setting.key] = absolute(str(value)) if value is not None and is_path(setting.annotation) else value
    return offers, values


def absolute(word: str) -> str:
    """A path that holds in whatever folder the run is resumed or repeated; names of sources stay as they are."""
    return os.path.abspath(word) if os.path.lexists(word) else word  # noqa: PTH100 (links stay links)


def is_unique(setting: Setting, offers: Sequence[Setting]) -> bool:
    """Whether the name of a setting stands for it alone."""
    return not setting.section or sum(other.name == setting.name for other in offers) == 1


def shortest_flag(setting: Setting, offers: Sequence[Setting]) -> str:
    """The shortest flag of a setting: "--angles", or "--task.width" where the encoder has a width, too."""
    return f"--{setting.name if is_unique(setting, offers) else setting.key}".replace("_", "-")


def flag_of(key: str, config: Mapping[str, Any]) -> str:
    """The shortest flag of a setting, by its key, in a run with a given task, encoder and optimizer."""
    offers = offered_for(config)
    return next((shortest_flag(setting, offers) for setting in offers if setting.key == key), f"--{key}")


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
    settings = [
        *fields_of(General, "Run", "", advised),
        *fields_of(task_class(task), f"Task {task}", "task"),
        *encoder_settings(encoder),
        *fields_of(Optimization, "Optimizer", "optimizer", optimizer_defaults(advised, optimizer)),
        *fields_of(Cropping, "Crops of photos", "photos", advised),
    ]
    # The optimizer's name is that of its section.
    return [s._replace(section="") if s.key == "optimizer.optimizer" else s for s in settings]


def fields_of(
    owner: type[Any], heading: str, section: str, better: Mapping[str, Any] = MappingProxyType({})
) -> list[Setting]:
    """The fields of a dataclass; `better` overrides its defaults."""
    texts = _descriptions(owner)
    hints = get_type_hints(owner)
    return [
        Setting(f.name, hints[f.name], better.get(f.name, f.default), texts.get(f.name, ""), heading, section)
        for f in fields(owner)
        if not (issubclass(owner, Task) and f.name == "size")  # a setting of the run
    ]


_parsing = threading.Lock()
"""`ast.parse` is not thread-safe before Python 3.11.8 (python/cpython#106905)."""


def _new_lock() -> None:
    """Replace the lock in a forked child: the thread that held it in the parent does not exist there."""
    global _parsing
    _parsing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def _descriptions(owner: type[Any]) -> Mapping[str, str]:
    """The docstrings of the fields of a dataclass, inherited ones included."""
    with _parsing:
        return _parse_fields(owner)  # type: ignore[arg-type]  # mypy takes type[Any] for unhashable


@cache
def _parse_fields(owner: type[Any]) -> Mapping[str, str]:
    return {p.arg_name: p.description or "" for c in reversed(owner.__mro__[:-1]) for p in parse_from_object(c).params}


def encoder_settings(name: str) -> list[Setting]:
    """The arguments of an encoder's constructor that neither its name, the run nor the task decides."""
    owner = encoder_class(name)
    texts = {p.arg_name: p.description or "" for p in parse(owner.__doc__ or "").params}
    hints = get_type_hints(owner.__init__)
    return [
        Setting(argument, hints[argument], parameter.default, texts.get(argument, ""), f"Encoder {name}", "encoder")
        for argument, parameter in inspect.signature(owner).parameters.items()
        if argument not in ("name", "size", "input_mode", "causal")
    ]
