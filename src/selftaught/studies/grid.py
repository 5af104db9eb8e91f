"""A study at one scale, with the sources and seeds of the command: the variants with their settings, and the runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from selftaught.config.build import build, require_photos_for_crops
from selftaught.config.settings import BUDGETS, General, Settings, resolve
from selftaught.data.photos import as_paths
from selftaught.encoders import make_encoder
from selftaught.errors import UserError, readable
from selftaught.evaluation.baselines import FIXED, own_encoder, title
from selftaught.runs.sections import flatten
from selftaught.studies.definition import Changes, Evaluation, Study, folder_name

RESERVED = ("source", "baseline")
"""Keys of a variant that are no settings."""
BASELINE_SETTINGS = ("encoder", "size", "limit", "device")
"""Settings that a baseline shares with pretraining, beside those of its encoder."""


@dataclass(frozen=True)
class Variant:
    """A variant with all its settings but the seed."""

    name: str
    data: tuple[str, ...]
    """The source: one name or path, or several photos."""
    settings: Mapping[str, Any]
    """By name or dotted key, as `Settings.of` takes them; those of `api.baseline` for a baseline."""
    baseline: str | None = None
    """Name of a baseline that replaces pretraining."""

    @property
    def minutes(self) -> float | None:
        """The budget in minutes, which is converted to steps once; None for steps, epochs and baselines."""
        if self.baseline is not None:
            return None
        general = Settings.of(**self.settings).general
        return general.budget.minutes


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{folder_name(self.variant.name)}-{self.seed}"


@dataclass(frozen=True)
class Grid:
    """All runs of a study and their evaluations."""

    study: Study
    variants: tuple[Variant, ...]
    evaluations: tuple[Evaluation, ...]
    """Each with its own source."""
    seeds: int

    @cached_property
    def cells(self) -> list[Cell]:
        """All runs, in the order in which they are done; a baseline without parameters has one.

        Each variant has a result early. Then come the other seeds of the variants that decide.
        """
        cells = [
            Cell(variant, seed)
            for seed in range(self.seeds)
            for variant in self.variants
            if not (seed and variant.baseline in FIXED)
        ]
        decide = (self.study.comparison.variant, self.study.comparison.against)
        return sorted(cells, key=lambda cell: (cell.seed > 0, cell.seed > 0 and cell.variant.name not in decide))

    def variant(self, name: str) -> Variant:
        """The variant of this name."""
        return next(variant for variant in self.variants if variant.name == name)


def make_grid(
    study: Study,
    scale: str,
    data: Sequence[str] = (),
    probe_data: str | None = None,
    seeds: int | None = None,
) -> Grid:
    """Resolve a study.

    Args:
        study: its definition.
        scale: "small" or "full".
        data: sources that replace that of the study, or those of variants ("VARIANT=SOURCE").
        probe_data: source of labeled images that replaces those of all evaluations.
        seeds: number of seeds, instead of the study's.

    Raises:
        UserError: the study has no such scale, or a setting of a variant does not exist.
    """
    changes = getattr(study.scales, scale)
    if changes is None:
        raise UserError(f"the study has no --scale {scale}: use --scale small.")
    named = dict(item.split("=", 1) for item in data if item.split("=", 1)[0] in study.variants and "=" in item)
    plain = [item for item in data if item.split("=", 1)[0] not in named]
    source = _sources(plain or changes.source or study.source)
    variants = tuple(_variant(study, changes, name, source, named.get(name)) for name in study.variants)
    evaluations = tuple(
        one.model_copy(update={"source": probe_data or one.source or _single(source)})
        for one in changes.evaluations or study.evaluations
    )
    return Grid(study, variants, evaluations, seeds or changes.seeds or study.seeds)


def _variant(study: Study, changes: Changes, name: str, source: tuple[str, ...], replaced: str | None) -> Variant:
    own = {**study.variants[name], **changes.variants.get(name, {})}
    layers = [study.settings, changes.settings, study.variants[name], changes.variants.get(name, {})]
    flat = _merged([{key: value for key, value in layer.items() if key not in RESERVED} for layer in layers])
    baseline = own.get("baseline")
    if "seed" in flat:
        raise in_variant(name, UserError("a study sets the seed of every run: give the number of `seeds` instead."))
    if "source" in own or replaced:
        source = _sources(replaced or own["source"])
    try:
        if baseline is None:
            Settings.of(**flat)
        else:
            flat = _of_baseline(str(baseline), flat, flatten(study.variants[name]))
    except UserError as error:
        raise in_variant(name, error) from error
    return Variant(name, source, flat, None if baseline is None else str(baseline))


def _merged(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings with later ones overriding earlier ones; of the budgets, the last one counts."""
    merged: dict[str, Any] = {}
    for layer in layers:
        flat = flatten(layer)
        if any(name in flat for name in BUDGETS):
            merged = {key: value for key, value in merged.items() if key not in BUDGETS}
        if "task" in flat and flat["task"] != merged.get("task", flat["task"]):
            # another task has other settings
            merged = {key: value for key, value in merged.items() if not key.startswith("task.")}
        if "encoder" in flat and flat["encoder"] != merged.get("encoder", flat["encoder"]):
            merged = {key: value for key, value in merged.items() if not key.startswith("encoder.")}
        if "optimizer" in flat and flat["optimizer"] != merged.get("optimizer", flat["optimizer"]):
            merged = {key: value for key, value in merged.items() if not key.startswith("optimizer.")}
        merged |= flat
    return merged


def _of_baseline(name: str, flat: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `api.baseline`: what a study sets for pretraining does not apply to a baseline."""
    title(name)
    if name.startswith("timm:"):
        raise UserError("a study does not download published weights: use `selftaught baseline` for them.")
    if own_encoder(name):
        flat = {key: value for key, value in flat.items() if not key.startswith("encoder") or key in own}
        encoder: str = name
    else:
        encoder = str(flat.get("encoder", General.encoder))
    _, values = resolve({"encoder": encoder, **{key: value for key, value in own.items() if key not in RESERVED}})
    kept = {
        key: value
        for key, value in {**flat, **values}.items()
        if key in BASELINE_SETTINGS or key.startswith("encoder.")
    }
    if own_encoder(name):
        kept.pop("encoder", None)
    return {key.removeprefix("encoder."): value for key, value in kept.items()}


def in_variant(name: str, error: UserError) -> UserError:
    """The error with the name of the variant."""
    return UserError(f"variant {readable(name)!r}: {error}")


def _sources(source: str | Sequence[str]) -> tuple[str, ...]:
    return (source,) if isinstance(source, str) else tuple(source)


def _single(source: tuple[str, ...]) -> str | list[str]:
    return source[0] if len(source) == 1 else list(source)


def try_baseline(variant: Variant) -> list[str]:
    """The layers of a baseline's encoder, which is built and discarded."""
    assert variant.baseline is not None
    options = {key: value for key, value in variant.settings.items() if key not in BASELINE_SETTINGS}
    name = variant.baseline if own_encoder(variant.baseline) else str(variant.settings.get("encoder", General.encoder))
    size = variant.settings.get("size") or 32
    return list(make_encoder(name, **{**options, "size": size}).layers)


def build_variant(variant: Variant) -> Any:
    """Everything that pretraining needs, for seed 0.

    Raises:
        UserError: a setting or the images cannot be used.
    """
    settings = Settings.of(**variant.settings)
    sources = as_paths(list(variant.data))
    require_photos_for_crops(sources, settings)
    return build(sources, settings)
