"""Settings in two forms: nested as in `config.yaml`, and flat with dotted keys as in the code.

task: {name: rotation, angles: [0, 90]}      <->      {"task": "rotation", "task.angles": [0, 90]}
"""

from collections.abc import Mapping
from typing import Any

SECTIONS = ("task", "encoder", "optimizer", "photos")
"""Groups of settings; the first three have a `name`, which chooses the others."""


def flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys for the settings of every section; other keys are unchanged."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if key in SECTIONS and isinstance(value, Mapping):
            flat |= {key if name == "name" else f"{key}.{name}": item for name, item in value.items()}
        else:
            flat[key] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        section, _, name = key.partition(".")
        if section in SECTIONS:
            nested.setdefault(section, {})[name or "name"] = value
        else:
            nested[key] = value
    return nested


def value_of(config: Mapping[str, Any], key: str) -> Any:
    """The value of a setting by its dotted key; a flat config may name it without its section. None if missing."""
    return config.get(key, config.get(key.rpartition(".")[2]))
