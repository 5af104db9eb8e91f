"""Nearest neighbors: against a brute-force search, planted classes, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selftaught.analysis.neighbors import _chance, find_neighbors, nearest, render
from selftaught.contracts import Encoder, Layer
from selftaught.errors import UserError
from toys import ToyEncoder, ToySource

CPU = torch.device("cpu")
OPTIONS = {"size": 16, "images": 20, "queries": 4, "k": 3, "device": CPU}


class Constant(Encoder):
    """A layer that knows the class of `ToySource` by the place of the bright blob, and one that knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.input_mode, self.preprocess = (
            {"place": Layer(2, 0), "same": Layer(1, 0)},
            "color",
            nn.Identity(),
        )

    def features(self, inputs):
        left, right = inputs[..., 2:6, 2:7].mean((1, 2, 3)), inputs[..., 2:6, 9:14].mean((1, 2, 3))
        place = (left > right).float()
        return {"place": torch.stack([place, 1 - place], 1), "same": torch.ones(len(inputs), 1)}


def test_neighbors_are_those_of_a_brute_force_search():
    features = F.normalize(torch.randn(30, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    queries = torch.tensor([3, 0, 29])
    found = nearest(features, queries, 4)
    for row, query in zip(found.tolist(), queries.tolist(), strict=True):
        angles = {n: float(torch.dot(features[query], features[n])) for n in range(30) if n != query}
        assert row == sorted(angles, key=angles.__getitem__, reverse=True)[:4]


def test_the_table_has_every_layer_and_the_fraction_of_the_same_class():
    source = ToySource(24)
    table, chosen, asked = find_neighbors(Constant(), Constant(), source, **OPTIONS)
    assert len(chosen) == 20
    assert asked.tolist() == [0, 6, 13, 19]
    place, same = table.trained
    assert place.layer == "place"
    assert place.same_class == 1
    labels = source.labels[chosen]
    assert (labels[place.indices] == labels[asked][:, None]).all()
    assert same.indices.shape == (4, 3)
    assert table.chance == pytest.approx(9 / 19)
    facts = table.to_json()
    assert facts["layers"][0] == {"layer": "place", "same_class": 1.0, "random": 1.0}
    cells = [cell for column in render(facts).columns for cell in column.cells]
    assert "1.000" in cells


def test_no_image_is_its_own_neighbor_and_layers_can_be_chosen():
    table, _, asked = find_neighbors(ToyEncoder(), ToyEncoder(), ToySource(24), layers=("second",), **OPTIONS)
    (row,) = table.trained
    assert row.layer == "second"
    assert not (row.indices == asked[:, None]).any()


def test_without_labels_there_is_no_fraction():
    class Unlabeled(ToySource):
        def batch(self, indices, device):
            batch = super().batch(indices, device)
            batch.targets = {}
            return batch

    table, _, _ = find_neighbors(ToyEncoder(), ToyEncoder(), Unlabeled(24), **OPTIONS)
    assert table.chance is None
    assert table.trained[0].same_class is None
    assert table.trained[0].indices.shape == (4, 3)


def test_images_without_a_label_count_as_another_class():
    labels = torch.tensor([0, 0, 1, -1])
    expected = sum(labels[i] == labels[j] for i in range(3) for j in range(4) if i != j) / 9
    assert _chance(labels) == pytest.approx(float(expected))
    assert _chance(torch.tensor([-1, -1])) is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"k": 20}, "20 neighbors need at least 21 images, but toy has 20"),
        ({"k": 0}, "must be from 1 to"),
        ({"queries": 0}, "must be from 1 to"),
        ({"layers": ("frist",)}, "did you mean first"),
    ],
)
def test_wrong_numbers_and_layers_are_refused(changes, text):
    with pytest.raises(UserError, match=text):
        find_neighbors(ToyEncoder(), ToyEncoder(), ToySource(24), **{**OPTIONS, **changes})


def test_features_that_diverged_are_refused():
    broken = ToyEncoder()
    broken.first.weight.data.fill_(torch.nan)
    with pytest.raises(UserError, match="infinity or NaN"):
        find_neighbors(broken, ToyEncoder(), ToySource(24), **OPTIONS)
