"""The encoder `hybrid`: a dictionary that no task changes, and that its random baseline shares."""

import pytest
import torch

import selftaught
from selftaught.api.loaded import load_trained
from selftaught.encoders.dictionary import Dictionary
from selftaught.encoders.hybrid import Hybrid
from selftaught.errors import UserError
from test_run import TINY, make_images


def test_codes_are_those_of_a_dictionary_and_the_rest_is_computed_from_them():
    hybrid, dictionary = Hybrid(size=16, filters=4, width=6).eval(), Dictionary(size=16, filters=4).eval()
    dictionary.fit_like(hybrid.dictionary)
    images = torch.rand(3, 3, 16, 16)
    found = hybrid.features(hybrid.preprocess(images))
    assert found["codes"].equal(dictionary.features(dictionary.preprocess(images))["codes"])
    assert found["layer1"].equal(hybrid.layer1(found["codes"]))
    assert found["layer2"].equal(hybrid.layer2(found["layer1"]))
    assert not found["codes"].requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": 0}, "--filters of hybrid must be .* the default is 128"),
        ({"width": 0}, "--width of hybrid"),
        ({"size": 5}, "dictionaries of patches need --size 6 or more, got 5"),
    ],
)
def test_an_error_names_an_option_of_this_encoder(options, message):
    with pytest.raises(UserError, match=message):
        Hybrid(**options)


def test_training_does_not_change_the_dictionary_and_random_weights_share_it(tmp_path):
    """Otherwise the gain of a task over random weights would include that of the dictionary."""
    images = make_images(tmp_path / "images", count=8)
    settings = {**TINY, "encoder": "hybrid", "filters": 4, "width": 6}
    run = selftaught.pretrain(images, out=tmp_path / "run", **settings)
    fitted = selftaught.baseline("dictionary", images, out=tmp_path / "dictionary", size=16, filters=4).encoder
    assert run.encoder.dictionary.kernels.equal(fitted.kernels)
    fresh = load_trained(run.folder, None, "cpu").arguments["fresh"]
    for seed in (0, 1):
        random = fresh(seed)
        assert random.dictionary.kernels.equal(fitted.kernels)
        assert random.dictionary.offsets.equal(fitted.offsets)
        assert not random.layer1[0].weight.equal(run.encoder.layer1[0].weight)
