"""The command line: all commands, and their errors as one sentence with exit code 2."""

import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress

from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError

import selftaught
from selftaught.cli.attention import attention
from selftaught.cli.audit import audit
from selftaught.cli.baseline import baseline_command
from selftaught.cli.compare import compare
from selftaught.cli.demo import demo
from selftaught.cli.errors import require_counts, sentence
from selftaught.cli.evaluate import evaluate
from selftaught.cli.filters import filters
from selftaught.cli.invariance import invariance
from selftaught.cli.list_ import list_
from selftaught.cli.neighbors import neighbors
from selftaught.cli.pretrain import pretrain, run_pretrain
from selftaught.cli.probe import probe_command
from selftaught.cli.process import raise_on_termination, tune_process
from selftaught.cli.quality import quality
from selftaught.cli.render import render
from selftaught.cli.report import report
from selftaught.cli.shard import shard
from selftaught.cli.study import study
from selftaught.cli.stylize import stylize
from selftaught.cli.transfer import detection, segmentation
from selftaught.display.console import LastingStream
from selftaught.errors import ReportedError, UserError, is_out_of_memory, readable
from selftaught.training.launch import launch

EXIT_CODES = """Exit codes: 0 success; 1 internal error, with a traceback; 2 user error; 129, 130, 143 after SIGHUP,
SIGINT (Ctrl-C), SIGTERM (pretraining saves a checkpoint, and --resume continues it); 141 the output pipe was closed."""
MAX_MESSAGE = 1400
"""Characters of a message; a name of a file or an argument may have thousands."""
USAGE = {
    "pretrain": "[OPTIONS] SOURCE...",
    "compare": "[OPTIONS] RUN...",
    "baseline": "[OPTIONS] NAME SOURCE...",
    "filters": "[OPTIONS] RUN [OTHER...]",
    "detection": "[OPTIONS] RUN...",
    "segmentation": "[OPTIONS] RUN...",
}
"""Usage of the commands with a list of positional arguments, which cyclopts prints as "ARGS"."""


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
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(words)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a closed pipe can be handled, rather than when the interpreter exits
        return code
    except (UserError, CycloptsError) as error:
        return _fail(sentence(error) if isinstance(error, CycloptsError) else " ".join(str(error).split()), error)
    except ReportedError:
        return 2
    except BrokenPipeError:  # `selftaught list tasks | head -1`
        _discard_output()
        return 128 + 13
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{' '.join((error.strerror or str(error)).lower().split())}.", error)
    except KeyboardInterrupt as error:
        _fail("interrupted", error)
        return 128 + getattr(error, "signal", signal.SIGINT)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return _fail("out of memory: reduce --batch-size or --size, or choose another --device.", error)


def _run(words: list[str]) -> int:
    if any("\0" in word for word in words):  # a shell passes none, but a script may
        raise UserError("arguments cannot contain null characters.")
    if (
        launch() is not None
        and words[:1] not in ([], ["pretrain"], ["probe"], ["evaluate"])
        and not words[0].startswith("-")
    ):
        raise UserError(f"`selftaught {words[0]}` runs in one process: start it without torchrun or srun.")
    app = application(words)
    if words and words[0] in list(app) and not words[0].startswith("-"):
        require_counts(app[words[0]], words[1:])
    code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    return code if isinstance(code, int) else 0


def _fail(text: str, error: BaseException) -> int:
    place = launch()
    if place is not None and place.rank and not hasattr(error, "explained"):
        return 2  # the first of several processes has the same error, before they are connected
    text = readable(text)
    if len(text) > MAX_MESSAGE:
        text = f"{text[: MAX_MESSAGE // 2]} ... {text[-MAX_MESSAGE // 2 :]}"
    print(f"selftaught: {text}", file=LastingStream(sys.stderr))
    return 2


def _discard_output() -> None:
    """Send what is still buffered nowhere, so that the interpreter does not fail to write it when it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # closed, or not a file
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def application(words: Sequence[str]) -> App:
    """All commands. The flags of `pretrain`, `probe` and `baseline` depend on what they are given."""
    app = App(
        name="selftaught",
        help="Pretrain image encoders on self-supervised pretext tasks and probe every layer.\n\n" + EXIT_CODES,
        version=selftaught.__version__,
        version_flags=["--version"],
        default_parameter=Parameter(negative_iterable=()),
        suppress_keyboard_interrupt=False,  # `main` turns it into the exit code of its signal
    )
    if words[:1] == ["pretrain"]:
        from selftaught.cli.flags import pretrain_command

        app.command(pretrain_command(words[1:], run_pretrain, pretrain.__doc__ or ""))
    else:
        app.command(pretrain)  # without its settings, which take two seconds to import
    for name, command_for in (("probe", probe_command), ("baseline", baseline_command)):
        app.command(command_for(words[1:] if words[:1] == [name] else []))
    transfers, drawing = (detection, segmentation), (attention, neighbors, filters, stylize)
    for command in (
        evaluate,
        *transfers,
        invariance,
        quality,
        audit,
        *drawing,
        compare,
        report,
        study,
        render,
        shard,
        demo,
    ):
        app.command(command)
    app.command(list_, name="list")
    for name, usage in USAGE.items():
        app[name].usage = f"Usage: selftaught {name} {usage}"
    return app
