"""Results of the evaluations of a run, one file each in `results/` of a study's folder, written once."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StrictBool

from selftaught.api.run import Run
from selftaught.errors import Interrupted, UserError, readable
from selftaught.evaluation.finetune_table import FineTuneTable
from selftaught.evaluation.probes import probe_class
from selftaught.evaluation.table import ProbeTable
from selftaught.runs.files import read_limited
from selftaught.runs.models import Count, Share, Words, mismatch
from selftaught.runs.parse import one_line, parse_arrays, parse_json
from selftaught.runs.result_models import Audit, AuditRow, FineTune, Probe, ProbedLayer
from selftaught.studies.definition import FROM_SCRATCH, RANDOM, Evaluation
from selftaught.training.interruption import Stop, stopped_at_once

MAX_BYTES = 2**30
"""Maximum size of a file of results."""


@dataclass(frozen=True)
class Result:
    """Result of one evaluation of one run."""

    facts: Mapping[str, Any]
    """Plain values, as the evaluation itself stores them, see `probes/`, `finetune/` and `audit/` of a run."""
    correct: Mapping[str, NDArray[np.bool_]]
    """Which test images are classified correctly. Of a probe: "layer/LAYER" (probe seeds, n) and "random/LAYER"
    (initializations, n). Of few labels and fine-tuning: "LABELS/ROW" (draws or seeds, n). Empty for an audit."""
    seed: int = 0
    """Pretraining seed of the run."""

    @property
    def layers(self) -> list[str]:
        """The layers of a probe, from the first to the last."""
        return [name.removeprefix("layer/") for name in self.correct if name.startswith("layer/")]

    @property
    def label_counts(self) -> list[str]:
        """Numbers of labels, such as "20 per class"."""
        return [str(each["name"]) for each in self.facts.get("results", ())]

    @property
    def rows(self) -> list[str]:
        """Ways to train with labels; the first one uses the pretrained encoder."""
        return [str(row["name"]) for row in self.facts["results"][0]["rows"]]

    @property
    def repeated(self) -> str:
        """What is repeated with each number of labels: "draws" or "seeds"; empty for a probe."""
        return str(self.facts.get("repeated", ""))

    def row_of(self, against: str) -> str | None:
        """The row of labels that "random weights" or "from scratch" stands for; None if there is none."""
        row = "probe, random weights" if against == RANDOM else FROM_SCRATCH
        return row if row in self.rows else None

    @property
    def signature(self) -> object:
        """Facts that are equal in the results of all seeds: layers, ways to train, test images, changes of an audit."""
        sizes = sorted((name, array.shape[1]) for name, array in self.correct.items())
        return sizes, [row["change"] for row in self.facts.get("rows", ())]

    def held_out(self, key: str) -> dict[str, float]:
        """Held-out accuracy of every layer of a probe; `key` is "held_out" or "random_held_out"."""
        return {str(row["layer"]): float(row[key]) for row in self.facts["layers"]}

    def npz(self) -> bytes:
        """The content of the file."""
        file = io.BytesIO()
        np.savez_compressed(file, facts=np.array(json.dumps(self.facts)), **self.correct)  # type: ignore[arg-type]
        return file.getvalue()


def read_result(path: Path, root: Path, evaluation: Evaluation) -> Result:
    """Read a file of results.

    Args:
        path: the file.
        root: the study's folder.
        evaluation: of which the results must be.

    Raises:
        UserError: it is damaged, or of another evaluation.
    """
    content = read_limited(path, root, MAX_BYTES)
    try:
        arrays = parse_arrays(content)
        facts = parse_json(str(arrays.pop("facts")).encode())
        if reason := _reason(facts, arrays, evaluation):
            raise ValueError(reason)
    except Exception as error:  # numpy, zip and JSON raise many exception types for damaged files
        raise UserError(
            f"{readable(str(path))} is damaged ({one_line(error)}): remove it and repeat the command."
        ) from error
    return Result(facts, arrays)


class StudiedLayer(ProbedLayer):
    """One layer of a probe, with what a page needs."""

    accuracy: Share
    held_out: Share
    random: Share | None = None
    random_held_out: Share | None = None


class StudiedProbe(Probe):
    """A probe, with what a page needs."""

    layers: Annotated[list[StudiedLayer], Field(min_length=1, max_length=1000)]  # type: ignore[assignment]
    data: Words
    chance: Share
    pixels: Share
    train: Count
    test: Count
    initializations: Count
    has_parameters: StrictBool


class StudiedRow(AuditRow):
    """One transformation of an audit, with what a page needs."""

    difference: float


class StudiedAudit(Audit):
    """An audit, with what a page needs."""

    rows: Annotated[list[StudiedRow], Field(min_length=1, max_length=300)]  # type: ignore[assignment]


def _reason(facts: Any, arrays: Mapping[str, NDArray[Any]], evaluation: Evaluation) -> str:
    """The reason why the content of a file is invalid; empty if it is valid."""
    if evaluation.audit is not None:
        return mismatch(StudiedAudit, facts)
    probed = evaluation.probe is not None
    if reason := mismatch(StudiedProbe if probed else FineTune, facts):
        return reason
    if probed:
        names = [f"layer/{row['layer']}" for row in facts["layers"]]
        if facts["has_parameters"]:
            names += [f"random/{row['layer']}" for row in facts["layers"]]
            if any(row.get("random") is None or row.get("random_held_out") is None for row in facts["layers"]):
                return "a layer has no accuracy of random weights"
    else:
        names = [f"{each['name']}/{row['name']}" for each in facts["results"] for row in each["rows"]]
    if set(names) != set(arrays):
        return "its arrays are not those of its table"
    if any(array.dtype != bool or array.ndim != 2 or not array.size for array in arrays.values()):
        return "its arrays are not truth values of test images"
    return "its arrays have different lengths" if len({array.shape[1] for array in arrays.values()}) > 1 else ""


def evaluate(run: Run, evaluation: Evaluation, stop: Stop) -> Result | None:
    """Evaluate a run.

    Returns:
        The result; None if it was stopped.
    """
    assert evaluation.source is not None
    source = evaluation.source
    if not isinstance(source, str):
        raise UserError(f"labeled images must be one source, got {len(source)}: give --probe-data.")
    if evaluation.finetune is not None or evaluation.few_labels is not None:
        tuned = run.finetune(
            source, size=evaluation.size, limit=evaluation.limit, stop=stop, **finetuning_settings(evaluation)
        )
        return None if tuned is None else _of_finetuning(tuned)
    try:
        with stopped_at_once(stop):
            return _probed(run, evaluation, source) if evaluation.audit is None else _audited(run, evaluation)
    except Interrupted:
        return None


def _audited(run: Run, evaluation: Evaluation) -> Result:
    return Result(_plain(run.audit(**evaluation.audit or {}).to_json()), {})


def _probed(run: Run, evaluation: Evaluation, source: str) -> Result:
    name, settings = probe_of(evaluation)
    return _of_probe(
        run.probe(
            source, probe=probe_class(name)(**settings), pooling=evaluation.pooling, dimensions=evaluation.dimensions,
            size=evaluation.size, limit=evaluation.limit, baselines=(),
        )
    )  # fmt: skip


def probe_of(evaluation: Evaluation) -> tuple[str, dict[str, Any]]:
    """Name and settings of the probe of an evaluation."""
    if isinstance(evaluation.probe, dict):
        settings = {key: _tupled(value) for key, value in evaluation.probe.items()}
        return str(settings.pop("name", "ridge")), settings
    return str(evaluation.probe), {}


def matching_label(label: str, names: Sequence[str]) -> str:
    """The number of labels that a comparison names; "1000 per class" is "1,000 per class".

    Raises:
        UserError: there is no such number.
    """
    for name in names:
        if name.replace(",", "") == label.replace(",", ""):
            return name
    raise UserError(f"a comparison names the labels {readable(label)!r}, but there are: {', '.join(names)}.")


def finetuning_settings(evaluation: Evaluation) -> dict[str, Any]:
    """Fields of `FineTuning`."""
    given = evaluation.few_labels if evaluation.few_labels is not None else evaluation.finetune or {}
    settings = {key: _tupled(value) for key, value in given.items()}
    return {"frozen": True, **settings} if evaluation.few_labels is not None else settings


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _of_probe(table: ProbeTable) -> Result:
    found = table.observations
    assert found is not None
    trained, random = found.trained.astype(np.bool_), found.random.astype(np.bool_)
    correct = {f"layer/{layer}": trained[:, place] for place, layer in enumerate(found.layers)}
    if table.has_parameters:
        correct |= {f"random/{layer}": random[:, place] for place, layer in enumerate(found.layers)}
    return Result(_plain(table.to_json()), correct)


def _of_finetuning(table: FineTuneTable) -> Result:
    correct = {f"{result.name}/{row.name}": row.correct.numpy() for result in table.results for row in result.rows}
    return Result(_plain(table.to_json()), correct)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(values))
