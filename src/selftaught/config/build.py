"""The only place where a name becomes an object: settings in, source, task, encoder and heads out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from selftaught.config.settings import Settings
from selftaught.config.types import from_yaml, to_yaml
from selftaught.contracts import Encoder, Source, Task
from selftaught.data import Spec, Stored, is_photos, open_source, photos
from selftaught.data.crops import Crops
from selftaught.data.photos import as_paths
from selftaught.encoders import make_encoder
from selftaught.errors import NoTestPart, UserError
from selftaught.pretext import task_class
from selftaught.runs.checkpoint import Checkpoints
from selftaught.runs.folder import RunFolder
from selftaught.training.loop import Pretraining
from selftaught.training.randomness import seeded_rng

LARGEST_VIEW = 128
"""Pixels along a view where nobody asks for another size."""
PHOTO_VIEW = 32
"""The same for crops of photos, which have no size of their own: quick, and CIFAR's."""
PHOTO_CROPS = 100_000
"""Crops where the source is a photo and nobody says how many."""
STORE = 1.25
"""Stored images are this much larger than the views, so that a crop is not a magnification."""


@dataclass(frozen=True)
class Built:
    """Everything a run trains, and how its encoder was made."""

    pretraining: Pretraining
    encoder_options: dict[str, Any]
    skipped: tuple[tuple[str, str], ...]
    """(name, reason) of the images that could not be used."""


def build(data: Sequence[str], settings: Settings, labels: Path | None = None, download: bool = True) -> Built:
    """Make the objects of a run. Heads and encoder have fresh weights, a function of the seed.

    Args:
        data: where the images come from.
        settings: of the run.
        labels: CSV file with path and label.
        download: whether a data set may be downloaded: not where only the config of a run names it.
    """
    general = settings.general
    _try_out(settings)
    source = build_source(data, settings, labels, download)
    size = general.size or min(source.side, LARGEST_VIEW)
    task = task_class(general.task)(**settings.task, size=size)
    _check_needs(general.task, task, source)
    options = {**settings.encoder, **task.encoder_options(), "size": size}
    with seeded_rng(general.seed, "weights"):
        encoder = make_encoder(general.encoder, **options)
        encoder.fit(source)
        heads = task.heads(encoder, source)
    pretraining = Pretraining(
        task=task,
        encoder=encoder,
        heads=heads,
        source=source,
        optimization=settings.optimization,
        steps=general.steps or 1,
        batch_size=min(general.batch_size, len(source)),
        seed=general.seed,
    )
    return Built(pretraining, options, source.skipped if isinstance(source, Stored) else ())


def _try_out(settings: Settings) -> None:
    """Make task and encoder once for nothing: what they refuse is refused before a million images are decoded."""
    size = settings.general.size or LARGEST_VIEW
    task = task_class(settings.general.task)(**settings.task, size=size)
    with seeded_rng(0, "weights"):
        make_encoder(settings.general.encoder, **{**settings.encoder, **task.encoder_options(), "size": size})


def build_source(data: Sequence[str], settings: Settings, labels: Path | None = None, download: bool = True) -> Source:
    """The images of a run: crops where the source is photos, else every image as one."""
    if not data:
        raise UserError("pretraining needs images, found no SOURCE: name a folder, a photo, a parquet file or cifar10.")
    general = settings.general
    spec: Spec = as_paths(data)
    if len(data) == 1 and not is_photos(spec):
        if general.crops is not None:
            raise UserError(
                f"--crops cuts photos, found {data[0]}, which is none: name the image files, or leave it out."
            )
        store = None if general.size is None else round(STORE * general.size)
        return open_source(
            data[0],
            side=store,
            limit=general.limit,
            seed=general.seed,
            labels=labels,
            keep_unlabeled=True,
            download=download,
        )
    if labels is not None:
        raise UserError("--labels names the classes of many images, found photos: leave it out.")
    if general.limit is not None:
        raise UserError(f"--limit takes a part of many images, found photos: give --crops {general.limit} instead.")
    found = photos(spec)
    name = found[0].name if len(found) == 1 else f"{len(found)} photos"
    pixels = [photo.image for photo in found]
    count = general.crops or PHOTO_CROPS
    content_ids = torch.tensor([photo.content_id for photo in found])
    size = general.size or PHOTO_VIEW
    return Crops(name, pixels, count, size, general.seed, settings.cropping, content_ids=content_ids)


def _check_needs(name: str, task: Task, source: Source) -> None:
    missing = [need for need in task.required_targets if need not in source.targets]
    if missing:
        has = ", ".join(sorted(source.targets)) or "none"
        raise UserError(
            f"the task {name} needs images with {' and '.join(missing)}, found {has} in {source.name}: "
            "choose another source."
        )


def describe_encoder(name: str, encoder: Encoder, options: dict[str, Any], size: int) -> dict[str, Any]:
    """What `encoder.json` holds: all that is needed to make the encoder again."""
    filters = next((key for key, weight in encoder.named_parameters() if weight.ndim == 4), None)
    return {
        "name": name,
        "options": {key: to_yaml(value) for key, value in options.items()},
        "size": size,
        "layers": {key: [layer.channels, layer.stride] for key, layer in encoder.layers.items()},
        "filters": filters,
    }


def not_pretrained(options: dict[str, Any], section: str = "") -> dict[str, Any]:
    """The options for an encoder of the same shape with random weights, for which nothing is downloaded.

    Args:
        options: of the encoder, or settings by key.
        section: "encoder." for settings by key.
    """
    pretrained, small = f"{section}pretrained", f"{section}small"
    if not options.get(pretrained):
        return options
    stem = {small: False} if options.get(small, False) is None else {}  # which published weights do not have
    return {**options, pretrained: False, **stem}


def fresh_encoder(description: dict[str, Any], seed: int) -> Encoder:
    """The encoder that `encoder.json` describes, with random weights; its `look` has learned nothing yet."""
    options = not_pretrained({key: from_yaml(value) for key, value in description["options"].items()})
    with seeded_rng(seed, "weights"):
        return make_encoder(description["name"], **options)


def load_encoder(folder: RunFolder) -> Encoder:
    """The trained encoder of a run, ready to be asked (eval mode, CPU)."""
    weights, description = folder.read_encoder()
    try:
        encoder = fresh_encoder(description, 0)
        encoder.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"the weights of a run must fit its encoder, found others in {folder.weights}: restore encoder.json and "
            "encoder.safetensors from one and the same run."
        ) from error
    return encoder.eval().to(memory_format=torch.channels_last)


def load_pretraining(folder: RunFolder, named: str | Path | None = None) -> tuple[Pretraining, int]:
    """The last checkpoint of a run: task, encoder and heads on the CPU, the images it trained on, and its step.

    Args:
        folder: the run.
        named: a source that the user named; the run's own is downloaded only if it is this one.
    """
    data, settings, labels = _begun(folder)
    found = build(data, settings, labels, download=[str(named)] == data).pretraining
    saved = Checkpoints(folder.checkpoints, folder.identity()).load()
    if saved is None:
        raise UserError(
            f"a run must have a checkpoint to be asked its task, found none in {folder.path}: go on with "
            f"`selftaught pretrain --resume --out {folder.path}`."
        )
    try:
        found.encoder.load_state_dict(saved["encoder"])
        found.heads.load_state_dict(saved["heads"])
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"a checkpoint must fit the run that it is of, found another in {folder.checkpoints}, or other images in "
            f"{found.source.name}: put back those of the run."
        ) from error
    return found, int(saved["step"])


def unseen_source(folder: RunFolder) -> Source:
    """Images like those of a run that it did not train on: their test part, or other crops of its photos.

    Where there is no test part they are all images, and so those that it did train on.
    """
    data, settings, labels = _begun(folder)
    if is_photos(as_paths(data)):
        others = replace(settings.general, seed=settings.general.seed + 1)
        return build_source(data, replace(settings, general=others))
    side = round(STORE * (settings.general.size or LARGEST_VIEW))
    return open_unseen(data[0], side, labels=labels, download=False)


def open_unseen(
    data: str | Path, side: int, limit: int | None = None, labels: Path | None = None, download: bool = True
) -> Source:
    """The test part, which no pretraining saw; all where there is none."""
    try:
        return open_source(data, side=side, split="test", limit=limit, labels=labels, download=download)
    except NoTestPart:
        return open_source(data, side=side, split="all", limit=limit, labels=labels, download=download)


def _begun(folder: RunFolder) -> tuple[list[str], Settings, Path | None]:
    """Data, settings and file of labels of a run."""
    config = {name: from_yaml(value) for name, value in folder.read_config().items()}
    data, labels = list(config.pop("data")), config.pop("labels", None)
    return data, Settings.of(**not_pretrained(config, "encoder.")), None if labels is None else Path(labels)
