"""Heads of a width that tests train in a second."""

import pytest

from selftaught.pretext import context, jigsaw


@pytest.fixture
def narrow_heads(monkeypatch):
    """64 instead of 512 units per tile: the heads of `jigsaw` and `context` took most of the time of the suite."""
    for module in (context, jigsaw):
        monkeypatch.setattr(module, "UNITS", 64)
