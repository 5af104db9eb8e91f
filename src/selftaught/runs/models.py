"""Pydantic models of the config, status, log and encoder of a run.

They are strict about types, ranges and sizes; unknown extra fields are allowed.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from selftaught.errors import readable

Name = Annotated[str, Field(min_length=1, max_length=300)]
Words = Annotated[str, Field(max_length=10_000)]
Share = Annotated[float, Field(ge=0, le=1 + 1e-6)]
"""An accuracy; sums of floats may exceed 1 by rounding."""
Amount = Annotated[float, Field(ge=0, le=1e18)]
Count = Annotated[int, Field(ge=0, le=10**18)]


class Model(BaseModel):
    """Base model: strict types (no numbers parsed from text, no booleans as numbers), finite numbers only."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, protected_namespaces=())


class Config(Model):
    """The fields of `config.yaml` that are validated before the settings themselves."""

    task: Name | None = None
    baseline: Name | None = None
    external: StrictBool | None = None
    encoder: Name | None = None
    device: Name | None = None
    precision: Name | None = None
    compile: Name | None = None
    steps: Annotated[int, Field(ge=0, le=10**12)] | None = None
    size: Annotated[int, Field(ge=1, le=4096)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=2**20)] | None = None
    data: Annotated[list[Annotated[str, Field(min_length=1, max_length=4096)]], Field(max_length=100_000)] | None = None
    labels: Annotated[str, Field(min_length=1, max_length=4096)] | None = None


class Status(Model):
    """`run.json`."""

    status: Name | None = None
    step: Count | None = None
    steps: Count | None = None
    seconds: Amount | None = None
    images: Count | None = None
    source: Words | None = None
    fingerprint: Words | None = None
    chance: dict[str, float] | None = None
    requested: dict[str, Any] | None = None
    processes: Count | None = None
    hardware: Words | None = None
    version: Words | None = None
    torch: Words | None = None


class LogLine(Model):
    """One line of `log.jsonl`. A loss may be NaN, so further fields are not checked here."""

    step: Count
    seconds: Amount | None = None


class Description(Model):
    """`encoder.json`."""

    name: Name
    options: Annotated[dict[str, Any], Field(max_length=100)]
    size: Annotated[int, Field(ge=1, le=4096)]
    layers: Annotated[dict[str, Annotated[list[Count], Field(min_length=2, max_length=2)]], Field(max_length=1000)]
    filters: Words | None = None
    uses_tiles: StrictBool = False


def mismatch(model: type[Model], value: Any) -> str:
    """The first validation error of a value, as one line; empty if the value is valid."""
    try:
        model.model_validate(_as_unicode(value))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        given = repr(first["input"])
        text = f"{place}: {first['msg']}" if place else first["msg"]
        return readable(f"{text[:200]}, got {given if len(given) < 60 else f'{given[:60]} ...'}")
    return ""


def _as_unicode(value: Any) -> Any:
    """The value without surrogate escapes, which occur in file names and which pydantic rejects."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_as_unicode(item) for item in value]
    return {name: _as_unicode(item) for name, item in value.items()} if isinstance(value, dict) else value
