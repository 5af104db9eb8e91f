"""Units and axes of dense targets, stated in the metadata of a parquet file or in `targets.json` of a folder."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selftaught.errors import UserError, readable

LIMIT = 10_000
"""Maximum length of the text."""


class Conventions(BaseModel):
    """How the values of encoded dense targets are to be interpreted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    depth_unit: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Meters per unit of depth; None: 0.001 for 16-bit integers (millimeters), 1 for floats."""
    depth_encoding: Literal["linear", "half"] = "linear"
    """`half`: 16-bit integers are the bits of half-precision floats, whose order is that of the floats."""
    normals_y: Literal["up", "down"] = "up"
    """Direction of the y axis of normals."""
    normals_z: Literal["toward", "away"] = "toward"
    """Direction of the z axis of normals: toward the camera, or away from it."""


NO_CONVENTIONS = Conventions()


def parse_conventions(text: str | bytes, where: str) -> Conventions:
    """Parse JSON text.

    Raises:
        UserError: it is not JSON or has unknown keys or values.
    """
    if len(text) > LIMIT:
        raise UserError(f"{where} has more than {LIMIT:,} characters: expected units and axes of dense targets only.")
    try:
        return Conventions.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "the file"
        keys = ", ".join(Conventions.model_fields)
        raise UserError(f"{where}: {readable(name)}: {first['msg'].lower()}; allowed keys are {keys}.") from error
