"""`selftaught evaluate`: fine-tuning and few labels on tiny images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import binomtest

import selftaught
from selftaught.api import best, repetitions, trainings
from selftaught.api.run import Run
from selftaught.cli import main
from selftaught.config.build import load_encoder
from selftaught.errors import UserError
from selftaught.evaluation.evaluator import Evaluator
from selftaught.evaluation.finetune_table import LabelResult, Repetition, Row, accuracy_interval, render
from selftaught.evaluation.intervals import paired_interval
from selftaught.training.interruption import Stop
from test_run import TINY, make_images
from toys import ToySource

FAST = {"steps": 3, "learning_rates": (0.01,), "batch_size": 8, "device": "cpu"}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return make_images(tmp_path_factory.mktemp("a") / "images", count=8)


@pytest.fixture(scope="module")
def pretrained(images, tmp_path_factory) -> Path:
    return selftaught.pretrain(images, out=tmp_path_factory.mktemp("runs") / "run", width=4, **TINY).path


@pytest.fixture
def run(pretrained, tmp_path) -> Run:
    return Run(shutil.copytree(pretrained, tmp_path / "run"))


def result_of(run: Run) -> dict:
    (path,) = (run.path / "finetune").glob("*.json")
    return json.loads(path.read_text())


def test_the_result_has_every_repetition_and_the_correctness_of_every_test_image(run, images):
    table = run.finetune(images, seeds=2, **FAST)
    result = result_of(run)
    (count,) = result["results"]
    assert (count["name"], count["images"], count["validation"], count["steps"]) == ("all", 16, 2, 3)
    assert [row["name"] for row in count["rows"]] == ["fine-tuned", "from scratch"]
    with np.load(run.path / "finetune" / result["correctness"]) as kept:
        for row in count["rows"]:
            correct = kept[f"all/{row['name']}"]
            assert correct.shape == (2, 16)
            assert row["accuracies"] == pytest.approx(correct.mean(1).tolist())
            assert row["std"] == pytest.approx(correct.mean(1).std(ddof=1))
            assert row["learning_rate"] == [0.01, 0.01]
        ours, theirs = (torch.from_numpy(kept[f"all/{row['name']}"]) for row in count["rows"])
        assert kept["labels"].tolist().count(0) == 8
    (difference,) = count["differences"]
    assert (difference["low"], difference["high"]) == pytest.approx(paired_interval(ours, theirs, by_repetition=True))
    assert result["chance"] == 0.5
    assert result["step"] == 2
    assert table is not None
    assert json.loads(json.dumps(table.to_json()))["results"] == result["results"]
    assert "fine-tuned" in [str(cell) for cell in render(table).columns[1].cells]


def test_what_is_finished_is_not_repeated_and_more_seeds_are_added(run, images, steps_taken):
    first = run.finetune(images, seeds=1, **FAST)
    assert steps_taken == [3, 3]
    again = run.finetune(images, seeds=1, **FAST)
    assert steps_taken == [3, 3]
    assert first.to_json() == again.to_json()
    run.finetune(images, seeds=2, **FAST)
    assert steps_taken == [3, 3, 3, 3]
    run.finetune(images, seeds=1, **{**FAST, "learning_rates": (0.02,)})
    assert len(steps_taken) == 6


def test_an_interrupted_evaluation_continues_to_the_same_result(run, images, steps_taken, monkeypatch, tmp_path):
    other = Run(shutil.copytree(run.path, tmp_path / "other"))
    expected = other.finetune(images, seeds=1, **FAST)
    steps_taken.clear()
    stop, step = Stop(), best.Trainer.step

    def interrupted(self, *arguments):
        if steps_taken == [3, 1]:
            stop.request()
        return step(self, *arguments)

    monkeypatch.setattr(best.Trainer, "step", interrupted)
    assert run.finetune(images, seeds=1, stop=stop, **FAST) is None
    assert steps_taken == [3, 2]
    assert not list((run.path / "finetune").glob("*.json"))
    found = run.finetune(images, seeds=1, **FAST)
    assert steps_taken == [3, 2, 1]
    assert found.to_json() == expected.to_json()


def test_checkpoints_are_removed_and_the_fine_tuned_model_is_kept(run, images):
    run.finetune(images, seeds=1, **FAST)
    assert not list(run.path.glob("finetune/**/*.pt"))
    (path,) = run.path.glob("finetune/**/model.safetensors")
    kept, before = load_file(path), load_encoder(run.folder).state_dict()
    assert {name.removeprefix("encoder.") for name in kept if name.startswith("encoder.")} == set(before)
    changed = [name for name, value in before.items() if not torch.equal(kept[f"encoder.{name}"], value)]
    assert any("layer1" in name for name in changed)
    assert len(list(run.path.glob("finetune/**/log.jsonl"))) == 2


def test_frozen_layers_are_those_of_the_run(run, images):
    run.finetune(images, seeds=1, freeze_until="layer2", from_scratch=False, **FAST)
    (path,) = run.path.glob("finetune/**/model.safetensors")
    kept, before = load_file(path), load_encoder(run.folder).state_dict()
    for name, value in before.items():
        assert torch.equal(kept[f"encoder.{name}"], value) == (".layer3." not in name)


def test_the_learning_rate_is_chosen_on_validation_images_alone(run, images, monkeypatch):
    """The rate with the best validation accuracy is tested, once, whatever the others would reach."""
    tested = []
    classify = trainings.classify

    def watched(encoder, head, source, *arguments):
        if source.name.endswith("(test)"):
            tested.append(len(source))
        return classify(encoder, head, source, *arguments)

    def trained(training, folder, root, **settings):
        rate = training.optimization.peak
        repetitions.best_weights(folder, training).save(
            {"encoder": training.encoder.state_dict(), "heads": training.heads.state_dict(), "step": 1}
        )
        return {0.1: 0.5, 0.2: 0.9, 0.3: 0.7}[rate], -1.0, 1

    monkeypatch.setattr(trainings, "classify", watched)
    monkeypatch.setattr(repetitions, "train_best", trained)
    table = run.finetune(images, seeds=1, from_scratch=False, **{**FAST, "learning_rates": (0.1, 0.2, 0.3)})
    assert table.results[0].rows[0].repetitions[0].learning_rate == 0.2
    assert tested == [16]


def test_a_learning_rate_that_diverges_is_not_chosen(run, images):
    table = run.finetune(images, seeds=1, from_scratch=False, **{**FAST, "learning_rates": (0.01, 1e30)})
    assert table.results[0].rows[0].repetitions[0].learning_rate == 0.01
    with pytest.raises(
        UserError, match="the loss of 'fine-tuned' became NaN or infinite with every learning rate: try lower"
    ):
        run.finetune(images, seeds=1, from_scratch=False, **{**FAST, "learning_rates": (1e30,)})


def test_few_labels_are_drawn_anew_and_the_same_for_both_sides(run, images, monkeypatch):
    seen: dict[str, set] = {}
    train, split = repetitions.train_best, trainings.Trainings.split
    held: list[str] = []

    def halved(shared, chosen, number):
        parts = split(shared, chosen, number)
        held.append(parts[1].fingerprint)
        return parts

    def watched(training, folder, root, **settings):
        seen.setdefault(folder.parent.name, set()).add((training.source.fingerprint, held[-1]))
        return train(training, folder, root, **settings)

    monkeypatch.setattr(trainings.Trainings, "split", halved)
    monkeypatch.setattr(repetitions, "train_best", watched)
    table = run.finetune(images, labels_per_class=(3,), label_fraction=(0.5,), draws=2, **FAST)
    assert [(each.name, each.images, each.validation) for each in table.results] == [
        ("3 per class", 6, 2),
        ("50 %", 8, 2),
    ]
    assert seen["fine-tuned-0"] == seen["from-scratch-0"]
    assert not seen["fine-tuned-0"] & seen["fine-tuned-1"]
    assert not list(run.path.glob("finetune/**/model.safetensors"))


def test_draws_that_are_most_of_the_labeled_images_are_noted(run, images):
    """Of 16 labeled images."""
    settings = {"frozen": True, "draws": 2, "from_scratch": False, **FAST}
    table = run.finetune(images, labels_per_class=(3, 6), **settings)
    assert table.note.startswith("Draws of 6 per class share most images, because there are 16 labeled ones")
    assert "Draws" not in run.finetune(images, labels_per_class=(3,), **settings).note
    assert "between pretraining runs is not included" in str(render(table).caption)
    alone = run.finetune(images, frozen=True, labels_per_class=(3,), draws=1, from_scratch=False, **FAST)
    assert "runs and between sets of labeled images is not included" in str(render(alone).caption)


def test_a_probe_with_few_labels_takes_the_best_layer_of_the_run(run, images):
    before = load_encoder(run.folder).state_dict()
    table = run.finetune(images, frozen=True, labels_per_class=(4,), draws=2, **FAST)
    rows = table.results[0].rows
    assert [row.name for row in rows] == ["probe", "probe, random weights", "from scratch"]
    assert all(each.layer in ("layer1", "layer2", "layer3") for each in rows[0].repetitions)
    assert {each["over"] for each in table.results[0].differences()} == {"probe, random weights", "from scratch"}
    after = load_encoder(run.folder).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_each_draw_of_a_probe_has_other_random_weights(run, images, monkeypatch):
    """Otherwise the spread over draws, and so the interval, would not include the variation between initializations."""
    seen, probed = [], Evaluator.random

    def random(evaluator, encoder, setting):
        seen.append([weight.clone() for weight in encoder.parameters()])
        return probed(evaluator, encoder, setting)

    monkeypatch.setattr(Evaluator, "random", random)
    run.finetune(images, frozen=True, labels_per_class=(4,), draws=2, from_scratch=False, **FAST)
    first, second = seen
    assert any(not torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_an_encoder_without_parameters_is_not_trained_from_scratch(images, tmp_path):
    run = selftaught.baseline("dictionary", images, out=tmp_path / "run", size=16, filters=3)
    table = run.finetune(images, frozen=True, labels_per_class=(4,), draws=1, **FAST)
    assert [row.name for row in table.results[0].rows] == ["probe"]
    assert "it has no random weights and is not trained from scratch" in table.note
    assert "probe" in str(table)
    assert run.report().exists()


def test_another_probe_of_few_labels_has_results_of_its_own(run, images):
    settings = {"frozen": True, "labels_per_class": (4,), "draws": 1, "from_scratch": False, **FAST}
    ridge = run.finetune(images, **settings)
    other = run.finetune(images, probe="knn", **settings)
    assert other.settings["probe"] == "knn"
    assert {path.parent.name for path in run.path.glob("finetune/**/result.npz")} == {
        "probe-0", "probe-random-weights-0", "probe-knn-0", "probe-random-weights-knn-0",
    }  # fmt: skip
    assert run.finetune(images, **settings).to_json() == ridge.to_json()
    with pytest.raises(UserError, match="there is no probe called 'kn'"):
        run.finetune(images, probe="kn", **settings)
    with pytest.raises(UserError, match="--probe applies to frozen features"):
        run.finetune(images, **{**settings, "frozen": False, "probe": "knn"})


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Draws whose accuracy varies around 0.6, on 400 images of varying difficulty."""
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(300):
        difficulty = 0.2 * (2 * torch.rand(1, 400, generator=generator) - 1)
        level = 0.6 + 0.03 * torch.randn(5, 1, generator=generator)
        correct = torch.rand(5, 400, generator=generator) < level + difficulty
        low, high = accuracy_interval(correct)
        covered += low <= 0.6 <= high
    assert 0.92 <= covered / 300 <= 1


@pytest.mark.parametrize("count", [10, 60, 1000])
def test_the_interval_of_one_accuracy_is_close_to_that_of_wilson(count):
    """It is centered on the accuracy, however few the images are, and not pulled towards zero."""
    for hits in (0, count // 3, count // 2, 9 * count // 10, count):
        low, high = accuracy_interval(torch.arange(count)[None] < hits)
        expected = binomtest(hits, count).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.9 / count + 0.002)
        mirrored = accuracy_interval(torch.arange(count)[None] < count - hits)
        assert mirrored == pytest.approx((1 - high, 1 - low))


def test_the_first_row_is_compared_with_each_other_one():
    ours, theirs = (torch.rand(2, 50, generator=torch.Generator().manual_seed(seed)) < 0.5 for seed in (0, 1))
    rows = [Row(name, tuple(Repetition(each, 0.5) for each in side)) for name, side in (("a", ours), ("b", theirs))]
    (difference,) = LabelResult("all", 10, 2, 3, tuple(rows)).differences()
    assert difference["over"] == "b"
    assert difference["value"] == pytest.approx(float(ours.float().mean() - theirs.float().mean()))
    assert difference["low"] < difference["value"] < difference["high"]


def test_the_command_prints_one_object_and_the_report_shows_it(run, images, capsys):
    arguments = ["evaluate", str(run.path), "--data", str(images), "--finetune", "--labels-per-class", "2", "4"]
    few = ["--draws", "1", "--steps", "2", "--learning-rates", "0.01", "--device", "cpu", "--json"]
    capsys.readouterr()
    assert main([*arguments, *few]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in table["results"]] == ["2 per class", "4 per class"]
    page = run.report().read_text()
    assert f"Fine-tuning on {images}" in page
    assert "4 per class (8 images): fine-tuned " in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected --finetune, --labels-per-class or --label-fraction"),
        (("--finetune", "--labels-per-class", "9"), "the smallest class, 'bright', has 8"),
        (("--finetune", "--freeze-until", "layer9"), "no layer of this encoder called 'layer9'"),
        (("--freeze-until", "layer1", "--labels-per-class", "3"), "--freeze-until applies to fine-tuning"),
        (("--finetune", "--layer-decay", "0"), "--layer-decay must be above 0"),
        (("--finetune", "--learning-rates", "-1"), "--learning-rates must be above 0"),
        (("--finetune", "--draws", "0"), "--draws must be from 1"),
        (("--finetune", "--steps", "2", "--epochs", "1"), "exactly one of --minutes, --epochs and --steps"),
        (("--label-fraction", "x"), "percentages such as 1% or 10%"),
    ],
)
def test_a_mistake_is_one_sentence(run, images, capsys, arguments, message):
    assert main(["evaluate", str(run.path), "--data", str(images), *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


class OneClass(ToySource):
    classes = ("left",)


class Bare(ToySource):
    classes = None


@pytest.mark.parametrize(
    ("source", "given"),
    [(OneClass, "at least 2 classes, but toy has 1: use --data"), (Bare, "labels, but toy has none: use a --data")],
)
def test_images_of_one_class_or_without_labels_are_refused(run, source, given):
    with pytest.raises(UserError, match=f"a probe or evaluation needs {given}"):
        run.finetune((source(), source()), **FAST)


def test_a_damaged_result_is_an_error(run, images):
    run.finetune(images, seeds=1, from_scratch=False, **FAST)
    (path,) = run.path.glob("finetune/**/result.npz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="damaged: remove it and repeat the command"):
        run.finetune(images, seeds=1, from_scratch=False, **FAST)
