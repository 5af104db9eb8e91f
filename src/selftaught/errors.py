"""Errors of the user: one sentence that says what was expected, what was given and how to fix it.

Everything a user can get wrong raises `UserError`; the command line prints it alone and exits with 2. `assert` is
for our own logic only.
"""

import sys
from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """An error the user can fix; its text is one sentence."""


class NoTestPart(UserError):
    """A source has no images that are kept for testing."""


class StorageError(UserError):
    """A file could not be written, because the disk is full or the folder not writable; what was saved is kept."""


class DivergedError(UserError):
    """The loss or the weights became NaN or infinite."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the work at once.

    Args:
        signal: its number.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the CPU or on a device."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    # torch has no class for failed allocations on the CPU: the text is all that tells them from other errors.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with similar names.

    Args:
        kind: what the name stands for, e.g. "task".
        name: what was given.
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
