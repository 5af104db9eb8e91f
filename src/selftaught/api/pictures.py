"""Pictures of what an encoder learned: attention maps, nearest neighbors and filters; for style see `stylize.py`.

Each is a PNG in `pictures/` of the run and a JSON file of the same name that describes it. The report shows those of
the present weights.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from selftaught.analysis.attention import attention_maps
from selftaught.analysis.images import square, whole_images
from selftaught.analysis.neighbors import find_neighbors
from selftaught.api.loaded import Loaded, load_trained
from selftaught.config.build import build_source, load_encoder, open_unseen
from selftaught.config.settings import Settings
from selftaught.contracts import Encoder, Source, evenly_spaced
from selftaught.data import is_photos, photos
from selftaught.errors import UserError, readable, require_between
from selftaught.evaluation.baselines.encoders import calibrate, random_encoders
from selftaught.evaluation.results import file_stem
from selftaught.limits import NUM_IMAGES
from selftaught.runs.atomic import write_bytes
from selftaught.runs.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CALIBRATION_IMAGES = 512
"""Images for the batch-norm statistics of random weights, where fewer are drawn."""
CALIBRATION_CROPS = 256
"""Crops of content and style photo for the same purpose."""
NEIGHBOR_SIDE = 72
"""Approximate side of a neighbor in the picture, in pixels."""
MAX_FILTERS = 512
"""Maximum number of filters that are drawn."""
ACTIVATION_NOTE = "Sum over channels of |activation| to the power p, which is the power of each row."
WEIGHTS_NOTE = "Attention that each patch receives in the last block, averaged over queries."
SINGLE = "Random weights: a single initialization."


@dataclass(frozen=True)
class Picture:
    """A picture in the folder of a run."""

    path: Path
    """The PNG."""
    facts: dict[str, Any]
    """The content of the JSON file beside it: `kind`, `title`, `note` and what was drawn."""


def attention(
    run: RunFolder,
    data: str | Path | Source,
    *,
    layers: Sequence[str],
    powers: Sequence[float],
    images: int,
    size: int | None,
    device: str,
) -> Picture:
    """See `Run.attention`."""
    from selftaught import figures  # here, because importing matplotlib takes a second

    loaded, folder = load_trained(run, size, device), run.prepare_results(run.pictures)
    require_between("--images", images, *NUM_IMAGES)
    side, where = loaded.arguments["size"], loaded.arguments["device"]
    if not isinstance(data, Source) and is_photos(data):
        source = crops([str(data)], side)
        shown = torch.stack([square(photo.image, side) for photo in photos(data)]).to(where)
    else:
        source = data if isinstance(data, Source) else open_unseen(data, side, max(images, CALIBRATION_IMAGES))
        shown = whole_images(source, evenly_spaced(images, len(source)), side, where)
    trained, random = trained_and_random(loaded, source)
    maps = {
        "trained": attention_maps(trained, shown, layers, powers),
        "random weights": attention_maps(random, shown, layers, powers),
    }
    names, exponents, note = list(maps["trained"]), list(powers), ACTIVATION_NOTE
    if names[0] not in trained.layers:  # attention weights, which are the same for every power
        maps = {net: {name: values[:, :1] for name, values in layer_maps.items()} for net, layer_maps in maps.items()}
        exponents, note = [1.0], WEIGHTS_NOTE
    facts = {
        "kind": "attention",
        "title": f"Attention maps on {len(shown)} images of {source.name}",
        "note": f"{note} Each map is scaled from its minimum (black) to its maximum (yellow). {SINGLE}",
        "data": source.name,
        "images": len(shown),
        "layers": names,
        "powers": exponents,
        "size": side,
    }
    return save(run, loaded, folder, figures.attention(shown, maps, exponents), facts, source.fingerprint)


def neighbors(
    run: RunFolder,
    data: str | Path | Source,
    *,
    layers: Sequence[str],
    queries: int,
    k: int,
    images: int,
    size: int | None,
    device: str,
) -> Picture:
    """See `Run.neighbors`."""
    from selftaught import figures

    loaded, folder = load_trained(run, size, device), run.prepare_results(run.pictures)
    require_between("--images", images, *NUM_IMAGES)
    side, where = loaded.arguments["size"], loaded.arguments["device"]
    source = data if isinstance(data, Source) else open_unseen(data, side, images)
    trained, random = trained_and_random(loaded, source)
    table, chosen, query_indices = find_neighbors(
        trained, random, source, size=side, images=images, queries=queries, k=k, layers=layers, device=where
    )
    rows = []
    for ours, theirs in zip(table.trained, table.random, strict=True):
        order = torch.cat([query_indices[:, None], ours.indices, theirs.indices], 1)  # (Q, 1 + 2 k)
        photos = whole_images(source, chosen[order.flatten()], side, torch.device("cpu"))
        rows.append(figures.stretched(photos.reshape(*order.shape, *photos.shape[1:]), NEIGHBOR_SIDE))
    cells = torch.stack(rows, 1).flatten(0, 1)  # the layers of the first query, then those of the second
    ranks = [str(rank + 1) for rank in range(k)]
    headings, groups = ["query", *ranks, *ranks], [("", 1), ("trained", k), ("random weights", k)]
    names = [row.layer for row in table.trained]
    drawn = figures.image_table(cells, headings, names * len(query_indices), groups)
    facts = {
        "kind": "neighbors",
        "title": f"Nearest neighbors at every layer among {table.images:,} images of {source.name}",
        "note": f"By cosine similarity of features averaged over positions. {_shares(table.to_json())}{SINGLE}",
        "queries": len(query_indices),
        "size": side,
        **table.to_json(),
        "rows": names,
    }
    return save(run, loaded, folder, drawn, facts, source.fingerprint)


def filters(run: RunFolder, others: Sequence[RunFolder]) -> Picture:
    """See `Run.filters`."""
    from selftaught import figures

    loaded, folder = load_trained(run, None, "cpu"), run.prepare_results(run.pictures)
    weights, digests = {}, []
    for number, each in enumerate((run, *others)):
        stamp = loaded.stamp if not number else load_trained(each, None, "cpu").stamp
        name = readable(each.path.resolve().name)
        name = name if name not in weights else f"{name} ({number + 1})"
        weights[name] = _first_convolution(each, load_encoder(each))
        digests.append(stamp["weights"])
    weights["random weights"] = _first_convolution(run, loaded.arguments["fresh"](0))
    facts = {
        "kind": "filters",
        "title": f"First-layer filters of {', '.join(weights)}",
        "note": f"Each filter is scaled separately; mid-gray is 0. {SINGLE}",
        "runs": list(weights)[:-1],
    }
    return save(run, loaded, folder, figures.filter_comparison(weights), facts, str(digests))


def trained_and_random(loaded: Loaded, source: Source) -> tuple[Encoder, Encoder]:
    """The encoder of a run and the same with random weights, with batch statistics as in every other analysis."""
    where, size = loaded.arguments["device"], loaded.arguments["size"]
    trained = loaded.arguments["encoder"].to(where)
    if loaded.arguments["recalibrate"]:
        calibrate(trained, source, size, where)
    return trained, next(random_encoders(loaded.arguments["fresh"], 1, source, size, where))


def crops(paths: Sequence[str], size: int) -> Source:
    """Random crops of photos, for batch statistics."""
    return build_source(paths, Settings.of(size=size, num_crops=CALIBRATION_CROPS))


def _first_convolution(run: RunFolder, encoder: Encoder) -> Tensor:
    """(F, 1 to 3, h, w): the first convolution of an encoder."""
    weight = next((weight for weight in encoder.parameters() if weight.ndim == 4), None)
    if weight is None or weight.shape[1] > 3 or len(weight) > MAX_FILTERS or min(weight.shape[2:]) < 2:
        raise UserError(f"the encoder of {readable(str(run.path))} has no first convolution that can be drawn.")
    return weight.detach()


def _shares(facts: dict[str, Any]) -> str:
    """The fractions of neighbors of the same class, as a sentence; empty without labels."""
    if facts["chance"] is None:
        return ""
    rows = [f"{row['layer']} {row['same_class']:.3f} ({row['random']:.3f})" for row in facts["layers"]]
    return (
        f"Fraction of neighbors with the class of the image, over all images (random weights): {', '.join(rows)}; "
        f"chance {facts['chance']:.3f}. "
    )


def save(run: RunFolder, loaded: Loaded, folder: Path, figure: "Figure", facts: dict[str, Any], images: str) -> Picture:
    """Write a picture and its facts; the PNG is first, so that facts are never without one.

    Args:
        run: the run.
        loaded: its encoder.
        folder: `pictures/` of the run.
        figure: the picture.
        facts: at least `kind`, `title` and `note`.
        images: digest of the images that were drawn.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    facts = {**facts, **loaded.stamp}
    stem = file_stem(str(facts.get("data") or run.path.resolve().name), "", {**facts, "fingerprint": images})
    path = folder / f"{facts['kind']}-{stem}.png"
    write_bytes(path, buffer.getvalue(), run.path)
    run.write_result(path.with_suffix(".json"), facts)
    return Picture(path, facts)
