import math

import pytest
import torch
import torch.nn.functional as F
from test_logistic import quiet, three_classes

from probe_toys import Plain
from selftaught.errors import UserError
from selftaught.evaluation.features import Viewing
from selftaught.evaluation.probes import KNNProbe
from selftaught.evaluation.probes.base import held_out

VIEWING = Viewing(4, torch.device("cpu"))


def by_brute_force(bank, labels, query, k, temperature):
    """Votes of the k nearest by cosine similarity, written out for one query."""
    similarity = [float(F.cosine_similarity(row, query, dim=0)) for row in bank.double()]
    nearest = sorted(range(len(bank)), key=lambda i: -similarity[i])[:k]
    votes = [0.0, 0.0, 0.0]
    for i in nearest:
        votes[int(labels[i])] += math.exp(similarity[i] / temperature)
    return votes


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (7, 0.07), (7, 0.5), (1000, 0.2)])
def test_votes_are_those_of_brute_force(k, temperature):
    train, test = three_classes(80, 0), three_classes(20, 1)
    found = KNNProbe(k=k, temperature=temperature).evaluate(Plain(), train, test, VIEWING, 0, quiet)["mean"]
    bank = train.images.mean((2, 3))
    for query, scores in zip(test.images.mean((2, 3)).double(), found.scores, strict=True):
        votes = torch.tensor(by_brute_force(bank, train.labels, query, k, temperature))
        torch.testing.assert_close(scores / scores.sum(), (votes / votes.sum()).float(), atol=1e-3, rtol=1e-3)
    held = held_out(80, 0)
    right = [
        max(range(3), key=by_brute_force(bank[~held], train.labels[~held], query, k, temperature).__getitem__) == label
        for query, label in zip(bank[held].double(), train.labels[held].tolist(), strict=True)
    ]
    assert found.held_out == pytest.approx(sum(right) / len(right))


def test_k_and_temperature_are_stated_and_checked():
    assert KNNProbe(k=20, temperature=0.1).note(32, 32) == (
        "Each of the 20 nearest training images votes with temperature 0.1."
    )
    for options, words in (
        ({"k": 0}, "--k must be from 1 to 1,000,000,000,000, got 0"),
        ({"temperature": 0.0}, "--temperature must be"),
    ):
        with pytest.raises(UserError, match=words):
            KNNProbe(**options)
