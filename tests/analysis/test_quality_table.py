"""Feature quality of every layer, beside random weights: planted encoders, the run's result, its figure and report."""

import json

import pytest
import torch
from torch import nn

from probe_toys import Small, noise
from selftaught.analysis.quality import measure_quality, render
from selftaught.contracts import Encoder, Layer
from selftaught.errors import UserError
from selftaught.figures import quality as drawn
from selftaught.figures import svg
from selftaught.runs.models import mismatch
from selftaught.runs.result_models import Quality


class Planted(Encoder):
    """A layer of rank one, and one whose second channel is dead."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = {"line": Layer(3, 0), "dead": Layer(3, 1)}
        self.input_mode, self.preprocess = "color", nn.Identity()

    def features(self, inputs):
        line = inputs.mean((1, 2, 3))[:, None] * torch.tensor([1.0, 2.0, 3.0])
        return {"line": line, "dead": inputs * torch.tensor([1.0, 0.0, 1.0])[:, None, None]}


def table(encoder=None, count: int = 40, **options):
    return measure_quality(
        encoder or Planted(), lambda seed: Small(seed) if encoder else Planted(), noise(count, 0), size=4, **options
    )


def test_what_was_planted_is_found_in_every_layer():
    line, dead = table().rows
    assert (line.layer, line.channels, dead.layer) == ("line", 3, "dead")
    assert line.trained["rank"] == pytest.approx(1, abs=1e-3)
    assert line.trained["dead"] == 0
    assert dead.trained["dead"] == 1
    assert 1.1 < dead.trained["rank"] <= 2.001
    assert dead.random == pytest.approx(dead.trained)
    assert dead.random_std["rank"] == 0


def test_equal_views_align_and_random_weights_differ():
    (row,) = table(Small(7)).rows
    assert 0 < row.trained["alignment"] < 2
    assert row.random["rank"] != row.trained["rank"]
    assert row.random_std["rank"] > 0


def test_the_result_is_valid_shown_and_drawn():
    found = table()
    plain = json.loads(json.dumps(found.to_json()))
    assert not mismatch(Quality, plain)
    assert "1.0 (1.0)" in "".join(str(cell) for column in render(found).columns for cell in column.cells)
    figure = drawn(plain)
    assert figure.axes[0].get_title() == "effective rank"
    trained = figure.axes[0].lines[1].get_xdata()
    assert trained[0] == pytest.approx(1, abs=1e-3)
    assert "hollow" in svg(figure)
    plain["rows"][0]["trained"]["std"] = -1
    assert mismatch(Quality, plain)


def test_one_image_is_too_few():
    with pytest.raises(UserError, match="at least 2 images"):
        table(count=1)
