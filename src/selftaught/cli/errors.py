"""Errors of the command line parser as one sentence: what was expected and what was given."""

import os
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, get_args

from cyclopts import App, Token, convert
from cyclopts.exceptions import CoercionError, CycloptsError, MissingArgumentError

from selftaught.errors import UserError

EXPECTED: dict[type | None, str] = {int: "an integer", float: "a number", bool: "true or false"}


def sentence(error: CycloptsError) -> str:
    """One line about arguments that cyclopts could not parse."""
    command = " ".join(["selftaught", *(error.command_chain or ())])
    if isinstance(error, CoercionError) and error.token is not None and _kind(error.target_type) in EXPECTED:
        name = error.token.keyword or (error.argument.name if error.argument else "a value")
        given = repr(error.token.value)
        shown = given if len(given) < 80 else f"{given[:80]} ..."
        return f"{name} expects {EXPECTED[_kind(error.target_type)]}, got {shown}."
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name, (count, _) = error.keyword or error.argument.name, error.argument.token_count()
        if any(token.partition("=")[0] == name for token in error.root_input_tokens or ()):
            number = len(error.tokens_so_far) or "none"
            return f"{name} expects {'a value' if count == 1 else f'{count} values'}, got {number}."
        kind = "option" if name.startswith("-") else "argument"
        return f"missing required {kind} {name}. See `{command} --help`."
    message = " ".join(str(error).split())
    about = f"{error.argument.name}: " if error.argument is not None and error.argument.name not in message else ""
    return f"{about}{message} See `{command} --help`."


def require_counts(command: App, words: Sequence[str]) -> None:
    """Refuse more numbers after a flag than it takes, which cyclopts would pass on as further sources or runs.

    Args:
        command: one of the commands.
        words: the words after its name.

    Raises:
        UserError: there are more, and the first of them is no file.
    """
    numbers = {place: sum(1 for _ in takewhile(_is_number, words[place + 1 :])) for place in range(len(words))}
    several = {place: given for place, given in numbers.items() if given > 1 and words[place].startswith("-")}
    if not several:
        return  # because collecting all flags takes as long as parsing them
    counts = {
        name: argument.token_count()[0]
        for argument in command.assemble_argument_collection()
        if argument.token_count()[0] and not argument.token_count()[1]
        for name in argument.names
    }
    for place, given in several.items():
        word, expected = words[place], counts.get(words[place])
        if expected is not None and given > expected and not os.path.lexists(words[place + 1 + expected]):
            raise UserError(f"{word} expects {'a value' if expected == 1 else f'{expected} values'}, got {given}.")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def has_integers(annotation: Any) -> bool:
    """Whether a value of this type is one or more integers: int, int | None, tuple[int, ...], but no float."""
    parts = [part for part in get_args(annotation) if part not in (type(None), Ellipsis)]
    return annotation is int or (bool(parts) and all(map(has_integers, parts)))


def integers(type_: Any, tokens: Sequence[Token]) -> Any:
    """Convert to integers, and refuse "1.5", which cyclopts rounds to 2."""
    for token in tokens:
        if "." in token.value:
            raise CoercionError(token=token, target_type=int)
    return convert(type_, tokens)


def _kind(kind: type | None) -> type | None:
    """The one type that a value may have, None apart."""
    parts = [part for part in get_args(kind) if part is not type(None)]
    return parts[0] if len(parts) == 1 else kind
