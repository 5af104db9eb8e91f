"""Settings as flags: which flags `pretrain` has depends on the task and the encoder that are given to it.

cyclopts reads a command from a function's signature, so the signature is built from the settings. Values of a config go
through the same parser as those of the command line: same names, same types, same errors.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter
from cyclopts.config import Dict

from selftaught.errors import UserError, readable, unknown
from selftaught.mistakes import has_integers, integers
from selftaught.runs.folder import RunFolder, read_yaml
from selftaught.settings import BUDGETS, Setting, offered_for

SOURCE = "Images: a folder, photos, parquet, or a known name (selftaught list sources)."
FILES: tuple[tuple[str, Any, Any, str], ...] = (
    ("out", Path | None, None, "Run folder, new or empty; default: a new one under runs/."),
    (
        "resume", bool, False,
        "Continue the run in --out with its settings; a finished one is extended by --minutes, --epochs or --steps.",
    ),
    ("config", Path | None, None, "A config.yaml of another run; other flags override it."),
    ("labels", Path | None, None, "CSV file with the columns path and label."),
    ("profile", bool, False, "Measure the time of each part of a training step, and stop: nothing is written."),
)  # fmt: skip
"""Flags of `pretrain` that are no settings: name, type, default, help."""


def pretrain_command(
    given: Sequence[str], pretrain: Callable[..., int], said: str
) -> tuple[Callable[..., int], Dict | None]:
    """The command for the given arguments, and the reader of its config.

    Args:
        given: the words after `pretrain`.
        pretrain: takes the data and the settings by name, and returns the exit code.
        said: the command's help.
    """
    path, out = _given("--config", given), _given("--out", given)
    config: dict[str, Any] = {}
    if path is not None:
        config = read_yaml(Path(path))
    elif "--resume" in given and out is not None:
        config = RunFolder(Path(out)).read_config()
    chosen = {name: _given(f"--{name}", given) or config.get(name) for name in ("task", "encoder", "optimizer")}
    settings = offered_for({name: value for name, value in chosen.items() if value})

    def run(*source: str, **options: Any) -> int:
        options.pop("config", None)
        named = source or (config.get("data", ()) if path is not None else ())
        return pretrain(named, download=bool(source), **options)

    parameters = _parameters(settings)
    run.__name__, run.__doc__ = "pretrain", said
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": int}
    return run, None if path is None else _reader(config, [p.name for p in parameters], given, path)


def _parameters(settings: Sequence[Setting]) -> list[inspect.Parameter]:
    kind = inspect.Parameter
    parameters = [kind("source", kind.VAR_POSITIONAL, annotation=Annotated[str, Parameter(help=SOURCE)])]
    for name, type_, default, said in FILES:
        shown = Parameter(help=said, group=Group("Files", sort_key=-1), negative="")
        parameters.append(kind(name, kind.KEYWORD_ONLY, default=default, annotation=Annotated[type_, shown]))
    owners = list(dict.fromkeys(setting.owner for setting in settings))
    for setting in settings:
        many = getattr(setting.annotation, "__args__", ())[-1:] == (Ellipsis,)
        group = Group(setting.owner, sort_key=owners.index(setting.owner))
        shown = Parameter(
            help=" ".join(setting.help.split()),
            group=group,
            consume_multiple=many,
            converter=integers if has_integers(setting.annotation) else None,
        )
        type_ = Annotated[setting.annotation, shown]
        parameters.append(kind(setting.name, kind.KEYWORD_ONLY, default=setting.default, annotation=type_))
    return parameters


def _reader(config: Mapping[str, Any], known: Sequence[str], given: Sequence[str], path: str) -> Dict:
    for name in config:
        if name != "data" and name not in known:
            raise unknown(f"setting (in {path})", str(name), known)
    if config.get("pretrained") and "--pretrained" not in given and "--no-pretrained" not in given:
        raise UserError(
            f"{readable(path)} begins with published weights, which would have to be downloaded: give --pretrained to "
            "allow it, or --no-pretrained."
        )
    budget = any(_given(f"--{name}", given) for name in BUDGETS)
    kept = {
        name: value
        for name, value in config.items()
        if name != "data" and value not in (None, []) and not (budget and name in BUDGETS)
    }
    return Dict(kept, use_commands_as_keys=False, source=path)


def _given(flag: str, arguments: Sequence[str]) -> str | None:
    """The value of a flag that is needed before the others can be parsed."""
    for place, argument in enumerate(arguments):
        if argument == flag and place + 1 < len(arguments) and not arguments[place + 1].startswith("--"):
            return arguments[place + 1]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return None
