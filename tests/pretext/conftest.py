"""Heads of a width that tests train in a second."""

import pytest
from tiny_tasks import NARROW_HEADS


@pytest.fixture
def narrow_heads(monkeypatch):
    for change in NARROW_HEADS:
        monkeypatch.setattr(*change)
