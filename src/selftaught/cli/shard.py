"""`selftaught shard`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from selftaught.cli.options import Count, LabelFile
from selftaught.cli.output import print_result
from selftaught.errors import readable


def shard(
    source: Annotated[str, Parameter(help="Images: a folder, parquet, tar files, or a data set by name.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder, new or empty.")],
    shard_size: Annotated[Count, Parameter(help="Size of a shard in MB.")] = 256,
    labels: LabelFile = None,
) -> None:
    """Write the images of a source to indexed tar shards (WebDataset), as they are encoded; the folder is a source."""
    from selftaught.api.shard import shard as write

    print_result(readable(str(write(source, out=out, shard_size=shard_size, labels=labels))))
