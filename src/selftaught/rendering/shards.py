"""Shards: parquet files with the same number of scenes each, complete or absent.

Columns are `image`, `depth`, `normals`, `instances` and `contours`, all PNG, as images of Hugging Face. PNG rather than
JPEG for the picture, because the blocks of JPEG are an eighth of a picture of 64 pixels, visible to a network, and
differ from those of the photos that it is to be compared with.
"""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from selftaught.augment.dense import contours_of
from selftaught.data.dense_encode import (
    RENDERED,
    encode_contours,
    encode_depth,
    encode_image,
    encode_instances,
    encode_normals,
)
from selftaught.data.parquet import METADATA
from selftaught.rendering.random_scene import random_scene
from selftaught.rendering.renderer import Picture, render_scene
from selftaught.runs.atomic import write_bytes

SCENES = 200
"""Scenes per shard: a few seconds of work, which is lost when a worker is killed."""
COLUMNS = ("image", "depth", "normals", "instances", "contours")
CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"scenes-{number:05}.parquet"


def rows_of(number: int, scenes: int, shard: int) -> range:
    """The numbers of the scenes of a shard, if there are `scenes` in total and `shard` in each shard."""
    return range(number * shard, min((number + 1) * shard, scenes))


def write_shard(
    path: Path, numbers: range, seed: int, size: int, photos: NDArray[np.uint8] | None, on_scene: Callable[[], None]
) -> None:
    """Render scenes and write them to a file, atomically.

    Args:
        path: the file.
        numbers: the numbers of the scenes.
        seed: random seed of the data set.
        size: side of the pictures in pixels.
        photos: images for textures.
        on_scene: called after each scene.

    Raises:
        UserError: the file cannot be written.
    """
    columns: dict[str, list[bytes]] = {name: [] for name in COLUMNS}
    for number in numbers:
        for name, content in encoded(render_scene(random_scene(seed, number, photos), size)).items():
            columns[name].append(content)
        on_scene()
    cells = {name: [{"bytes": content, "path": None} for content in column] for name, column in columns.items()}
    features = {name: {"_type": "Image"} for name in COLUMNS}
    metadata = {
        b"huggingface": json.dumps({"info": {"features": features}}).encode(),
        METADATA: RENDERED.model_dump_json(exclude_defaults=True).encode(),
    }
    table = pa.table({name: pa.array(column, CELL) for name, column in cells.items()})
    stream = BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), stream, compression="none")  # PNG is compressed
    write_bytes(path, stream.getvalue())


def encoded(picture: Picture) -> dict[str, bytes]:
    """A rendered scene as PNG, by column."""
    return {
        "image": encode_image(picture.image),
        "depth": encode_depth(picture.depth),
        "normals": encode_normals(picture.normals),
        "instances": encode_instances(picture.instances),
        "contours": encode_contours(contours_of(torch.from_numpy(picture.instances)).numpy()),
    }
