"""Annotated types of options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from selftaught.cli.errors import integers


def as_words(values: tuple[object, ...]) -> str:
    """Values as on the command line."""
    return " ".join(map(str, values))


RunPath = Annotated[Path, Parameter(help="A run folder.")]
LabeledData = Annotated[
    str, Parameter(help="Labeled images: a folder with one subfolder per class, parquet, or a data set by name.")
]
TestData = Annotated[str, Parameter(help="Images, labeled or not; their test part where there is one.")]
SWITCH = Parameter(negative="", show_default=False)
"""A flag without a value, off by default."""
Json = Annotated[bool, SWITCH, Parameter(name="--json", help="Print one JSON object and nothing else.")]

Count = Annotated[int, Parameter(converter=integers)]
Size = Annotated[
    int | None, Parameter(converter=integers, help="Side of the views in pixels; default: that of pretraining.")
]
Limit = Annotated[
    int | None, Parameter(converter=integers, help="Number of training images; all test images are used.")
]
LabelFile = Annotated[
    Path | None,
    Parameter(help="CSV file with the columns path and label (a|b for several), or path and columns of 0 and 1."),
]
Stored = Annotated[
    Literal["auto", "decoded", "encoded"],
    Parameter(help="Decode the images once (decoded) or on the fly (encoded); auto: by their size."),
]
Device = Annotated[str, Parameter(help="auto (CUDA if available), cpu, cuda, cuda:1 or mps.")]
LearningRates = Annotated[
    tuple[float, ...],
    Parameter(
        help="Peak learning rates to choose from on validation images.", consume_multiple=True, show_default=as_words
    ),
]
SEVERAL = Parameter(consume_multiple=True, show_default=False)
"""An option with several values, none by default."""
Layers = Annotated[tuple[str, ...], SEVERAL, Parameter(help="Layers to draw; default: all.")]
