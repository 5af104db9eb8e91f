"""The embedding that a pretext loss compares, as a further layer of the `knn` probe."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import selftaught
from probe_toys import Given, Plain, Small, half_red, noise
from selftaught.api.run import Run
from selftaught.encoders import make_encoder
from selftaught.evaluation import KNNProbe, probe_layers
from selftaught.evaluation.baselines.encoders import calibrate
from selftaught.evaluation.embedding import EMBEDDING, Projected, Projection
from selftaught.evaluation.features import Viewing
from test_run import make_images

CPU = torch.device("cpu")
PROBE = KNNProbe(k=5)


def head(seed: int, inputs: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 6, bias=False), nn.BatchNorm1d(6, affine=False))


def small(seed: int) -> Small:
    torch.manual_seed(seed)  # of the bias
    return Small(seed)


def overlapping(count: int, seed: int) -> Given:
    source = noise(count, seed)
    source.images[:, 0] += 0.1 * source.labels[:, None, None]
    return source


def probed(encoder, fresh, train, test, **more):
    return probe_layers(encoder, fresh, train, test, size=4, probe=PROBE, progress=False, **more)


def test_neighbors_are_those_of_the_output_of_the_head():
    train, test = overlapping(80, 0), overlapping(40, 1)
    encoder, trained = small(9), head(9)
    table = probed(encoder, small, train, test, projection=Projection(trained, head))
    right = 0
    with torch.no_grad():
        bank, queries = (
            F.normalize(trained.eval()(encoder.eval().features(part.images)["only"].mean((2, 3))), dim=1)
            for part in (train, test)
        )
    for query, label in zip(queries, test.labels, strict=True):
        votes = torch.zeros(2)
        for place in (bank @ query).argsort(descending=True)[:5]:
            votes[train.labels[place]] += torch.exp(bank[place] @ query / 0.07)
        right += int(votes.argmax() == label)
    row = table.layers[-1]
    assert (row.layer, row.dimensions) == (EMBEDDING, 6)
    assert row.value == pytest.approx(right / 40)


def test_random_weights_beside_it_are_a_random_encoder_with_a_random_head():
    train, test = overlapping(80, 0), overlapping(40, 1)
    table = probed(small(9), small, train, test, projection=Projection(head(9), head))
    alone = []
    for seed in range(3):
        encoder = Projected(small(seed), head(seed))
        calibrate(encoder, train, 4, CPU)
        alone.append(PROBE.evaluate(encoder, train, test, Viewing(4, CPU), 0, lambda *_: None)[EMBEDDING].accuracy)
    assert table.layers[-1].random == pytest.approx(sum(alone) / 3)
    assert len(set(alone)) > 1


def test_the_other_rows_do_not_change():
    train, test = overlapping(80, 0), overlapping(40, 1)
    more = probed(small(9), small, train, test, projection=Projection(head(9), head), baselines=("pca",))
    plain = probed(small(9), small, train, test, baselines=("pca",))
    assert more.layers[:-1] == plain.layers
    assert more.baselines == plain.baselines
    assert more.pixels == plain.pixels


def test_test_images_never_choose_a_layer_and_the_embedding_is_never_chosen():
    """With wrong test labels the worst layer would look best; the embedding is the best one by held-out accuracy."""
    train, test = half_red(200, 0), half_red(100, 1)
    for source, seed in ((train, 0), (test, 1)):
        source.images[:, 1:] = torch.rand(len(source), 2, 1, 1, generator=torch.Generator().manual_seed(seed))
    opposite = Given(test.images, 1 - test.labels)

    def red_only(seed: int) -> nn.Module:
        """Red minus its mean beside a constant: angles separate the classes."""
        made = nn.Linear(3, 2)
        with torch.no_grad():
            made.weight.copy_(torch.tensor([[50.0, 0, 0], [0, 0, 0]]))
            made.bias.copy_(torch.tensor([-27.5, 0.1]))
        return made

    class Tinted(Plain):
        """Green and blue, which differ at random, make the angles of the first layer."""

        def features(self, inputs):
            tinted = inputs * inputs.new_tensor([1.0, 40.0, 40.0])[:, None, None]
            return {"image": tinted, "mean": inputs.mean((2, 3))}

    projection = Projection(red_only(0), red_only)
    tables = [
        probed(Tinted(), lambda seed: Tinted(), train, judge, projection=projection) for judge in (test, opposite)
    ]
    first, last, embedding = tables[0].layers
    assert first.held_out < last.held_out < embedding.held_out
    assert embedding.value > 0.95
    assert [(table.gain.layer, table.gain.random_layer) for table in tables] == [("mean", "mean")] * 2
    assert {tables[0].choice.layer, tables[0].choice.runner_up} == {"image", "mean"}


@pytest.fixture(scope="module")
def contrastive(tmp_path_factory):
    root = tmp_path_factory.mktemp("contrastive")
    images = make_images(root / "images")
    options = {"size": 16, "steps": 3, "batch_size": 8, "threads": 1, "width": 8, "task": "simclr"}
    run = selftaught.pretrain(images, out=root / "run", dimensions=16, hidden=32, **options)
    return run.path, images


@pytest.fixture
def run(contrastive, tmp_path):
    return Run(shutil.copytree(contrastive[0], tmp_path / "run"))


def test_a_run_with_a_projection_head_has_a_row_for_its_embedding(run, contrastive):
    images = contrastive[1]
    table = run.probe(images, probe=KNNProbe(k=5))
    assert [row.layer for row in table.layers] == [*run.encoder.layers, EMBEDDING]
    assert table.layers[-1].dimensions == 16
    assert "The embedding is the output of the projection head" in table.note
    assert EMBEDDING not in [row.layer for row in run.probe(images, probe="ridge", dimensions=16).layers]


def test_the_weights_of_the_head_are_those_of_the_checkpoint(run, contrastive):
    from selftaught.api.loaded import load_trained
    from selftaught.api.projection import load_projection
    from selftaught.config.build import load_pretraining

    projection = load_projection(run.folder, load_trained(run.folder, None, "cpu"))
    heads = load_pretraining(run.folder)[0].heads
    torch.testing.assert_close(dict(projection.trained.state_dict()), dict(heads["projection"].state_dict()))
    fresh = [projection.fresh(seed).state_dict()["0.weight"] for seed in (0, 0, 1)]
    assert fresh[0].equal(fresh[1])
    assert not fresh[0].equal(fresh[2])
    assert not fresh[0].equal(projection.trained.state_dict()["0.weight"])


def _other_weights(path):
    run = Run(path)
    weights, description = run.folder.read_encoder()
    run.folder.write_encoder({name: value + 1 for name, value in weights.items()}, description)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: shutil.rmtree(path / "checkpoint"), "there is no checkpoint in "),
        (lambda path: [file.write_bytes(b"x") for file in (path / "checkpoint").iterdir()], "no valid checkpoint in "),
        (_other_weights, "the checkpoint is of another step than encoder.safetensors"),
    ],
)
def test_an_embedding_that_cannot_be_computed_is_left_out_with_a_reason(run, contrastive, damage, reason):
    damage(run.path)
    table = run.probe(contrastive[1], probe=KNNProbe(k=5))
    assert [row.layer for row in table.layers] == list(run.encoder.layers)
    assert f"The embedding is left out: {reason}" in table.note


def test_a_task_without_a_projection_and_a_baseline_have_no_such_row(contrastive, tmp_path):
    images = contrastive[1]
    rotation = selftaught.pretrain(
        images, out=tmp_path / "rotation", task="rotation", size=16, steps=2, batch_size=8, threads=1, width=8
    )
    random = selftaught.baseline("random", images, out=tmp_path / "random", size=16, width=8)
    for other in (rotation, random):
        table = other.probe(images, probe=KNNProbe(k=5))
        assert [row.layer for row in table.layers] == list(make_encoder("convnet", size=16, width=8).layers)
        assert "embedding" not in table.note
