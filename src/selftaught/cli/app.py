"""The command line: one short function per command; user errors are one sentence with exit code 2."""

import io
import json
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError

import selftaught
from selftaught.cli.errors import integers, sentence
from selftaught.cli.process import raise_on_termination, tune_process
from selftaught.display.console import LastingStream
from selftaught.errors import UserError, is_out_of_memory, readable

EXIT_CODES = """Exit codes: 0 success; 1 internal error, with a traceback; 2 user error; 129, 130, 143 after SIGHUP,
SIGINT (Ctrl-C), SIGTERM (pretraining saves a checkpoint, and --resume continues it); 141 the output pipe was closed."""

Json = Annotated[bool, Parameter(name="--json", help="Print one JSON object and nothing else.", negative="")]
Count = Annotated[int, Parameter(converter=integers)]
Size = Annotated[
    int | None, Parameter(converter=integers, help="Side of the views in pixels; default: that of pretraining.")
]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the words after `selftaught`; None for those of this process, which is then tuned for training and
            cleans up after SIGTERM and SIGHUP.

    Returns:
        The exit code, see `EXIT_CODES`.
    """
    if arguments is None:
        tune_process()
        raise_on_termination()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: without Unicode "±" would end in a traceback
    # Only here: the library must not change which warnings its host process shows.
    warnings.filterwarnings("ignore", module="PIL")
    # The viewer's fonts draw the text of a chart, so a letter that matplotlib's font lacks is no loss.
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(given)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a closed pipe can be handled, rather than when the interpreter exits
        return code
    except (UserError, CycloptsError) as error:
        return _fail(sentence(error) if isinstance(error, CycloptsError) else " ".join(str(error).split()))
    except BrokenPipeError:  # `selftaught list tasks | head -1`
        _discard_output()
        return 128 + 13
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{' '.join((error.strerror or str(error)).lower().split())}.")
    except KeyboardInterrupt as error:
        _fail("interrupted")
        return 128 + getattr(error, "signal", signal.SIGINT)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return _fail("out of memory: reduce --batch-size or --size, or choose another --device.")


def _run(given: list[str]) -> int:
    if any("\0" in word for word in given):  # a shell passes none, but a script may
        raise UserError("arguments cannot contain null characters.")
    code = application(given)(given, exit_on_error=False, print_error=False, result_action="return_value")
    return code if isinstance(code, int) else 0


def _fail(text: str) -> int:
    print(f"selftaught: {readable(text)}", file=LastingStream(sys.stderr))
    return 2


def _discard_output() -> None:
    """Send what is still buffered nowhere, so that the interpreter does not fail to write it when it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # closed, or not a file
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def application(given: Sequence[str]) -> App:
    """All commands. What `pretrain` offers depends on the task and the encoder that are given."""
    app = App(
        name="selftaught",
        help="Pretrain image encoders on self-supervised pretext tasks and probe every layer.\n\n" + EXIT_CODES,
        version=selftaught.__version__,
        version_flags=["--version"],
        default_parameter=Parameter(negative_iterable=()),
        suppress_keyboard_interrupt=False,  # `main` turns it into the exit code of its signal
    )
    if given[:1] == ["pretrain"]:
        from selftaught.cli.flags import pretrain_command

        app.command(pretrain_command(given[1:], _pretrain, pretrain.__doc__ or ""))
    else:
        app.command(pretrain)  # without its settings, which take two seconds to import
    for command in (probe, invariance, audit, compare, report, demo):
        app.command(command)
    app.command(list_, name="list")
    return app


def pretrain(*source: str) -> None:
    """Pretrain an encoder on unlabelled images and write a run folder."""


def probe(
    run: Annotated[Path, Parameter(help="A run folder.")],
    /,
    *,
    data: Annotated[
        str, Parameter(help="Labeled images: a folder with one subfolder per class, parquet, a known name.")
    ],
    seeds: Annotated[Count, Parameter(help="Number of probe seeds; reported as mean ± std.")] = 1,
    protocol: Annotated[
        Literal["fast", "paper", "knn"],
        Parameter(help="fast: closed form. paper: SGD with augmentation, as in the papers. knn: nearest neighbors."),
    ] = "fast",
    size: Size = None,
    limit: Annotated[
        int | None, Parameter(converter=integers, help="Number of training images; all test images are used.")
    ] = None,
    labels: Annotated[Path | None, Parameter(help="CSV file with the columns path and label.")] = None,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Probe every layer of a run, compared with random weights, raw pixels and chance."""
    from selftaught.api.run import Run
    from selftaught.evaluation.table import render

    table = Run(run).probe(data, seeds=seeds, protocol=protocol, size=size, limit=limit, labels=labels, device=device)
    _print(table.to_json() if json_ else render(table))


def invariance(
    run: Annotated[Path, Parameter(help="A run folder.")],
    /,
    *,
    data: Annotated[str, Parameter(help="Images, labelled or not; their test part where there is one.")],
    images: Annotated[Count, Parameter(help="Number of images.")] = 1000,
    seeds: Annotated[Count, Parameter(help="Number of seeds of the transformations and random weights.")] = 1,
    size: Size = None,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Measure which transformations every layer of a run is invariant to: rotations, crops, colors, shifts and more."""
    from selftaught.analysis.invariance import render
    from selftaught.api.run import Run

    table = Run(run).invariance(data, images=images, seeds=seeds, size=size, device=device)
    _print(table.to_json() if json_ else render(table))


def audit(
    run: Annotated[Path, Parameter(help="A run folder.")],
    /,
    *,
    data: Annotated[str | None, Parameter(help="Images; default: held-out images of the run's own source.")] = None,
    images: Annotated[Count, Parameter(help="Number of images.")] = 1000,
    seeds: Annotated[Count, Parameter(help="Number of different views of each image.")] = 1,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Check a run for shortcuts: its pretext accuracy when cues are removed from the images or planted in them."""
    from selftaught.analysis.audit_table import render
    from selftaught.api.run import Run

    table = Run(run).audit(data, images=images, seeds=seeds, device=device)
    _print(table.to_json() if json_ else render(table))


def compare(
    *runs: Annotated[Path, Parameter(help="Run folders.")],
    out: Annotated[Path | None, Parameter(help="HTML page to write as well.")] = None,
) -> None:
    """Compare runs in one table."""
    from selftaught.report import compare, runs_among, write_report

    found = runs_among(runs)
    if left := [readable(str(path)) for path in runs if path not in found]:
        print(f"selftaught: skipped, not a run: {', '.join(left)}", file=LastingStream(sys.stderr))
    _print(compare(found))
    if out is not None:
        print(readable(str(write_report(found, out))))


def report(
    run: Annotated[Path, Parameter(help="A run folder.")],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="HTML page to write; default: report.html in the run.")] = None,
) -> None:
    """Write the report of a run as one self-contained HTML page."""
    from selftaught.api.run import Run

    print(readable(str(Run(run).report(out))))


def list_(
    what: Annotated[Literal["tasks", "encoders", "sources"], Parameter(help="What to list.")],
    /,
    *,
    json_: Json = False,
) -> None:
    """List tasks, encoders or sources."""
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
    minutes: Annotated[float, Parameter(help="Minutes of pretraining.")] = 3.0,
    out: Annotated[Path | None, Parameter(help="Run folder, new or empty; default: a new runs/demo.")] = None,
    data: Annotated[
        str | None, Parameter(help="Labelled images to probe on as well; default: CIFAR-10 in $SELFTAUGHT_DATA.")
    ] = None,
) -> int:
    """Pretrain on one bundled photo, probe every layer, write the report: no network, no files, a few minutes."""
    from selftaught.api.demo import demonstrate
    from selftaught.training.interruption import Stop

    stop = Stop()
    demonstrate(minutes, out, data, tell=_print, stop=stop)
    return stop.exit_code


def _pretrain(data: Sequence[str], profile: bool = False, **options: Any) -> int:
    if not profile:
        from selftaught.api.pretrain import pretrain
        from selftaught.training.interruption import Stop

        stop = Stop()
        run = pretrain(data, stop=stop, **options)
        return 0 if run.finished else stop.exit_code
    from selftaught.api.profile import profile as measure
    from selftaught.api.profile import render

    for name in ("out", "resume"):
        if options.pop(name, None):
            raise UserError(f"--profile writes no run: remove --{name}.")
    _print(render(measure(data, **options)))
    return 0


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
    """Print a JSON object, or a table in its full width."""
    if isinstance(what, dict):
        print(json.dumps(what))
        return
    from rich.console import Console

    class Output(Console):
        """Leaves a closed pipe to `main`; rich would exit with 1."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    console = Output(markup=False)  # names of files may look like markup
    if not console.is_terminal:
        console.width = 160
    console.print(what)
