"""Sources with dense targets whose values are given by formulas."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from corpus import encoded, noise

from selftaught.augment.dense import contours_of
from selftaught.data.conventions import Conventions
from selftaught.data.dense_encode import RENDERED, encode_contours, encode_depth, encode_instances, encode_normals


def toy_depth(height: int, width: int, number: int = 0) -> np.ndarray:
    """A slope of 2 to 5 m, and an unknown region in the upper left corner."""
    depth = 2 + number * 0.1 + np.linspace(0, 3, height * width, dtype=np.float32).reshape(height, width)
    depth[: height // 4, : width // 4] = 0
    return depth


def toy_normals(height: int, width: int, number: int = 0) -> np.ndarray:
    """Random directions toward the camera, smooth over blocks of 4 pixels; undefined in the lower right corner."""
    rng = np.random.default_rng(number)
    blocks = rng.normal(size=(height // 4, width // 4, 3))
    blocks[..., 2] = np.abs(blocks[..., 2]) + 0.2
    vectors = np.repeat(np.repeat(blocks, 4, 0), 4, 1)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    vectors[-(height // 4) :, -(width // 4) :] = 0
    return vectors.astype(np.float32)


def toy_instances(height: int, width: int, number: int = 0) -> np.ndarray:
    ids = np.zeros((height, width), np.int64)
    ids[height // 4 : height // 2, : width // 2] = 3
    ids[height // 2 :, width // 4 + number % 4 :] = 7
    return ids


def toy_cells(side: int, number: int) -> dict[str, bytes]:
    """One encoded image with its targets."""
    import torch

    ids = toy_instances(side, side, number)
    return {
        "image": encoded(noise(side, side, number)),
        "depth": encode_depth(toy_depth(side, side, number)),
        "normals": encode_normals(toy_normals(side, side, number)),
        "instances": encode_instances(ids),
        "contours": encode_contours(contours_of(torch.from_numpy(ids)).numpy()),
    }


def write_toys(
    path: Path, rows: list[dict[str, bytes | None]], conventions: Conventions = RENDERED, group: int = 4
) -> Path:
    """A parquet file with these rows."""
    columns = {name: pa.array([row[name] for row in rows], pa.binary()) for name in rows[0]}
    table = pa.table(columns).replace_schema_metadata({"selftaught.targets": conventions.model_dump_json()})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path
