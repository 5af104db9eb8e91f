"""Commands that the report suggests, quoted for a shell."""

import shlex

from selftaught.errors import readable
from selftaught.evaluation.baselines import own_encoder
from selftaught.report.record import Record
from selftaught.runs.folder import has_pretext_task
from selftaught.runs.sections import value_of


def resume_command(record: Record) -> str:
    """The command that resumes a stopped run; empty if it cannot be resumed."""
    stopped = record.status in ("interrupted", "failed")
    return f"selftaught pretrain --resume --out {_quoted(record)}" if stopped else ""


def probe_command(record: Record) -> str:
    """The command that probes a run."""
    return f"selftaught probe {_quoted(record)} --data LABELED_IMAGES"


def repeat_command(record: Record) -> str:
    """The command that repeats a run in a new folder; empty for an encoder that other code trained."""
    out = ["--out", readable(f"{record.path}-again")]
    if record.baseline:
        return shlex.join([*_baseline_words(record), *out])
    if not has_pretext_task(record.config):
        return ""
    return shlex.join(["selftaught", "pretrain", "--config", readable(str(record.path / "config.yaml")), *out])


def _baseline_words(record: Record) -> list[str]:
    """The command of a baseline without its folder. Settings at their default of none are left out."""
    data, name = record.config.get("data", []), record.baseline
    options = {"encoder": None if own_encoder(name) else record.config.get("encoder")}
    options["input-mode"] = value_of(record.config, "encoder.input_mode")
    options |= {key: record.config.get(key) for key in ("size", "seed", "limit", "labels")}
    words = ["selftaught", "baseline", name, *([data] if isinstance(data, str) else map(str, data))]
    for option, value in options.items():
        words += [] if value is None else [f"--{option}", str(value)]
    return [*words, "--pretrained"] if name.startswith("timm:") else words


def _quoted(record: Record) -> str:
    return shlex.quote(readable(str(record.path)))
