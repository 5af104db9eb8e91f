"""The command line: one short function per command, and user mistakes as one sentence with exit code 2."""

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Group, Parameter
from cyclopts.exceptions import CycloptsError

import selftaught
from selftaught.errors import UserError

Json = Annotated[bool, Parameter(name="--json", help="Print one JSON object and nothing else.", negative="")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0, or 2 after a mistake of the user, or 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        application(given)(given, exit_on_error=False, print_error=False, result_action="return_value")
    except (UserError, CycloptsError) as error:
        said = " ".join(str(error).split())
        print(f"selftaught: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("selftaught: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `selftaught list tasks | head -1`
        sys.stderr.close()
        return 0
    return 0


def application(given: Sequence[str]) -> App:
    """All commands. What `pretrain` offers depends on the task and the encoder that are given."""
    app = App(
        name="selftaught",
        help="Train image encoders without labels, and see what every layer learned.",
        version=selftaught.__version__,
        version_flags=["--version"],
        default_parameter=Parameter(negative_iterable=()),
    )
    app.command(_pretrain_for(given[1:]) if given[:1] == ["pretrain"] else pretrain, name="pretrain")
    for command in (probe, compare, report, demo):
        app.command(command)
    app.command(list_, name="list")
    return app


def pretrain(*source: str) -> None:
    """Train an encoder on images without labels, and write a run."""


def _pretrain_for(given: Sequence[str]) -> Callable[..., None]:
    """`pretrain` with the settings of the task and encoder that are given: on the command line or in a config."""
    from selftaught.settings import offered
    from selftaught.training.folder import RunFolder, read_yaml

    config: dict[str, Any] = {}
    if (path := _given("--config", given)) is not None:
        config = read_yaml(Path(path))
    elif "--resume" in given and (out := _given("--out", given)) is not None:
        config = RunFolder(Path(out)).read_config()
    named = {name: _given(f"--{name}", given) or config.get(name) for name in ("task", "encoder")}
    settings = offered(named["task"] or "rotation", named["encoder"] or "convnet")

    def run(*source: str, **options: Any) -> None:
        from selftaught.run import pretrain

        stored = (options.pop("config", None) and {name: _tuples(value) for name, value in config.items()}) or {}
        data = source or stored.pop("data", ())
        pretrain(data, **{**stored, **options})

    headings = {
        owner: Group(owner, sort_key=place) for place, owner in enumerate(dict.fromkeys(s.owner for s in settings))
    }
    kind = inspect.Parameter
    parameters = [kind("source", kind.VAR_POSITIONAL, annotation=Annotated[str, Parameter(help=SOURCE)])]
    for name, type_, default, said in FILES:
        shown = Parameter(help=said, group=Group("Files", sort_key=-1), negative="")
        parameters.append(kind(name, kind.KEYWORD_ONLY, default=default, annotation=Annotated[type_, shown]))
    for setting in settings:
        many = getattr(setting.annotation, "__args__", ())[-1:] == (Ellipsis,)
        shown = Parameter(help=" ".join(setting.help.split()), group=headings[setting.owner], consume_multiple=many)
        type_ = Annotated[setting.annotation, shown]
        parameters.append(kind(setting.name, kind.KEYWORD_ONLY, default=setting.default, annotation=type_))
    run.__name__, run.__doc__ = "pretrain", pretrain.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


SOURCE = "Where images come from: a folder, photos, parquet, or a known name (selftaught list sources)."

FILES: tuple[tuple[str, Any, Any, str], ...] = (
    ("out", Path | None, None, "The run folder, new or empty; by default a new one under runs/."),
    ("resume", bool, False, "Go on with the run in --out, with the settings it has."),
    ("config", Path | None, None, "A config.yaml of another run; what is given beside it wins."),
    ("labels", Path | None, None, "CSV file with the columns path and label."),
)
"""What `pretrain` offers beside settings: name, type, default, help."""


def _tuples(value: Any) -> Any:
    """YAML has lists where settings are tuples."""
    return tuple(value) if isinstance(value, list) else value


def _given(flag: str, arguments: Sequence[str]) -> str | None:
    """The value of a flag that must be known before the others can be read."""
    for place, argument in enumerate(arguments):
        if argument == flag and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return None


def probe(
    run: Annotated[Path, Parameter(help="A run folder.")],
    /,
    *,
    data: Annotated[
        str, Parameter(help="Labelled images: a folder with a subfolder per class, parquet, a known name.")
    ],
    seeds: Annotated[int, Parameter(help="Probes; the table says what their spread is over.")] = 1,
    protocol: Annotated[
        Literal["fast", "paper"], Parameter(help="fast: closed form. paper: SGD with augmentation, as the papers do.")
    ] = "fast",
    size: Annotated[int | None, Parameter(help="Side of the views in pixels; by default that of pretraining.")] = None,
    limit: Annotated[int | None, Parameter(help="Take only this many images of each part.")] = None,
    labels: Annotated[Path | None, Parameter(help="CSV file with the columns path and label.")] = None,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    json_: Annotated[
        bool, Parameter(name="--json", help="Print one JSON object and nothing else.", negative="")
    ] = False,
) -> None:
    """Ask every layer of a run what it learned, beside random weights, raw pixels and chance."""
    from selftaught.downstream.table import render
    from selftaught.run import Run

    table = Run(run).probe(data, seeds=seeds, protocol=protocol, size=size, limit=limit, labels=labels, device=device)
    _print(table.to_json() if json_ else render(table))


def compare(
    *runs: Annotated[Path, Parameter(help="Run folders.")],
    out: Annotated[Path | None, Parameter(help="Write a page that compares them, too.")] = None,
) -> None:
    """Show runs side by side."""
    from selftaught.report import compare, write_report

    _print(compare(runs))
    if out is not None:
        print(write_report(runs, out))


def report(
    run: Annotated[Path, Parameter(help="A run folder.")],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="The page; by default report.html in the run.")] = None,
) -> None:
    """Write what a run learned as one self-contained page."""
    from selftaught.run import Run

    print(Run(run).report(out))


def list_(
    what: Annotated[Literal["tasks", "encoders", "sources"], Parameter(help="What to list.")],
    /,
    *,
    json_: Annotated[
        bool, Parameter(name="--json", help="Print one JSON object and nothing else.", negative="")
    ] = False,
) -> None:
    """List what there is to choose from."""
    rows = _rows(what)
    if json_:
        print(json.dumps({what: rows}))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    _print(table)


def demo(
    *,
    minutes: Annotated[float, Parameter(help="How long to pretrain.")] = 3.0,
    out: Annotated[Path, Parameter(help="The run folder, new or empty.")] = Path("runs/demo"),
    data: Annotated[
        str | None, Parameter(help="Probe on these labelled images, too (CIFAR-10 where it is at hand).")
    ] = None,
) -> None:
    """Learn from one bundled photo, probe every layer, write the report: no network, no files, a few minutes."""
    from selftaught.demo import demonstrate

    demonstrate(minutes, out, data, tell=_print)


def _rows(what: str) -> list[dict[str, Any]]:
    if what == "sources":
        from selftaught.data import list_sources

        return [row._asdict() for row in list_sources()]
    from selftaught.encoders import ENCODERS, encoder_class
    from selftaught.pretext import TASKS, task_class

    classes: dict[str, type] = {}
    if what == "tasks":
        classes = {name: task_class(name) for name in TASKS}
    else:
        classes = {name: encoder_class(name) for name in ENCODERS}
    return [{"name": name, "what": (found.__doc__ or "").strip().splitlines()[0]} for name, found in classes.items()]


def _print(what: Any) -> None:
    """On standard output: a JSON object as it is, a table in its full width."""
    if isinstance(what, dict):
        print(json.dumps(what))
        return
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 160
    console.print(what)


if __name__ == "__main__":
    sys.exit(main())
