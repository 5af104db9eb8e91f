"""Settings as flags: what `pretrain` offers depends on the task and the encoder that are given to it.

cyclopts reads a command from a function's signature, so one is written from the settings. Values of a config go through
the same reader as those of the command line: same names, same types, same mistakes.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter
from cyclopts.config import Dict

from selftaught.errors import UserError, unknown
from selftaught.settings import Setting, offered_for
from selftaught.training.folder import RunFolder, read_yaml

SOURCE = "Where images come from: a folder, photos, parquet, or a known name (selftaught list sources)."
FILES: tuple[tuple[str, Any, Any, str], ...] = (
    ("out", Path | None, None, "The run folder, new or empty; by default a new one under runs/."),
    ("resume", bool, False, "Go on with the run in --out, with the settings it has."),
    ("config", Path | None, None, "A config.yaml of another run; what is given beside it wins."),
    ("labels", Path | None, None, "CSV file with the columns path and label."),
    ("profile", bool, False, "Measure where the time of a step goes, and stop: nothing is written."),
)
"""What `pretrain` offers beside settings: name, type, default, help."""
BUDGETS = ("minutes", "epochs", "steps")
"""Only one can hold: one that is given puts that of a config out of force."""


def pretrain_command(
    given: Sequence[str], pretrain: Callable[..., object], said: str
) -> tuple[Callable[..., None], Dict | None]:
    """The command for what was given, and the reader of its config.

    Args:
        given: the words after `pretrain`.
        pretrain: takes the data and all that was set, by name.
        said: what the command is for.
    """
    path, out = _given("--config", given), _given("--out", given)
    config: dict[str, Any] = {}
    if path is not None:
        config = read_yaml(Path(path))
    elif "--resume" in given and out is not None:
        config = RunFolder(Path(out)).read_config()
    _must_end(config, path or out)
    chosen = {name: _given(f"--{name}", given) or config.get(name) for name in ("task", "encoder", "optimizer")}
    settings = offered_for({name: value for name, value in chosen.items() if value})

    def run(*source: str, **options: Any) -> None:
        options.pop("config", None)
        pretrain(source or (config.get("data", ()) if path is not None else ()), **options)

    parameters = _parameters(settings)
    run.__name__, run.__doc__ = "pretrain", said
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
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
        shown = Parameter(help=" ".join(setting.help.split()), group=group, consume_multiple=many)
        type_ = Annotated[setting.annotation, shown]
        parameters.append(kind(setting.name, kind.KEYWORD_ONLY, default=setting.default, annotation=type_))
    return parameters


def _reader(config: Mapping[str, Any], known: Sequence[str], given: Sequence[str], path: str) -> Dict:
    for name in config:
        if name != "data" and name not in known:
            raise unknown(f"setting (in {path})", str(name), known)
    budget = any(_given(f"--{name}", given) for name in BUDGETS)
    kept = {
        name: value
        for name, value in config.items()
        if name != "data" and value is not None and not (budget and name in BUDGETS)
    }
    return Dict(kept, use_commands_as_keys=False, source=path)


def _must_end(config: Mapping[str, Any], path: str | None) -> None:
    """Refuse a value that holds itself (YAML's anchors can say so) or is nested without end."""
    try:
        json.dumps(config, default=str, skipkeys=True)
    except (ValueError, RecursionError) as error:
        raise UserError(f"a config must hold plain values, found one that holds itself in {path}: check it.") from error


def _given(flag: str, arguments: Sequence[str]) -> str | None:
    """The value of a flag that must be known before the others can be read."""
    for place, argument in enumerate(arguments):
        if argument == flag and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return None
