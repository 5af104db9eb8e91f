"""Annotated types of options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from selftaught.cli.errors import integers

Json = Annotated[bool, Parameter(name="--json", help="Print one JSON object and nothing else.", negative="")]
Count = Annotated[int, Parameter(converter=integers)]
Size = Annotated[
    int | None, Parameter(converter=integers, help="Side of the views in pixels; default: that of pretraining.")
]
Limit = Annotated[
    int | None, Parameter(converter=integers, help="Number of training images; all test images are used.")
]
LabelFile = Annotated[Path | None, Parameter(help="CSV file with the columns path and label.")]
Stored = Annotated[
    Literal["auto", "decoded", "encoded"],
    Parameter(help="Decode the images once (decoded) or on the fly (encoded); auto: by their size."),
]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps.")]
Layers = Annotated[tuple[str, ...], Parameter(help="Layers to draw; default: all.", consume_multiple=True)]
