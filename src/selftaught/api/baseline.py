"""Baselines as run folders: encoders that were not pretrained, for the same probes, analyses and reports."""

from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from selftaught.api.pretrain import numbered
from selftaught.api.run import Run
from selftaught.api.saving import write_encoder_run
from selftaught.config.build import LARGEST_VIEW, build_source, describe_encoder
from selftaught.config.settings import General, Settings, absolute
from selftaught.config.types import to_yaml
from selftaught.data.photos import as_paths
from selftaught.encoders import make_encoder
from selftaught.errors import UserError
from selftaught.evaluation.baselines import own_encoder, prepare, title
from selftaught.runs.claim import claimed
from selftaught.runs.folder import RunFolder
from selftaught.training.plan import choose_device
from selftaught.training.randomness import seeded_rng


def baseline(
    name: str,
    data: str | Path | Sequence[str | Path],
    *,
    encoder: str | None = None,
    out: str | Path | None = None,
    input_mode: str = "color",
    size: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    labels: str | Path | None = None,
    pretrained: bool = False,
    device: str = "auto",
    **options: Any,
) -> Run:
    """Write the run folder of an encoder that was not pretrained.

    Args:
        name: "random", "kmeans", "pca", "dictionary", "scattering", "pixels", or "timm:NAME" for published weights.
        data: source of images, for k-means, PCA, dictionaries and batch-norm statistics.
        encoder: the encoder of "random", "kmeans" and "pca"; "convnet" where None.
        out: run folder, new or empty; by default a new one under `runs/`.
        input_mode: input preprocessing of the encoder, as the pretext task to compare with uses it.
        size: side of the views in pixels; by default that of the images, at most 128.
        seed: random seed.
        limit: number of images to use, a random subset.
        labels: CSV file with path and label.
        pretrained: allow the published weights of "timm:NAME" to be downloaded.
        device: auto, cpu, cuda ...
        options: options of the encoder, such as `width`.

    Returns:
        The run, finished after 0 steps.

    Raises:
        UserError: the baseline, the encoder, the images or the folder cannot be used.
    """
    chosen = _encoder_name(name, encoder, pretrained)
    settings = Settings.of(
        encoder=chosen, size=size, seed=seed, limit=limit, **{f"encoder.{key}": value for key, value in options.items()}
    )
    sources = [absolute(word) for word in as_paths(data)]
    label_file = None if labels is None else absolute(str(labels))
    stem = f"{name}-{chosen}-{Path(sources[0]).stem}" if sources else name
    folder = RunFolder(Path(out) if out is not None else numbered(Path("runs") / stem.replace(":", "-")))
    with claimed(folder):
        began, where = monotonic(), choose_device(device)
        source = build_source(sources, settings, None if label_file is None else Path(label_file))
        side = size or min(source.side, LARGEST_VIEW)
        built_with = {**settings.encoder, "input_mode": input_mode, "size": side}
        if name.startswith("timm:"):
            built_with["pretrained"] = True
        # Another purpose than "weights": the probe's own random weights are then independent of those of this run.
        with seeded_rng(seed, "baseline"):
            made = make_encoder(chosen, **built_with)
            made.fit(source)
        prepare(name, made, source, side, where, seed)
        config: dict[str, Any] = {
            "data": sources,
            "labels": label_file,
            "task": "baseline",
            "baseline": name,
            "encoder": chosen,
        }
        config |= {"size": side, "seed": seed, "limit": limit, "steps": 0, "device": str(where)}
        config |= {f"encoder.{key}": value for key, value in built_with.items() if key != "size"}
        config = {key: to_yaml(value) for key, value in config.items()}
        description = describe_encoder(chosen, made, built_with, side)
        write_encoder_run(folder, made, description, source, where, config, 0, monotonic() - began)
    return Run(folder.path)


def _encoder_name(name: str, encoder: str | None, pretrained: bool) -> str:
    title(name)
    own = name if own_encoder(name) else None
    if own is None:
        return encoder or General.encoder
    if encoder is not None:
        raise UserError(f"the baseline {name} is an encoder of its own: remove --encoder.")
    if name.startswith("timm:") and not pretrained:
        raise UserError(f"the published weights of {name} may have to be downloaded: give --pretrained to allow it.")
    return own
