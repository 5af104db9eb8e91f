"""A run folder with every kind of file, and the images it was trained on."""

from pathlib import Path

import pytest
from valid_run import make_images, make_run


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def valid(images, tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("valid"), images)
