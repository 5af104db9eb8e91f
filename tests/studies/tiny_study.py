"""A study of two runs of three steps."""

from pathlib import Path

import yaml

from selftaught.studies import planning
from selftaught.studies.study import Options, run_study
from selftaught.training.plan import Plan

TINY = {
    "question": "Is one angle per image as good as all?",
    "paper": "Gidaris et al., ICLR 2018",
    "finding": "All angles are better.",
    "source": "unknown",
    "settings": {
        "task": "rotation",
        "size": 16,
        "steps": 3,
        "batch_size": 8,
        "encoder": {"name": "convnet", "width": 8},
    },
    "variants": {"all": {}, "one": {"task": {"copies": "one"}}},
    "comparison": {"variant": "all", "against": "one", "layer": "layer2"},
    "seeds": 2,
}


def written(folder: Path, images: Path, **changes) -> str:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, "source": str(images), **changes}))
    return str(path)


def run_without_measurement(study: str, out: str) -> None:
    """Run it in this process with a plan that was not measured."""
    planning.measure = lambda *_: Plan(5, "cpu", "32", False, 0.1, 0.0)
    run_study(study, Options(threads=1), out)
