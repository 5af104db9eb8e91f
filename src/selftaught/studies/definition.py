"""The YAML of a study: a question, the variants to compare, their evaluations, and the comparison that decides.

question: Do four angles give better features than two?
paper: Gidaris, Singh, Komodakis, ICLR 2018, arXiv 1803.07728, section 4.1
finding: Four angles are better than two or eight.
source: cifar10
settings: {task: {name: rotation}, steps: 700}
variants: {four angles: {}, two angles: {task: {angles: [0, 180]}}}
comparison: {variant: four angles, against: two angles, layer: layer2}
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from selftaught.errors import UserError, readable, unknown

Text = Annotated[str, Field(min_length=1, max_length=4000)]
OptionalText = Annotated[str, Field(max_length=4000)]
Name = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^/\\|\n]*\w[^/\\|\n]*$")]
Values = Mapping[str, Any]
"""Settings of `selftaught pretrain`, nested or dotted."""
Source = Text | Annotated[list[Text], Field(min_length=1, max_length=100_000)]
"""A source as `pretrain` takes it: a name or path, or several photos."""
Expected = Literal["higher", "lower", "equal"]

RANDOM, FROM_SCRATCH = "random weights", "from scratch"
"""Baselines of a comparison, beside other variants: their results come with every evaluation."""
RULES = ("best", "first", "last")
"""Rules that choose a layer; any other text is the name of one."""


class Strict(BaseModel):
    """Base model: unknown keys are errors, no numbers from text, finite numbers only."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Evaluation(Strict):
    """One evaluation of every run: exactly one of `probe`, `few_labels`, `finetune` and `audit`."""

    probe: Text | dict[str, Any] | None = None
    """A probe of every layer: its name, or `{name: sgd, epochs: 10}` with its settings."""
    few_labels: dict[str, Any] | None = None
    """A probe of the best layer with few labels: settings of `selftaught evaluate`, such as `labels_per_class`."""
    finetune: dict[str, Any] | None = None
    """Fine-tuning: settings of `selftaught evaluate`."""
    audit: dict[str, Any] | None = None
    """A shortcut audit: `images` and `seeds`. It has no accuracies to compare; its findings are listed."""
    source: Source | None = None
    """Labeled images; by default the source of the study."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Number of training images."""
    size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Side of the views in pixels; by default that of pretraining."""
    pooling: Literal["average", "max", "bilinear"] = "average"
    """Pooling of feature maps, for a probe."""
    dimensions: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of pooled features of a layer, for a probe; by default that of the probe."""

    @property
    def kind(self) -> str:
        """probe, few_labels, finetune or audit."""
        return next(name for name in KINDS if getattr(self, name) is not None)

    @property
    def title(self) -> str:
        """For headings: "ridge probe", "few labels"."""
        if self.probe is not None:
            return f"{self.probe if isinstance(self.probe, str) else self.probe.get('name', 'ridge')} probe"
        return {"few_labels": "few labels", "finetune": "fine-tuning", "audit": "audit"}[self.kind]

    @model_validator(mode="after")
    def _has_one_kind(self) -> Self:
        if sum(getattr(self, name) is not None for name in KINDS) != 1:
            raise ValueError(f"an evaluation needs exactly one of {', '.join(KINDS)}")
        return self


KINDS = ("probe", "few_labels", "finetune", "audit")


class Comparison(Strict):
    """A difference in top-1 accuracy, named beforehand."""

    variant: Text
    against: Text
    """Another variant, or "random weights" of the same encoder, or "from scratch" (the same fine-tuning)."""
    layer: Text = "best"
    """Layer of a probe: its name, first, last, or best (chosen on held-out training images)."""
    against_layer: Text | None = None
    """The layer of the other side; by default by the same rule."""
    expected: Expected = "higher"
    """Expected sign of the accuracy of `variant` minus that of `against`; "equal" is within `margin`."""
    margin: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Largest difference that counts as equal."""
    labels: Text | None = None
    """Number of labels of few labels or fine-tuning, such as "20 per class"; by default the first."""
    evaluation: Annotated[int, Field(ge=1)] = 1
    """Which evaluation, from 1."""

    @model_validator(mode="after")
    def _has_its_margin(self) -> Self:
        if (self.expected == "equal") != (self.margin is not None):
            raise ValueError("`margin` belongs to `expected: equal`, and only to that")
        return self


class Trends(Strict):
    """The figure of every probe: accuracy over a quantity in which variants differ, one chart per layer."""

    axis: Text
    """Name of the quantity, such as "number of images"."""
    ticks: Annotated[list[Annotated[str, Field(max_length=20)]], Field(min_length=1, max_length=20)]
    """Values of the quantity, from left to right."""
    lines: Annotated[dict[Text, list[Text]], Field(min_length=1, max_length=12)]
    """Name of a line -> its variants, one for each value."""
    levels: Annotated[list[Text], Field(max_length=3)] = []
    """Variants that are drawn as horizontal lines."""

    @property
    def variants(self) -> list[str]:
        """All variants that are drawn."""
        return [*(name for line in self.lines.values() for name in line), *self.levels]

    @model_validator(mode="after")
    def _lines_have_all_values(self) -> Self:
        for name, line in self.lines.items():
            if len(line) != len(self.ticks):
                needed = f"needs one variant for each of the {len(self.ticks)} `ticks`"
                raise ValueError(f"the line {readable(repr(name))} {needed}, got {len(line)}")
        return self


class Changes(Strict):
    """Changes of the study at one scale."""

    source: Source | None = None
    settings: Values = {}
    """Override those of the study."""
    variants: Mapping[Name, Values] = {}
    """Override those of the variants, by name."""
    seeds: Annotated[int, Field(ge=1, le=100)] | None = None
    evaluations: list[Evaluation] | None = None


class Scales(Strict):
    """Two sizes of the same study."""

    small: Changes = Changes()
    """For a laptop."""
    full: Changes | None = None
    """That of the paper, or as near as the package allows."""


class Study(Strict):
    """A study."""

    question: Text
    paper: OptionalText = ""
    """Authors, venue, identifier, and where the finding is; empty for a question of your own."""
    finding: OptionalText = ""
    """Finding of the paper, with its figures where it has some; or what is known already."""
    source: Source
    """Images to pretrain on and, unless an evaluation has its own, to evaluate on."""
    settings: Values = {}
    """Settings of `selftaught pretrain` that all variants share."""
    variants: Annotated[dict[Name, Values], Field(min_length=1, max_length=60)]
    """Name -> settings that differ. A variant may have its own `source`, and `baseline` instead of pretraining."""
    comparison: Comparison
    """The comparison that decides, named before the runs."""
    further: list[Comparison] = []
    """Further comparisons, reported without a correction for their number."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    evaluations: Annotated[list[Evaluation], Field(min_length=1, max_length=10)] = [Evaluation(probe="ridge")]
    scales: Scales = Scales()
    trends: Trends | None = None
    """Draw accuracy over a quantity instead of over layers."""
    note: Text | None = None
    """How the study differs from the paper, and what could explain another result."""

    @field_validator("variants")
    @classmethod
    def _names_differ_as_folders(cls, variants: dict[str, Values]) -> dict[str, Values]:
        if len({folder_name(name) for name in variants}) < len(variants):
            raise ValueError("two names of variants give the same name of a folder: use other letters")
        return variants

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for scale in (self.scales.small, self.scales.full or Changes()):
            for name in scale.variants:
                if name not in self.variants:
                    raise unknown("variant", readable(name), self.variants)
        for comparison in (self.comparison, *self.further):
            for name, also in ((comparison.variant, ()), (comparison.against, (RANDOM, FROM_SCRATCH))):
                if name not in self.variants and name not in also:
                    raise unknown("variant", readable(name), [*self.variants, *also])
        for name in self.trends.variants if self.trends else ():
            if name not in self.variants:
                raise unknown("variant", readable(name), self.variants)
        return self


EXPECTED = {
    "string_type": "text",
    "int_type": "an integer",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "names with values, as in `name: value`",
    "mapping_type": "names with values, as in `name: value`",
    "model_type": "names with values, as in `name: value`",
}
"""Types of pydantic's errors about types, in words."""


def folder_name(name: str) -> str:
    """A variant's name as part of a folder's: letters, digits and hyphens."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name).split())


def parse_study(content: Mapping[str, Any], place: str) -> Study:
    """Validate the content of a study's YAML.

    Args:
        content: plain values.
        place: the name of the file, for errors.

    Raises:
        UserError: a key is unknown or missing, or a value is invalid: one sentence about the first such place.
    """
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{place}: {_sentence(error)}") from error


def _sentence(error: ValidationError) -> str:
    """The first error; unknown keys come first, because they explain missing ones."""
    errors = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    first = errors[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        owner = ".".join(path[:-1])
        kind = f"key of {owner}" if owner else "key of a study"
        return str(unknown(kind, readable(path[-1]), _fields(first["loc"][:-1])))
    where = ".".join(path)
    if first["type"] == "missing":
        return f"the key `{where}` is missing."
    if (context := first.get("ctx")) and isinstance(context.get("error"), ValueError):
        text = str(context["error"])
        return f"{where}: {text}" if where and not isinstance(context["error"], UserError) else text
    given = readable(repr(first["input"]))
    given = given if len(given) < 60 else f"{given[:60]} ..."
    if (expected := EXPECTED.get(first["type"])) is not None:
        return f"{where} expects {expected}, got {given}."
    return f"{where}: {first['msg']}, got {given}."


def _fields(path: Iterable[str | int]) -> list[str]:
    """The keys that exist at a place in a study."""
    owners: dict[str, type[Strict]] = {
        "comparison": Comparison,
        "further": Comparison,
        "evaluations": Evaluation,
        "scales": Scales,
        "trends": Trends,
    }
    owner: type[Strict] = Study
    for part in path:
        if part in ("small", "full"):
            owner = Changes
        elif part in owners:
            owner = owners[str(part)]
    return list(owner.model_fields)
