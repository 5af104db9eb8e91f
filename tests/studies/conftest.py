"""Images for studies, and plans without measurements."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selftaught.studies import planning
from selftaught.training.plan import Plan


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """Two classes of noisy images, in a training and a test part."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part in ("train", "test"):
        for name, level in (("bright", 150), ("dark", 60)):
            (place := root / part / name).mkdir(parents=True)
            for number in range(24):
                pixels = level + rng.integers(-50, 50, (20, 20, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")
    return root


@pytest.fixture
def quick(monkeypatch):
    """Plans without measurements."""
    plan = Plan(5, "cpu", "32", False, 0.1, 0.0)
    monkeypatch.setattr(
        planning, "measure", lambda built, minutes, device, precision: replace(plan, precision=precision)
    )
