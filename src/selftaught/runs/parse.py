"""Parses JSON and YAML from untrusted files into plain values of limited depth; anything else is a `ValueError`."""

import io
import json
import math
import zipfile
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from selftaught.errors import readable

MAX_DEPTH = 24
"""Maximum nesting depth; files of a run have at most five levels."""
MAX_INTEGER = 2**63
"""Larger integers do not fit into a tensor."""
MAX_UNPACKED = 2**30
"""Maximum total size in bytes of the arrays of a file."""


class _Loader(yaml.SafeLoader):
    """Rejects anchors and deep nesting, before values are constructed.

    Not derived from libyaml's loader, which rejects surrogate escapes in file names that are not valid Unicode.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            raise ValueError("anchors and aliases are not supported")
        self.depth += 1
        if self.depth > MAX_DEPTH and isinstance(event, yaml.CollectionStartEvent):
            raise ValueError("nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse_json(content: bytes) -> Any:
    """Parse JSON and escape control characters in its strings.

    Raises:
        ValueError: it is not UTF-8 or not JSON, nested too deeply, or contains a number that is too large.
    """
    try:
        return _printable(json.loads(content.decode("utf-8"), parse_int=_integer), 0)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file, by name.

    Raises:
        Exception: the file is damaged or unpacks to more than `MAX_UNPACKED` bytes; numpy and zipfile raise many
            exception types.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_UNPACKED:
            raise ValueError("it unpacks to more bytes than such a file may have")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def parse_yaml(content: bytes) -> Any:
    """Parse YAML of numbers, text, booleans, lists and mappings.

    Anchors are rejected because a few hundred bytes of them can expand to gigabytes.

    Raises:
        ValueError: it is not UTF-8 or not YAML, has anchors, tags or other values, or is nested too deeply.
    """
    text = content.decode("utf-8")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except (RecursionError, LookupError, TypeError, AttributeError, OverflowError) as error:  # `!!int ""`
        raise ValueError(f"a value that cannot be read ({error})") from None
    _check_plain(value, 0)
    return value


def one_line(error: Exception) -> str:
    """The error message on one line of at most 200 characters."""
    return readable(" ".join(str(error).split()))[:200]


def _integer(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) >= MAX_INTEGER:
        raise ValueError(f"a number of {len(digits)} digits is too large")
    return int(digits)


def _printable(value: Any, depth: int) -> Any:
    """The value with control characters escaped in all strings."""
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, list):
        return [_printable(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {readable(name): _printable(item, depth + 1) for name, item in value.items()}
    return value


def _check_plain(value: Any, depth: int) -> None:
    """Raise `ValueError` for values that no setting can have."""
    if isinstance(value, list):
        for item in value:
            _check_plain(item, depth + 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise ValueError(f"names must be text, but one is {type(name).__name__}")
            _check_plain(name, depth + 1)
            _check_plain(item, depth + 1)
    elif isinstance(value, str):
        if "\0" in value:
            raise ValueError("text with a null character")
        try:
            value.encode("utf-8", "surrogateescape")  # as file names are encoded
        except UnicodeEncodeError:
            raise ValueError("text that is not valid Unicode") from None
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("numbers must be finite")
    elif isinstance(value, int):
        if abs(value) >= MAX_INTEGER:
            raise ValueError("an integer is too large")
    elif value is not None:
        raise ValueError(
            f"values must be numbers, text or lists, but one is a {type(value).__name__}: put it in quotes"
        )
