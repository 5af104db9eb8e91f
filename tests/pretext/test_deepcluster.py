"""DeepCluster: what is drawn, what is forgotten, what is logged."""

import io
import logging

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from sklearn.metrics import adjusted_mutual_info_score

from selftaught.analysis.audit import audit
from selftaught.errors import UserError
from selftaught.pretext.deepcluster import DeepCluster
from selftaught.runs.checkpoint import Checkpoints
from selftaught.training.interruption import Stop
from selftaught.training.log import Log
from selftaught.training.loop import Pretraining, Trainer, train
from selftaught.training.optimizer import Optimization, reset_state
from selftaught.training.plan import make_fabric
from selftaught.training.randomness import epoch_indices
from toys import ToyEncoder, ToySource

CPU = torch.device("cpu")


class Made:
    """A task on a toy source, clustered once."""

    def __init__(self, images: int = 60, **settings) -> None:
        torch.manual_seed(0)
        self.source = ToySource(images)
        self.task = DeepCluster(size=16, **settings)
        self.encoder = ToyEncoder(**self.task.encoder_options())
        self.heads = self.task.heads(self.encoder, self.source)
        self.update = self.cluster(0)

    def cluster(self, seed: int):
        self.encoder.eval(), self.heads.eval()
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            return self.task.before_epoch(self.encoder, self.heads, self.source, generator)

    @property
    def labels(self) -> torch.Tensor:
        return self.heads["clusters"].assignments.clone()

    def loss(self):
        batch = self.source.batch(torch.arange(12), CPU)
        return self.task.loss(self.encoder, self.heads, self.task.views(batch, torch.Generator().manual_seed(0)))


def test_every_cluster_is_drawn_equally_often_however_large_it_is():
    made = Made(clusters=4, per_cluster=5)
    sizes = made.labels.bincount(minlength=4)
    assert sizes.max() > sizes.min() > 0
    drawn = made.labels[epoch_indices(0, 0, 60, made.update.weights, draws=40_000)].bincount(minlength=4) / 40_000
    torch.testing.assert_close(drawn, torch.full((4,), 0.25), atol=0.01, rtol=0)


def test_of_more_images_a_part_takes_part_another_one_each_time():
    made = Made(clusters=3, per_cluster=5, clustered=30)
    first = made.labels >= 0
    assert first.sum() == 30
    assert torch.equal(made.update.weights > 0, first)
    assert first[epoch_indices(0, 0, 60, made.update.weights)].all()
    made.cluster(1)
    assert (made.labels >= 0).sum() == 30
    assert not torch.equal(made.labels >= 0, first)


def test_the_same_state_and_seed_give_the_same_clusters_and_another_seed_others():
    one, other = Made(clusters=6), Made(clusters=6)
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.heads["top"].weight, other.heads["top"].weight)
    other.cluster(1)
    assert not torch.equal(one.labels, other.labels)


def test_the_top_begins_anew_with_its_optimizer_and_the_rest_goes_on():
    made = Made(clusters=4, per_cluster=5)
    optimizer = Optimization().build(made.task.parameter_groups(made.encoder, made.heads))
    made.loss()[0].backward()
    optimizer.step()
    assert made.heads["top"].weight in optimizer.state
    kept = {name: weight.clone() for name, weight in made.heads["body"].state_dict().items()}
    (top,) = made.cluster(1).reset
    reset_state(optimizer, top)
    assert all((state == 0).all() for state in optimizer.state[made.heads["top"].weight].values())
    assert optimizer.state[made.heads["body"][0].weight]["exp_avg"].any()
    assert all(torch.equal(weight, kept[name]) for name, weight in made.heads["body"].state_dict().items())
    assert made.heads["top"].weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert (made.heads["top"].bias == 0).all()


def test_both_agreements_are_scikit_learns():
    made = Made(images=600, clusters=4, per_cluster=5)
    assert abs(made.loss()[1]["ami_before"]) < 0.02  # with the random groups that it begins with
    before = made.labels
    with torch.no_grad():
        made.encoder.second.weight.normal_(generator=torch.Generator().manual_seed(5))
    made.cluster(1)
    outputs = made.loss()[1]
    for name, other in (("ami_before", before), ("ami_labels", made.source.labels)):
        expected = adjusted_mutual_info_score(other, made.labels, average_method="geometric")
        assert 0.01 < expected < 0.95
        assert float(outputs[name]) == pytest.approx(expected, abs=1e-6)


def test_without_labels_there_is_no_agreement_with_them():
    made = Made.__new__(Made)
    made.source = ToySource(40)
    made.source.targets = frozenset()
    made.task = DeepCluster(size=16)
    made.encoder = ToyEncoder(**made.task.encoder_options())
    made.heads = made.task.heads(made.encoder, made.source)
    made.cluster(0)
    assert set(made.loss()[1]) == {"accuracy", "ami_before"}


def test_clusters_are_of_whole_images_and_their_features():
    """The same image twice is always in one cluster, as no two crops would be; dark and bright ones hardly ever are."""
    made = Made(clusters=6, per_cluster=5, components=3, head="linear", input_mode="color")
    dark = torch.arange(60) % 4 < 2
    made.source.images[1::2] = made.source.images[::2]
    made.source.images[dark] *= 0.1
    made.cluster(3)
    assert torch.equal(made.labels[1::2], made.labels[::2])
    assert len(made.labels.unique()) > 2
    of_dark, of_bright = (made.labels[rows].bincount(minlength=6) for rows in (dark, ~dark))
    assert torch.minimum(of_dark, of_bright).sum() < 6  # of 30, were they alike to the clusters


def test_images_that_took_no_part_are_not_counted_as_mistaken():
    made = Made(clusters=4, per_cluster=5, head="linear")
    views = made.task.views(made.source.batch(torch.tensor([3, 8, 20]), CPU), torch.Generator().manual_seed(0))
    answers = (made.encoder(views["images"]) @ made.heads["top"].weight.T + made.heads["top"].bias).argmax(1)
    made.heads["clusters"].assignments[torch.tensor([3, 8, 20])] = torch.tensor([-1, int(answers[1]), -1])
    assert made.task.loss(made.encoder, made.heads, views)[1]["accuracy"] == 1


def test_an_audit_asks_about_clustered_images_alone():
    """One answer to everything is right as often as its cluster has images, among those that have a cluster."""
    made = Made(images=300, clusters=3, per_cluster=5, clustered=60, head="linear")
    made.heads["top"].weight.data.zero_()
    made.heads["top"].bias.data = torch.tensor([0.0, 1.0, 0.0])
    known = made.labels[made.labels >= 0]
    assert len(known) == 60
    table = audit(made.task, made.encoder, made.heads, made.source, images=60)
    assert table.images == 56  # whole groups
    assert table.rows[0].accuracy == pytest.approx(float((known == 1).float().mean()), abs=4 / 60)


@pytest.mark.parametrize("head", ["mlp", "linear"])
def test_the_loss_is_cross_entropy_with_the_clusters(head):
    made = Made(clusters=4, per_cluster=5, head=head)
    batch = made.source.batch(torch.tensor([3, 8, 20]), CPU)
    views = made.task.views(batch, torch.Generator().manual_seed(0))
    loss, outputs = made.task.loss(made.encoder, made.heads, views)
    hidden = made.encoder(views["images"])
    if head == "mlp":
        hidden = torch.relu(made.heads["body"](hidden))
    logits = hidden @ made.heads["top"].weight.T + made.heads["top"].bias
    labels = made.labels[torch.tensor([3, 8, 20])]
    expected = -sum(F.log_softmax(logits[i], 0)[label] for i, label in enumerate(labels)) / 3
    torch.testing.assert_close(loss, expected)
    assert outputs["accuracy"] == sum(int(logits[i].argmax() == label) for i, label in enumerate(labels)) / 3


def test_jitter_changes_what_is_shown_and_not_what_is_clustered():
    plain, jittered = Made(clusters=4, input_mode="color"), Made(clusters=4, input_mode="color", jitter=0.4)
    assert torch.equal(plain.labels, jittered.labels)
    batch = plain.source.batch(torch.arange(12), CPU)
    views = [made.task.views(batch, torch.Generator().manual_seed(0))["images"] for made in (plain, jittered)]
    assert ((views[0] - views[1]).abs().flatten(1).amax(1) > 0.01).all()


@pytest.mark.parametrize("stop", [2, 4, 7], ids=["in an epoch", "at its end", "in the next"])
def test_a_run_that_stopped_ends_as_one_that_did_not(stop, tmp_path):
    """Epochs of four steps on another part of the images each: labels, weights and draws must all come back."""
    whole, parts = Run(tmp_path / "whole"), Run(tmp_path / "parts")
    whole.go(10)
    parts.go(10, stop)
    parts.go(10)
    states = [torch.load(run.path / "last.pt", weights_only=True) for run in (whole, parts)]
    assert states[0]["step"] == states[1]["step"] == 10
    assert states[0]["heads"]["clusters.num_clusterings"] == 3
    for kind in ("encoder", "heads"):
        assert all(torch.equal(weight, states[1][kind][name]) for name, weight in states[0][kind].items())
    assert torch.equal(states[0]["weights"], states[1]["weights"])


class Run:
    """A run that is taken up where its checkpoint stands, with nothing else kept."""

    def __init__(self, path) -> None:
        self.path = path
        path.mkdir()

    def go(self, steps: int, stop_after: int | None = None) -> None:
        torch.manual_seed(0)
        source, task = ToySource(60), DeepCluster(size=16, clusters=4, clustered=45, shown=32)
        encoder = ToyEncoder(**task.encoder_options())
        pretraining = Pretraining(task, encoder, task.heads(encoder, source), source, Optimization(), steps, 8, 0)
        stop = Stop()

        def watch(step, *_):
            stop.requested = step == stop_after

        log = Log(self.path / "log.jsonl", steps, 8, {}, 1, Console(file=io.StringIO()))
        train(
            pretraining,
            Trainer(make_fabric(CPU, "32"), pretraining),
            Checkpoints(self.path),
            log,
            watch=watch,
            stop=stop,
        )


def test_epochs_are_of_images_shown_and_passes_of_images_there_are():
    source, task = ToySource(60), DeepCluster(shown=200)
    encoder = ToyEncoder(**task.encoder_options())
    run = Pretraining(task, encoder, torch.nn.ModuleDict(), source, Optimization(), 1, 20, 0)
    assert (run.steps_per_epoch, run.steps_per_pass) == (10, 3)


def test_fewer_images_make_fewer_clusters_and_it_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        made = Made(images=60, clusters=500, per_cluster=10)
    assert made.heads["top"].out_features == 6
    assert "6 clusters instead of 500" in caplog.text
    assert made.task.chance(made.source, 12) == {"accuracy": 1 / 6}


def test_what_is_read_is_asked_of_the_encoder():
    assert DeepCluster().encoder_options() == {"input_mode": "sobel"}
    assert DeepCluster(input_mode="color").encoder_options() == {"input_mode": "color"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"clusters": 1}, "--clusters must be from 2 to 1,000,000, got 1"),
        ({"clustered": 15}, "--clustered must be at least 20, two clusters"),
        ({"shown": 0}, "--shown"),
        ({"jitter": 2.0}, "--jitter"),
        ({"scale": (0.5, 0.2)}, "--scale"),
    ],
)
def test_what_cannot_be_is_refused(settings, said):
    with pytest.raises(UserError, match=said):
        DeepCluster(**settings)


def test_one_image_and_a_batch_of_one_are_refused():
    with pytest.raises(UserError, match="has 1"):
        Made(images=1)
    made = Made()
    with pytest.raises(UserError, match="--batch-size"):
        made.task.views(made.source.batch(torch.arange(1), CPU), torch.Generator())
