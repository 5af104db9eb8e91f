"""Results on standard output."""

import json
from typing import Any


def print_result(result: Any) -> None:
    """Print a JSON object, or a table in its full width."""
    if isinstance(result, dict):
        print(json.dumps(result))
        return
    from rich.console import Console

    class Output(Console):
        """Leaves a closed pipe to `main`; rich would exit with 1."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    console = Output(markup=False)  # names of files may look like markup
    if not console.is_terminal:
        console.width = 160
    console.print(result)
