"""Pydantic models of the results in a run folder: probes, analyses, evaluations with labels and pictures."""

from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, model_validator

from selftaught.runs.models import Amount, Count, Model, Name, Share, Words


class ProbedLayer(Model):
    """One layer of a probe."""

    layer: Name
    accuracy: Share | None = None
    map: Share | None = None
    random: Share | None = None
    std: Amount | None = None
    random_std: Amount | None = None
    dimensions: Count | None = None
    penalty: Annotated[float | None, Field(alias="lambda")] = None


class IntervalOfDifference(Model):
    """A difference of two accuracies with its 95 % interval."""

    value: Annotated[float, Field(ge=-1, le=1)]
    low: Annotated[float, Field(ge=-1, le=1)]
    high: Annotated[float, Field(ge=-1, le=1)]


class ProbedBaseline(Model):
    """The best layer of a further baseline of a probe."""

    difference: IntervalOfDifference | None = None

    title: Name
    layer: Name
    accuracy: Share | None = None
    map: Share | None = None


class LayerChoice(Model):
    """The two best layers of a probe on held-out images."""

    note: Words = ""


ProbeSetting = StrictBool | float | Words | list[StrictBool | float | Words] | None


class Probe(Model):
    """`probes/*.json`."""

    layers: Annotated[list[ProbedLayer], Field(min_length=1, max_length=1000)]
    data: Words | None = None
    labels: Words | None = None
    metric: Literal["accuracy", "map"] = "accuracy"
    chance: Share | None = None
    pixels: Share | None = None
    baselines: Annotated[list[ProbedBaseline], Field(max_length=100)] = []  # noqa: RUF012 - pydantic copies it
    train: Count | None = None
    test: Count | None = None
    probe: Name | None = None
    settings: Annotated[dict[Name, ProbeSetting] | None, Field(max_length=100)] = None
    pooling: Name | None = None
    dimensions: Count | None = None
    layer_choice: LayerChoice | None = None
    spread: Words | None = None
    seeds: Count | None = None
    overlap: StrictBool | Count | None = None
    step: Count | None = None

    @model_validator(mode="after")
    def _layers_differ(self) -> Self:
        if len({row.layer for row in self.layers}) < len(self.layers):
            raise ValueError("a layer is listed twice")
        if any(getattr(row, self.metric) is None for row in self.baselines):
            raise ValueError(f"a baseline has no {self.metric}")
        return self


class AuditRow(Model):
    """One transformation of an audit."""

    change: Name
    kind: Literal["trained", "removed", "planted", "control", "off", "on"]
    accuracy: Share
    expected: Share
    margin: Annotated[float, Field(ge=0, le=1e6)]
    uses_cue: StrictBool
    verdict: Words


class Audit(Model):
    """`audit/*.json`."""

    data: Words
    chance: Share
    rows: Annotated[list[AuditRow], Field(min_length=1, max_length=300)]
    step: Count | None = None


Histogram = Annotated[list[Annotated[int, Field(ge=0, le=10**15)]], Field(min_length=1, max_length=1000)]


class Distances(Model):
    """One layer under one transformation."""

    layer: Name
    change: Name
    nearer: Share
    random: Share
    own: Histogram
    others: Histogram


class Invariance(Model):
    """`invariance/*.json`."""

    data: Words
    rows: Annotated[list[Distances], Field(min_length=1, max_length=1000)]
    step: Count | None = None

    @model_validator(mode="after")
    def _is_a_grid(self) -> Self:
        cells = [(row.layer, row.change) for row in self.rows]
        layers, changes = {layer for layer, _ in cells}, {change for _, change in cells}
        if len(set(cells)) < len(cells) or len(cells) != len(layers) * len(changes):
            raise ValueError("every layer must have one row per change")
        if len({len(bins) for row in self.rows for bins in (row.own, row.others)}) > 1:
            raise ValueError("all histograms must have the same number of bins")
        return self


class Training(Model):
    """`result.npz` of one training of an evaluation with labels, or of a transfer, without its arrays."""

    metrics: Annotated[dict[str, Share] | None, Field(max_length=20)] = None
    held_out: Share
    learning_rate: Amount | None = None
    step: Count | None = None
    layer: Name | None = None


class LabelRow(Model):
    """One way to train, with one number of labels."""

    name: Name
    accuracy: Share
    std: Amount | None = None
    low: Share
    high: Share
    accuracies: Annotated[list[Share] | None, Field(min_length=1, max_length=1000)] = None
    """Of every seed or draw."""


class LabelDifference(IntervalOfDifference):
    """The first way to train minus another one."""

    over: Name


class LabelCount(Model):
    """All ways to train with one number of labels."""

    name: Name
    images: Annotated[int, Field(ge=1, le=10**18)]
    rows: Annotated[list[LabelRow], Field(min_length=1, max_length=10)]
    differences: Annotated[list[LabelDifference], Field(max_length=10)]


class LabelCrossing(Model):
    """Where the first way to train is overtaken by training from scratch."""

    sentence: Words


class FineTune(Model):
    """`finetune/*.json`."""

    data: Words
    chance: Share
    test: Count
    repeated: Name
    results: Annotated[list[LabelCount], Field(min_length=1, max_length=100)]
    crossing: LabelCrossing | None = None
    step: Count | None = None

    @model_validator(mode="after")
    def _has_the_same_rows(self) -> Self:
        if any([row.name for row in each.rows] != [row.name for row in self.results[0].rows] for each in self.results):
            raise ValueError("every number of labels must have the same rows")
        return self


Difference = Annotated[float, Field(ge=-1, le=1)]


class TransferMetric(Model):
    """A metric of one encoder: its mean, standard deviation and values over seeds."""

    mean: Share
    std: Amount | None = None
    values: Annotated[list[Share], Field(min_length=1, max_length=1000)]


class TransferRow(Model):
    """One encoder."""

    name: Name
    metrics: Annotated[dict[str, TransferMetric], Field(min_length=1, max_length=20)]


class TransferDifference(Model):
    """One encoder minus another one."""

    of: Name
    over: Name
    value: Difference
    low: Difference
    high: Difference


class Transfer(Model):
    """`transfer/*.json`."""

    transfer: Literal["detection", "segmentation"]
    metrics: Annotated[dict[str, Name], Field(min_length=1, max_length=20)]
    data: Words
    test: Count
    rows: Annotated[list[TransferRow], Field(min_length=1, max_length=100)]
    differences: Annotated[list[TransferDifference], Field(max_length=100)]
    classes: Annotated[list[Name], Field(max_length=10_000)] = []  # noqa: RUF012 - pydantic copies it
    by_class: Annotated[dict[str, list[Share | None]], Field(max_length=100)] = {}  # noqa: RUF012
    notes: Annotated[list[Words], Field(max_length=100)] = []  # noqa: RUF012
    overlap: Count | None = None
    step: Count | None = None

    @model_validator(mode="after")
    def _has_the_same_metrics(self) -> Self:
        if any(set(row.metrics) != set(self.metrics) for row in self.rows):
            raise ValueError("every encoder must have the same metrics")
        if any(len(values) != len(self.classes) for values in self.by_class.values()):
            raise ValueError("every class must have a value")
        return self


class QualityValues(Model):
    """Measures of one layer; an effective rank is at most the number of channels."""

    rank: Amount
    std: Share
    alignment: Annotated[float, Field(ge=0, le=4 + 1e-6)]
    uniformity: Annotated[float, Field(ge=-8 - 1e-6, le=1e-6)]
    dead: Amount


class QualityRow(Model):
    """Feature quality of one layer."""

    layer: Name
    channels: Annotated[int, Field(ge=1, le=10**9)]
    trained: QualityValues
    random: QualityValues


class Quality(Model):
    """`quality/*.json`."""

    data: Words
    images: Count
    rows: Annotated[list[QualityRow], Field(min_length=1, max_length=1000)]
    step: Count | None = None


class PictureFacts(Model):
    """`pictures/*.json`: what a PNG of the same name shows."""

    kind: Name
    title: Words
    note: Words = ""
    step: Count | None = None
