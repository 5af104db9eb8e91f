"""A study of two runs of three steps."""

from pathlib import Path

import yaml

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
