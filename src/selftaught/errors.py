"""User mistakes: one sentence that says what must hold, what was found and what to do.

Everything a user can get wrong raises `UserError`; the command line prints it alone and exits with 2. `assert` is
for our own logic only.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake the user can mend; its text is one sentence for people."""


class NoTestPart(UserError):
    """A source has no images that are kept for testing."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a table, with the near ones first.

    Args:
        kind: what the name was meant to name, e.g. "task".
        name: what was found.
        known: the names that exist.
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(names)}."
    return UserError(f"there is no {kind} called {name!r}: {hint}")


def readable(text: str) -> str:
    """Text from a file or a file name, on one line and without characters that a terminal would obey.

    Control characters (terminal escapes among them), line breaks and marks of text direction become Python escapes.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
