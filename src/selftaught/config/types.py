"""Types of settings: checked by pydantic, described in words for error messages."""

import json
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

LIMIT = 10**18
"""Numbers from this on are refused: torch could not represent them."""


def has_type(value: Any, annotation: Any) -> bool:
    """Whether a value has the type of a setting: a number, text, a choice, a tuple of these, or None."""
    try:
        _adapter(annotation).validate_json(json.dumps(to_yaml(value)))
    except (ValidationError, TypeError, ValueError, RecursionError):  # a date, bytes, a value that contains itself
        return False
    return all(abs(number) < LIMIT for number in _numbers(value))


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    """Strict: no number from text, no boolean as a number, no NaN; JSON, because its lists may be tuples."""
    return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))


def _numbers(value: Any) -> list[float]:
    if isinstance(value, list | tuple):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int | float) else []


def is_path(annotation: Any) -> bool:
    """Whether a setting is a path, or a path or None."""
    return Path in (annotation, *get_args(annotation))


def describe(annotation: Any) -> str:
    """The expected type in words."""
    kind, parts = get_origin(annotation), get_args(annotation)
    if kind is Literal:
        return " or ".join(map(str, parts))
    if kind in (Union, UnionType):
        return " or ".join(describe(part) for part in parts if part is not type(None))
    if kind is tuple and parts[-1] is Ellipsis:
        return f"a list, each {describe(parts[0])}"
    if kind is tuple:
        return f"{len(parts)} values, each {describe(parts[0])}"
    names = {
        int: "an integer of at most 18 digits",
        float: "a finite number",
        bool: "true or false",
        str: "text",
        Path: "a path",
    }
    return names.get(annotation, str(annotation))


def from_yaml(value: Any) -> Any:
    """A value of YAML or JSON as a setting: lists become tuples."""
    return tuple(from_yaml(item) for item in value) if isinstance(value, list | tuple) else value


def to_yaml(value: Any) -> Any:
    """A setting as a value of YAML or JSON."""
    if isinstance(value, tuple | list):
        return [to_yaml(item) for item in value]
    return str(value) if isinstance(value, Path) else value
