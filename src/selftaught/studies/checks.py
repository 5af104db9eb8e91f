"""Checks of a study before anything is trained: settings of evaluations, labeled images, names in comparisons."""

from collections.abc import Mapping, Sequence
from typing import Any

from selftaught.config.build import LARGEST_VIEW, STORAGE_SCALE
from selftaught.config.settings import fields_of
from selftaught.config.types import describe, has_type
from selftaught.data import is_photos, open_splits, photos
from selftaught.errors import UserError, require_between, unknown
from selftaught.evaluation.baselines import FIXED
from selftaught.evaluation.features import require_one_label
from selftaught.evaluation.few_labels import count_names
from selftaught.evaluation.finetuning import FineTuning
from selftaught.evaluation.probes import probe_class
from selftaught.limits import SIZE
from selftaught.studies.definition import FROM_SCRATCH, RANDOM, RULES, Comparison, Evaluation
from selftaught.studies.grid import Grid, Variant, in_variant
from selftaught.studies.results import finetuning_settings, matching_label, probe_of

AUDIT = {"images": int, "seeds": int}
"""Settings of an audit."""


def common_settings(grid: Grid) -> Mapping[str, Any]:
    """The settings of the first variant that is pretrained."""
    return next((variant.settings for variant in grid.variants if variant.baseline is None), {})


def check_source(variant: Variant) -> None:
    """Check that the images of a baseline can be opened."""
    if is_photos(list(variant.data)):
        photos(list(variant.data))
    else:
        open_splits(variant.data[0], side=variant.settings.get("size"), limit=variant.settings.get("limit"))


def check_evaluation(grid: Grid, number: int) -> int:
    """Check the settings and the images of an evaluation; returns its number of training and test images."""
    evaluation = grid.evaluations[number - 1]
    try:
        _check_settings(evaluation)
        if evaluation.audit is not None:
            return 0
        source = evaluation.source
        if not isinstance(source, str) or is_photos(source):
            raise UserError("needs labeled images, and photos have no labels: give its `source`, or --probe-data.")
        zoom = probe_class(probe_of(evaluation)[0])().zoom if evaluation.probe is not None else STORAGE_SCALE
        size = evaluation.size or common_settings(grid).get("size") or LARGEST_VIEW
        require_between("the size", size, *SIZE)
        train, test = open_splits(source, side=round(zoom * size), limit=evaluation.limit)
        require_one_label(train, "a study")
        return len(train) + len(test)
    except UserError as error:
        raise UserError(f"evaluation {number} ({evaluation.title}): {error}") from error


def _check_settings(evaluation: Evaluation) -> None:
    """Check names and types of the settings of an evaluation."""
    if evaluation.audit is not None:
        _check_values(evaluation.audit, AUDIT, "audit")
    elif evaluation.probe is not None:
        name, settings = probe_of(evaluation)
        kind = probe_class(name)
        _check_values(settings, {one.name: one.annotation for one in fields_of(kind, "", "probe")}, f"the probe {name}")
        kind(**settings)
    else:
        settings = finetuning_settings(evaluation)
        hints = {one.name: one.annotation for one in fields_of(FineTuning, "", "")}
        _check_values(settings, hints, evaluation.title)
        FineTuning(**settings)


def _check_values(settings: Mapping[str, Any], types: Mapping[str, Any], owner: str) -> None:
    for key, value in settings.items():
        if key not in types:
            raise unknown(f"setting of {owner}", key, types)
        if not has_type(value, types[key]):
            raise UserError(f"{key} expects {describe(types[key])}, got {value!r}.")


def check_comparison(grid: Grid, comparison: Comparison, layers: Mapping[str, Sequence[str]]) -> None:
    """Check that what a comparison names exists."""
    if comparison.evaluation > len(grid.evaluations):
        raise UserError(
            f"a comparison names evaluation {comparison.evaluation}, but the study has {len(grid.evaluations)}."
        )
    evaluation = grid.evaluations[comparison.evaluation - 1]
    if evaluation.audit is not None:
        raise UserError("an audit has no accuracies to compare: name the number of another `evaluation`.")
    if comparison.variant == comparison.against and comparison.against_layer in (None, comparison.layer):
        raise UserError(f"a comparison has {comparison.variant!r} on both sides: name another variant.")
    if evaluation.probe is None:
        _check_labels(comparison, evaluation)
    else:
        _check_layers(grid, comparison, layers)


def _check_labels(comparison: Comparison, evaluation: Evaluation) -> None:
    """Check a comparison of few labels or fine-tuning."""
    settings = FineTuning(**finetuning_settings(evaluation))
    if comparison.layer != "best" or comparison.against_layer is not None:
        raise UserError(f"a comparison of {evaluation.title} has no `layer` to name: leave it out.")
    if comparison.against == FROM_SCRATCH and not settings.from_scratch:
        raise UserError('a comparison with "from scratch" needs `from_scratch: true` in its evaluation.')
    if comparison.against == RANDOM and not settings.frozen:
        raise UserError('"random weights" belongs to probes and few labels: compare fine-tuning with "from scratch".')
    if comparison.labels is not None:
        matching_label(comparison.labels, count_names(settings.labels_per_class, settings.label_fraction))


def _check_layers(grid: Grid, comparison: Comparison, layers: Mapping[str, Sequence[str]]) -> None:
    """Check a comparison of a probe."""
    if comparison.against == FROM_SCRATCH:
        raise UserError('"from scratch" belongs to few labels and fine-tuning: name another `evaluation`.')
    if comparison.labels is not None:
        raise UserError("`labels` belongs to few labels and fine-tuning, and a probe has all labels: leave it out.")
    if comparison.against == RANDOM and grid.variant(comparison.variant).baseline in FIXED:
        raise UserError(f"{comparison.variant!r} has no parameters, so there are no random weights to compare it with.")
    other = comparison.variant if comparison.against == RANDOM else comparison.against
    sides = ((comparison.variant, comparison.layer), (other, comparison.against_layer or comparison.layer))
    for name, layer in sides:
        if layer not in RULES and layer not in layers[name]:
            raise in_variant(name, unknown("layer", layer, [*layers[name], *RULES]))
