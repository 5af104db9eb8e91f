"""Builds sources, tasks, encoders and heads from settings. All lookup of objects by name happens here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from selftaught.config.settings import Settings, offered, resolve, shortest_flag
from selftaught.config.types import from_yaml, to_yaml
from selftaught.config.warm_start import is_computed, start_from
from selftaught.contracts import Encoder, Source, Task
from selftaught.data import Spec, Stored, is_photos, open_source, photos
from selftaught.data.crops import Crops
from selftaught.data.mixed import MixedSource
from selftaught.data.photos import as_paths
from selftaught.encoders import make_encoder
from selftaught.encoders.inputs import require_input_sizes
from selftaught.errors import NoTestPart, UserError
from selftaught.evaluation.baselines import prepare
from selftaught.pretext import task_class
from selftaught.runs.checkpoint import Checkpoints
from selftaught.runs.folder import RunFolder, has_pretext_task
from selftaught.training.loop import Pretraining
from selftaught.training.optimizer import Optimization
from selftaught.training.randomness import seeded_rng

LARGEST_VIEW = 128
"""Default maximum side of a view, in pixels."""
PHOTO_VIEW = 32
"""Default side of a crop of a photo, in pixels: fast to train on, and the size of CIFAR images."""
PHOTO_CROPS = 100_000
"""Default number of crops where the source is photos."""
STORAGE_SCALE = 1.25
"""Side of stored images relative to the side of the views, so that random crops are not upsampled."""


@dataclass(frozen=True)
class Built:
    """The objects of a run and the options its encoder was built with."""

    pretraining: Pretraining
    encoder_options: dict[str, Any]
    skipped: tuple[tuple[str, str], ...]
    """(name, reason) of the images that could not be used."""


def build(data: Sequence[str], settings: Settings, labels: Path | None = None, download: bool = True) -> Built:
    """Build the objects of a run. Initial weights are a function of the seed, but for those of `General.encoder_from`.

    Args:
        data: image sources: names or paths.
        settings: settings of the run.
        labels: CSV file with path and label.
        download: whether a data set may be downloaded; False where only the config of a run names it.
    """
    general = settings.general
    _try_out(settings)
    images = build_source(data, settings, labels, download)
    size = general.size or min(images.side, LARGEST_VIEW)
    task = make_task(settings, size)
    _check_targets(general.task, task, images)
    source = with_real_images(task, images, settings)
    options = {**settings.encoder, **task.encoder_options(), "size": size}
    with seeded_rng(general.seed, "weights"):
        encoder = make_encoder(general.encoder, **options)
        encoder.fit(source)
        if general.encoder_from is not None and is_computed(general.encoder_from):
            prepare(str(general.encoder_from), encoder, source, size, torch.device("cpu"), general.seed)
        elif general.encoder_from is not None:
            start_from(encoder, general.encoder, options, Path(general.encoder_from))
        require_input_sizes(encoder, task.view_sizes())
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
    return Built(pretraining, options, images.skipped if isinstance(images, Stored) else ())


def supervised_pretraining(
    encoder: Encoder, source: Source, *, size: int, seed: int, batch_size: int, optimization: Optimization, **task: Any
) -> Pretraining:
    """The supervised training of an encoder that exists already, for one step; its classifier has random weights.

    Args:
        encoder: trained or not.
        source: labeled images.
        size: side of the views in pixels.
        seed: random seed of order and augmentation; the classifier is drawn from torch's global generator.
        batch_size: images per step, at most those of the source are used.
        optimization: optimizer and schedule.
        task: settings of the task `supervised`.
    """
    supervised = task_class("supervised")(size=size, **task)
    heads = supervised.heads(encoder, source)
    batch_size = min(batch_size, len(source))
    return Pretraining(supervised, encoder, heads, source, optimization, 1, batch_size, seed)


def make_task(settings: Settings, size: int) -> Task:
    """The task of a run for views of `size` pixels."""
    return task_class(settings.general.task)(**settings.task, size=size)


def with_real_images(task: Task, images: Source, settings: Settings) -> Source:
    """The images, mixed with the real ones for domain adaptation if the task has some.

    Their data set is never downloaded, because the config of a stranger's run may name it.
    """
    if (real := task.real_images()) is None:
        return images
    general = replace(settings.general, limit=None, num_crops=None, size=settings.general.size or images.side)
    return MixedSource(images, build_source([str(real)], replace(settings, general=general), download=False))


def _try_out(settings: Settings) -> None:
    """Build task and encoder once and discard them, so that invalid options fail before any image is decoded."""
    if settings.general.encoder_from is not None and settings.encoder.get("pretrained"):
        raise UserError("--encoder-from and --pretrained are two sources of initial weights: choose one.")
    size = settings.general.size or LARGEST_VIEW
    task = make_task(settings, size)
    with seeded_rng(0, "weights"):
        options = {**settings.encoder, **task.encoder_options(), "size": size}
        encoder = make_encoder(settings.general.encoder, **options)
        start = settings.general.encoder_from
        if start is not None and not is_computed(start) and settings.general.size:
            start_from(encoder, settings.general.encoder, options, Path(start))


def build_source(data: Sequence[str], settings: Settings, labels: Path | None = None, download: bool = True) -> Source:
    """Open the images of a run: random crops if the source is photos, else every image as it is."""
    if not data:
        raise UserError("missing required argument SOURCE: give a folder, a photo, a parquet file or cifar10.")
    general = settings.general
    spec: Spec = as_paths(data)
    if len(data) == 1 and not is_photos(spec):
        if general.num_crops is not None:
            raise UserError(
                f"--num-crops applies to photos, and {data[0]} is not one: give image files, or omit --num-crops."
            )
        store = None if general.size is None else round(STORAGE_SCALE * general.size)
        return open_source(
            data[0],
            side=store,
            limit=general.limit,
            seed=general.seed,
            labels=labels,
            keep_unlabeled="label" not in make_task(settings, general.size or LARGEST_VIEW).required_targets(),
            download=download,
            storage=general.storage,
        )
    if labels is not None:
        raise UserError("--labels does not apply to photos: omit it.")
    if general.limit is not None:
        raise UserError(f"--limit does not apply to photos: use --num-crops {general.limit} instead.")
    if general.storage == "encoded":
        raise UserError(
            "--storage encoded does not apply to photos, which are kept in memory at full resolution: omit it."
        )
    images = photos(spec)
    name = images[0].name if len(images) == 1 else f"{len(images)} photos"
    pixels = [photo.image for photo in images]
    count = general.num_crops or PHOTO_CROPS
    content_ids = torch.tensor([photo.content_id for photo in images])
    size = general.size or PHOTO_VIEW
    return Crops(name, pixels, count, size, general.seed, settings.cropping, content_ids=content_ids)


def require_photos_for_crops(data: Sequence[str], settings: Settings) -> None:
    """Raise an error if settings of the crops of photos are given for another source, which would ignore them.

    Only called for a new run: settings of a resumed one may be defaults of an earlier version.
    """
    if not data or is_photos(as_paths(data)):
        return
    offers = offered(settings.general.task, settings.general.encoder)
    own = [setting for setting in offers if setting.section == "photos"]
    for setting in own:
        if getattr(settings.cropping, setting.name) != setting.default:
            flag = shortest_flag(setting, offers)
            raise UserError(f"{flag} applies to photos, and {data[0]} is not one: give image files, or omit {flag}.")


def _check_targets(name: str, task: Task, source: Source) -> None:
    missing = [target for target in task.required_targets() if target not in source.targets]
    if missing:
        if "multilabel" in source.targets and missing == ["label"]:
            raise UserError(
                f"the task {name} requires one class per image, but {source.name} has several per image: pretrain with "
                "another task and probe it, or give --labels a file with one label per image."
            )
        available = ", ".join(sorted(source.targets)) or "none"
        raise UserError(
            f"the task {name} requires images with {' and '.join(missing)}, but {source.name} has {available}: "
            "choose another source."
        )


def describe_encoder(name: str, encoder: Encoder, options: dict[str, Any], size: int) -> dict[str, Any]:
    """The content of `encoder.json`: everything needed to rebuild the encoder."""
    filters = next((key for key, weight in encoder.named_parameters() if weight.ndim == 4), None)
    return {
        "name": name,
        "options": {key: to_yaml(value) for key, value in options.items()},
        "size": size,
        "layers": {key: [layer.channels, layer.stride] for key, layer in encoder.layers.items()},
        "filters": filters,
    }


def not_pretrained(options: dict[str, Any], section: str = "") -> dict[str, Any]:
    """The options of the same architecture with random weights, so that nothing is downloaded.

    Args:
        options: of the encoder, or settings by key.
        section: "encoder." for settings by key.
    """
    pretrained, small = f"{section}pretrained", f"{section}small"
    if not options.get(pretrained):
        return options
    stem = {small: False} if options.get(small, False) is None else {}  # pretrained models keep the 7 x 7 stem
    return {**options, pretrained: False, **stem}


def from_checkpoint(config: dict[str, Any]) -> dict[str, Any]:
    """The settings, by key, of a run whose checkpoint has its weights: its initial ones are not needed any more."""
    return {**not_pretrained(config, "encoder."), "encoder_from": None}


def fresh_encoder(description: dict[str, Any], seed: int) -> Encoder:
    """The encoder that `encoder.json` describes, with random weights; `fit` or `fit_like` is still to be called."""
    options = not_pretrained({key: from_yaml(value) for key, value in description["options"].items()})
    with seeded_rng(seed, "weights"):
        return make_encoder(description["name"], **options)


def load_encoder(folder: RunFolder) -> Encoder:
    """The trained encoder of a run, in eval mode on the CPU."""
    weights, description = folder.read_encoder()
    try:
        encoder = fresh_encoder(description, 0)
        encoder.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"the weights in {folder.weights} do not match encoder.json: restore encoder.json and encoder.safetensors "
            "from the same run."
        ) from error
    if not all(value.isfinite().all() for value in encoder.state_dict().values()):
        raise UserError(
            f"the weights in {folder.weights} contain infinity or NaN: restore the file, or pretrain again with a "
            "lower --learning-rate."
        )
    return encoder.eval().to(memory_format=torch.channels_last)


def load_task(folder: RunFolder) -> Task | None:
    """The task of a run, with its settings; None for a run that has none."""
    if not has_pretext_task(folder.read_config(complete=False)):
        return None
    return make_task(_saved_settings(folder)[1], int(folder.read_description()["size"]))


def load_pretraining(folder: RunFolder, named: str | Path | None = None) -> tuple[Pretraining, int]:
    """Load the last checkpoint of a run: task, encoder and heads on the CPU, the training images, and the step.

    Args:
        folder: the run.
        named: source given by the user; the run's own source is downloaded only if it is the same.
    """
    data, settings, labels = _saved_settings(folder)
    pretraining = build(data, settings, labels, download=[str(named)] == data).pretraining
    saved = Checkpoints(folder.checkpoints, folder.identity()).load()
    if saved is None:
        raise UserError(
            f"no checkpoint in {folder.path}: continue training with "
            f"`selftaught pretrain --resume --out {folder.path}`."
        )
    try:
        pretraining.encoder.load_state_dict(saved["encoder"])
        pretraining.heads.load_state_dict(saved["heads"])
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"the checkpoint in {folder.checkpoints} does not match its run, or {pretraining.source.name} has other "
            "images than during training: restore the files of the run."
        ) from error
    return pretraining, int(saved["step"])


def unseen_source(folder: RunFolder) -> Source:
    """Held-out images of a run: the test part of its source, or other crops of its photos.

    Without a test part these are all images of the source, so they include the training images.
    """
    data, settings, labels = _saved_settings(folder)
    if is_photos(as_paths(data)):
        others = replace(settings.general, seed=settings.general.seed + 1)
        return build_source(data, replace(settings, general=others))
    size = settings.general.size or LARGEST_VIEW
    unseen = open_unseen(data[0], round(STORAGE_SCALE * size), labels=labels, download=False)
    return with_real_images(make_task(settings, size), unseen, settings)


def open_unseen(
    data: str | Path, side: int, limit: int | None = None, labels: Path | None = None, download: bool = True
) -> Source:
    """Open the test part of a source, or all images if there is none."""
    try:
        return open_source(data, side=side, split="test", limit=limit, labels=labels, download=download)
    except NoTestPart:
        return open_source(data, side=side, split="all", limit=limit, labels=labels, download=download)


def saved_config(folder: RunFolder) -> tuple[list[str], dict[str, Any], str | None]:
    """Data, settings by key and label file of a run.

    A config that was written by hand or by an older version may name settings without their section; whoever looks a
    setting up by its key, as the check for downloads does, has to find those, too.
    """
    config = {name: from_yaml(value) for name, value in folder.read_config().items()}
    data, labels = list(config.pop("data")), config.pop("labels", None)
    return data, resolve(config)[1], labels


def _saved_settings(folder: RunFolder) -> tuple[list[str], Settings, Path | None]:
    """Data, settings and label file of a run; an encoder with given weights is replaced by a random one."""
    data, config, labels = saved_config(folder)
    return data, Settings.of(**from_checkpoint(config)), None if labels is None else Path(labels)
