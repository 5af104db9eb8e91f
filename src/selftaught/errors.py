"""User errors: one sentence with what was expected, what was given and how to fix it.

Invalid input raises `UserError`; the command line prints its text without a traceback and exits with code 2. `assert`
is for internal invariants only.
"""

import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


class UserError(ValueError):
    """An error the user can fix; its text is one sentence."""


class NoTestPart(UserError):
    """A source has no test images."""


class NotApplicable(UserError):
    """A baseline does not apply to this encoder, or needs a package that is not installed."""


class StorageError(UserError):
    """A file could not be written: the disk is full or the folder is not writable. Saved files are kept."""


class DivergedError(UserError):
    """The loss or the weights became NaN or infinite."""


class ProcessLostError(UserError):
    """Another process of the run ended without a reason, such as one that was killed."""


class ReportedError(RuntimeError):
    """Another process of the run failed and reports why, so this one does not.

    Args:
        kind: "resumable" if the run can be continued, else "final".
    """

    def __init__(self, kind: str) -> None:
        super().__init__("another process failed")
        self.resumable = kind == "resumable"


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
    # torch has no exception class for failed allocations on the CPU: only the text identifies them.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def unknown(kind: str, name: str, available: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with the closest existing names.

    Args:
        kind: kind of object, e.g. "task".
        name: the name given.
        available: the names that exist.
    """
    names = sorted(set(available))
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(names)}."
    return UserError(f"there is no {kind} called {name!r}: {hint}")


def require_between(
    name: str, value: float, low: float, high: float, above: bool = False, below: bool = False, *, hint: str = ""
) -> None:
    """Refuse a number outside of a range.

    Args:
        name: what it is, e.g. "--width of vit".
        value: the number; NaN is outside of every range.
        low: smallest number.
        high: largest number.
        above: whether `low` itself is excluded.
        below: whether `high` itself is excluded.
        hint: end of the sentence, e.g. "; try 0.75".

    Raises:
        UserError: it is outside.
    """
    if (low < value if above else low <= value) and (value < high if below else value <= high):
        return
    if above or below:
        span = f"{'above' if above else 'at least'} {low:,} and {'below' if below else 'at most'} {high:,}"
    else:
        span = f"from {low:,} to {high:,}"
    given = f"{value:,}" if isinstance(value, int) else str(value)
    raise UserError(f"{name} must be {span}, got {given}{hint}.")


def require_ranges(owner: object, **ranges: tuple[float, float, bool, bool]) -> None:
    """Refuse fields of a dataclass outside of ranges, see `limits.Range`; the sentence gives the field's default."""
    for name, limits in ranges.items():
        value, default = getattr(owner, name), getattr(type(owner), name)
        shown = " ".join(f"{item:.3g}" if isinstance(item, float) else str(item) for item in _items(default))
        for number in _items(value):
            require_between(f"--{name.replace('_', '-')}", number, *limits, hint=f"; the default is {shown}")


def _items(value: Any) -> tuple[Any, ...]:
    """The items of a tuple, or the value itself as one."""
    return value if isinstance(value, tuple) else (value,)


def listed(values: Sequence[float], most: int = 8) -> str:
    """The first values for an error message: "0.2 0.35 0.6", and how many more there are; "none" if there are none."""
    more = f" and {len(values) - most:,} more" if len(values) > most else ""
    return (" ".join(f"{value:g}" for value in values[:most]) or "none") + more


def readable(text: str) -> str:
    """Escape text from a file or a file name for printing on one line of a terminal.

    Control characters (including terminal escapes), line breaks and text direction marks become Python escapes.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
