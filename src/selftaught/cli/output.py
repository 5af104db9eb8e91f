"""Results on standard output."""

import json
from typing import TYPE_CHECKING, Any

from selftaught.errors import readable
from selftaught.training.launch import launch

if TYPE_CHECKING:
    from selftaught.api.pictures import Picture


def print_result(result: Any) -> None:
    """Print a JSON object, or a table in its full width; of several processes, the first one prints."""
    if (place := launch()) is not None and place.rank:
        return
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


def print_picture(picture: "Picture", as_json: bool) -> None:
    """Print the path of a picture, or its facts with the path as `picture`."""
    path = str(picture.path)
    print_result({"picture": path, **picture.facts} if as_json else readable(path))
