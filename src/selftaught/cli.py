"""The command line: one short function per command, and user mistakes as one sentence with exit code 2."""

import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError

import selftaught
from selftaught.errors import UserError, readable
from selftaught.mistakes import sentence

Json = Annotated[bool, Parameter(name="--json", help="Print one JSON object and nothing else.", negative="")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0, or 2 after a mistake of the user, or 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Before torch is there, whose threads would else spin for 3 ms wherever one waits for another, and take the cores
    # from whatever it waits for: beside other work on the same cores a step took up to three times as long.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Only here: the library must not change which warnings its host process shows.
    warnings.filterwarnings("ignore", module="PIL")
    # The viewer's fonts draw the text of a chart, so a letter that matplotlib's font lacks is no loss.
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
    try:
        if odd := [word for word in given if "\0" in word]:  # no shell passes one, but a script may
            raise UserError(f"an argument must be without null characters, found {odd[0][:80]!r}: leave them out.")
        application(given)(given, exit_on_error=False, print_error=False, result_action="return_value")
    except (UserError, CycloptsError) as error:
        said = sentence(error) if isinstance(error, CycloptsError) else " ".join(str(error).split())
        print(f"selftaught: {readable(said)}", file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # `selftaught list tasks | head -1`
            sys.stderr.close()
            return 0
        where = f" at {readable(str(error.filename))}" if error.filename else ""
        print(f"selftaught: files must be usable, found {_line(error)}{where}: check the path.", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError" and "can't allocate memory" not in str(error):
            raise
        full = (
            "a device must have room for what it works on, found its memory full: give a smaller --batch-size or --size"
        )
        print(f"selftaught: {full}, or another --device.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("selftaught: stopped", file=sys.stderr)
        return 130
    return 0


def _line(error: OSError) -> str:
    return " ".join((error.strerror or str(error)).lower().split())


def application(given: Sequence[str]) -> App:
    """All commands. What `pretrain` offers depends on the task and the encoder that are given."""
    app = App(
        name="selftaught",
        help="Train image encoders without labels, and see what every layer learned.",
        version=selftaught.__version__,
        version_flags=["--version"],
        default_parameter=Parameter(negative_iterable=()),
    )
    if given[:1] == ["pretrain"]:
        from selftaught.flags import pretrain_command

        command, config = pretrain_command(given[1:], _pretrain, pretrain.__doc__ or "")
        app.command(command)
        app.config = () if config is None else (config,)
    else:
        app.command(pretrain)  # its settings take two seconds to import, and nobody asked for them
    for command in (probe, invariance, audit, compare, report, demo):
        app.command(command)
    app.command(list_, name="list")
    return app


def pretrain(*source: str) -> None:
    """Train an encoder on images without labels, and write a run."""


def probe(
    run: Annotated[Path, Parameter(help="A run folder.")],
    /,
    *,
    data: Annotated[
        str, Parameter(help="Labeled images: a folder with one subfolder per class, parquet, a known name.")
    ],
    seeds: Annotated[int, Parameter(help="Number of probe seeds; reported as mean ± std.")] = 1,
    protocol: Annotated[
        Literal["fast", "paper", "knn"],
        Parameter(help="fast: closed form. paper: SGD with augmentation, as the papers do. knn: nearest neighbors."),
    ] = "fast",
    size: Annotated[int | None, Parameter(help="Side of the views in pixels; by default that of pretraining.")] = None,
    limit: Annotated[int | None, Parameter(help="Number of training images; all test images are used.")] = None,
    labels: Annotated[Path | None, Parameter(help="CSV file with the columns path and label.")] = None,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    json_: Json = False,
) -> None:
    """Probe every layer of a run, compared with random weights, raw pixels and chance."""
    from selftaught.downstream.table import render
    from selftaught.run import Run

    table = Run(run).probe(data, seeds=seeds, protocol=protocol, size=size, limit=limit, labels=labels, device=device)
    _print(table.to_json() if json_ else render(table))


def invariance(
    run: Annotated[Path, Parameter(help="A run folder.")],
    /,
    *,
    data: Annotated[str, Parameter(help="Images, labelled or not; the test part where there is one.")],
    images: Annotated[int, Parameter(help="How many are asked.")] = 1000,
    seeds: Annotated[int, Parameter(help="Each draws other changes and other random weights.")] = 1,
    size: Annotated[int | None, Parameter(help="Side of the views in pixels; by default that of pretraining.")] = None,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    json_: Json = False,
) -> None:
    """See past which changes of an image every layer of a run sees: turns, puzzles, crops, colours, moves."""
    from selftaught.downstream.invariance import render
    from selftaught.run import Run

    table = Run(run).invariance(data, images=images, seeds=seeds, size=size, device=device)
    _print(table.to_json() if json_ else render(table))


def audit(
    run: Annotated[Path, Parameter(help="A run folder.")],
    /,
    *,
    data: Annotated[str | None, Parameter(help="Images; by default the run's own that training did not see.")] = None,
    images: Annotated[int, Parameter(help="How many are asked.")] = 1000,
    seeds: Annotated[int, Parameter(help="How often each is asked, every time in other views.")] = 1,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    json_: Json = False,
) -> None:
    """See whether a run solves its task by shortcuts: what is left of its accuracy when cues are removed or planted."""
    from selftaught.downstream.answers import render
    from selftaught.run import Run

    table = Run(run).audit(data, images=images, seeds=seeds, device=device)
    _print(table.to_json() if json_ else render(table))


def compare(
    *runs: Annotated[Path, Parameter(help="Run folders.")],
    out: Annotated[Path | None, Parameter(help="Write a page that compares them, too.")] = None,
) -> None:
    """Show runs side by side."""
    from selftaught.report import compare, runs_among, write_report

    found = runs_among(runs)
    if left := [readable(str(path)) for path in runs if path not in found]:
        print(f"selftaught: left out what is no run: {', '.join(left)}", file=sys.stderr)
    _print(compare(found))
    if out is not None:
        print(readable(str(write_report(found, out))))


def report(
    run: Annotated[Path, Parameter(help="A run folder.")],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="The page; by default report.html in the run.")] = None,
) -> None:
    """Write what a run learned as one self-contained page."""
    from selftaught.run import Run

    print(readable(str(Run(run).report(out))))


def list_(
    what: Annotated[Literal["tasks", "encoders", "sources"], Parameter(help="What to list.")],
    /,
    *,
    json_: Json = False,
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
    out: Annotated[Path | None, Parameter(help="The run folder, new or empty; by default a new runs/demo.")] = None,
    data: Annotated[
        str | None, Parameter(help="Probe on these labelled images, too (CIFAR-10 where it is at hand).")
    ] = None,
) -> None:
    """Learn from one bundled photo, probe every layer, write the report: no network, no files, a few minutes."""
    from selftaught.demo import demonstrate

    demonstrate(minutes, out, data, tell=_print)


def _pretrain(data: Sequence[str], profile: bool = False, **options: Any) -> None:
    if not profile:
        from selftaught.pretraining import pretrain

        pretrain(data, **options)
        return
    from selftaught.profiling import profile as measure
    from selftaught.profiling import render

    for name in ("out", "resume"):
        if options.pop(name, None):
            raise UserError(f"--profile writes nothing, found --{name}: leave one of the two out.")
    _print(render(measure(data, **options)))


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

    console = Console(markup=False)  # names of files may look like markup
    if not console.is_terminal:
        console.width = 160
    console.print(what)


if __name__ == "__main__":
    sys.exit(main())
