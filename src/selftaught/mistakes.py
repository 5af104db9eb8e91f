"""Mistakes on the command line, in our form: what must hold, what was found, what to do."""

from typing import get_args

from cyclopts.exceptions import CoercionError, CycloptsError, MissingArgumentError

WANTED: dict[type | None, str] = {int: "a whole number", float: "a number", bool: "yes or no"}


def sentence(error: CycloptsError) -> str:
    """One line about what cyclopts could not read."""
    command = " ".join(["selftaught", *(error.command_chain or ())])
    if isinstance(error, CoercionError) and error.token is not None and _kind(error.target_type) in WANTED:
        name = error.token.keyword or (error.argument.name if error.argument else "a value")
        wanted = WANTED[_kind(error.target_type)]
        return f"{name} must be {wanted}, found {error.token.value!r}: give one, or leave it out."
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name, (count, _) = error.keyword or error.argument.name, error.argument.token_count()
        if name in (error.root_input_tokens or ()):
            found, values = len(error.tokens_so_far), "a value" if count == 1 else f"{count} values"
            return f"{name} must be followed by {values}, found {found}: give as many, or leave it out."
        return f"`{command}` needs {name}, found none: give it; `{command} --help` says what it is."
    said = " ".join(str(error).split())
    about = f"{error.argument.name}: " if error.argument is not None and error.argument.name not in said else ""
    # A name that nobody knows and the like: cyclopts says it well, but not where to look.
    return f"{about}{said} See `{command} --help`."


def _kind(kind: type | None) -> type | None:
    """The one type that a value may have, None apart."""
    parts = [part for part in get_args(kind) if part is not type(None)]
    return parts[0] if len(parts) == 1 else kind
