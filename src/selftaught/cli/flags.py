"""Settings as flags: which flags `pretrain` has depends on the task and the encoder that are given to it.

cyclopts reads a command from a function's signature, so the signature is built from the settings. A setting has a short
flag (`--angles`) where its name is unique, and always one with its section (`--task.angles`).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from selftaught.cli.errors import has_integers, integers
from selftaught.cli.options import as_words
from selftaught.config.settings import BUDGETS, Setting, is_unique, offered_for, resolve, shortest_flag
from selftaught.errors import UserError, readable
from selftaught.runs.folder import RunFolder
from selftaught.runs.sections import flatten
from selftaught.runs.validated import read_yaml

SOURCE = "Images: a folder, photos, parquet, or a data set by name (selftaught list sources)."
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
NAMED = ("task", "encoder", "optimizer")
"""Settings that decide which others there are."""


def pretrain_command(words: Sequence[str], pretrain: Callable[..., int], text: str) -> Callable[..., int]:
    """The command for the given arguments.

    Args:
        words: the words after `pretrain`.
        pretrain: takes the data and the settings by key, and returns the exit code.
        text: the command's help.
    """
    path, out = value_of("--config", words), value_of("--out", words)
    config: dict[str, Any] = {}
    if path is not None:
        config = flatten(read_yaml(Path(path)))
    elif "--resume" in words and out is not None:
        config = RunFolder(Path(out)).read_config()
    chosen = {name: value_of(f"--{name}", words) or config.get(name) for name in ("task", "encoder", "optimizer")}
    settings = offered_for({name: value for name, value in chosen.items() if value})
    keys = {setting.key.replace(".", "__"): setting.key for setting in settings}

    def run(*source: str, **options: Any) -> int:
        options.pop("config", None)
        named = {keys.get(name, name): value for name, value in options.items()}
        if path is None:
            return pretrain(source, download=bool(source), **named)
        labels, values = _from_config(config, named, path)
        return pretrain(source or config.get("data", ()), download=bool(source), **{**labels, **values, **named})

    parameters = _parameters(settings)
    run.__name__, run.__doc__ = "pretrain", text
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": int}
    return run


def _parameters(settings: Sequence[Setting]) -> list[inspect.Parameter]:
    kind = inspect.Parameter
    parameters = [kind("source", kind.VAR_POSITIONAL, annotation=Annotated[str, Parameter(help=SOURCE)])]
    for name, type_, default, text in FILES:
        shown = Parameter(help=text, group=Group("Files", sort_key=-1), negative="", show_default=False)
        parameters.append(kind(name, kind.KEYWORD_ONLY, default=default, annotation=Annotated[type_, shown]))
    return [*parameters, *setting_parameters(settings)]


def setting_parameters(settings: Sequence[Setting]) -> list[inspect.Parameter]:
    """A keyword parameter for every setting, named by its key with two underscores for the dot."""
    kind, parameters = inspect.Parameter, []
    owners = list(dict.fromkeys(setting.owner for setting in settings))
    for setting in settings:
        many = getattr(setting.annotation, "__args__", ())[-1:] == (Ellipsis,)
        names = [shortest_flag(setting, settings)]
        if setting.section and is_unique(setting, settings):
            names.append(f"--{setting.key}".replace("_", "-"))
        shown = Parameter(
            name=names,
            help=_sentence(setting.help),
            group=Group(setting.owner, sort_key=owners.index(setting.owner)),
            consume_multiple=many,
            converter=integers if has_integers(setting.annotation) else None,
            show_default=_shown_default(setting.default),
        )
        name, type_ = setting.key.replace(".", "__"), Annotated[setting.annotation, shown]
        parameters.append(kind(name, kind.KEYWORD_ONLY, default=setting.default, annotation=type_))
    return parameters


def with_settings(
    command: Callable[..., None],
    settings: Sequence[Setting],
    apply: Callable[[Sequence[Any], dict[str, Any], dict[str, Any]], None],
) -> Callable[..., None]:
    """A command with a further flag for every setting.

    Args:
        command: its signature has the other flags, and its docstring is the help.
        settings: the settings to add.
        apply: called with the positional arguments, the settings by name, and the other arguments.
    """
    keys = {setting.key.replace(".", "__"): setting.name for setting in settings}

    def run(*words: Any, **options: Any) -> None:
        apply(words, {keys[key]: options.pop(key) for key in list(options) if key in keys}, options)

    parameters = [*inspect.signature(command).parameters.values(), *setting_parameters(settings)]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _from_config(
    config: Mapping[str, Any], named: Mapping[str, Any], path: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The labels file and the settings of a config, but for what flags override.

    Args:
        config: the content of the file, see `flatten`.
        named: values of flags, by key.
        path: the file.

    Raises:
        UserError: a setting that does not exist, a labels file that is no path, or weights to download.
    """
    budget = any(name in named for name in BUDGETS)
    usable = {
        name: value
        for name, value in config.items()
        if name not in ("data", "labels") and value is not None and not (budget and name in BUDGETS)
    }
    try:
        _, values = resolve({**usable, **{name: named[name] for name in NAMED if name in named}})
    except UserError as error:
        raise UserError(f"{readable(path)}: {error}") from error
    if values.get("encoder.pretrained") and "encoder.pretrained" not in named:
        raise UserError(
            f"{readable(path)} begins with published weights, which would have to be downloaded: give --pretrained to "
            "allow it, or --no-pretrained."
        )
    labels = config.get("labels")
    if not isinstance(labels, str | None):
        raise UserError(f"{readable(path)}: labels expects the path of a CSV file, got {str(labels)[:80]!r}.")
    return {} if labels is None else {"labels": labels}, values


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The value of a flag that is needed before the others can be parsed."""
    for place, argument in enumerate(arguments):
        if argument == flag and place + 1 < len(arguments) and not arguments[place + 1].startswith("--"):
            return arguments[place + 1]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return None


def _shown_default(default: object) -> bool | Callable[[Any], str] | None:
    """How the help shows a default: not that of a switch or an empty list, and tuples as on the command line."""
    if default is False or default == ():
        return False
    return as_words if isinstance(default, tuple) else None


def _sentence(text: str) -> str:
    """A help text on one line with a capital letter, which descriptions of arguments in docstrings lack."""
    words = " ".join(text.split())
    return words[:1].upper() + words[1:]
