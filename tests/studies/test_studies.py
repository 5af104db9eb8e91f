"""Studies: what is refused before training, the verdict, and a study that is killed and continued."""

import dataclasses
import itertools
import json
import math
import os
import re
import signal
import sys
import time
from pathlib import Path

import endless_probe
import numpy as np
import pytest
from PIL import Image
from scipy import stats
from tiny_study import TINY, run_without_measurement, written

from forks import Fork, run_command
from selftaught.api.run import Run
from selftaught.cli import main
from selftaught.config.settings import Settings
from selftaught.display import progress
from selftaught.encoders import make_encoder
from selftaught.errors import UserError
from selftaught.studies import planning
from selftaught.studies.checks import check_comparison
from selftaught.studies.definition import Comparison, parse_study
from selftaught.studies.grid import make_grid, try_baseline
from selftaught.studies.library import list_studies, load_study, names
from selftaught.studies.outcome import chosen_layer, compare, judge
from selftaught.studies.page import COST, known
from selftaught.studies.results import Result
from selftaught.studies.study import Options, plan_study, run_study
from selftaught.studies.wording import FURTHER, conclusion, further
from selftaught.training.interruption import Stop

FEW = {"evaluations": [{"few_labels": {"labels_per_class": [5, 1000]}}]}
"""Changes of the tiny study."""


def page_without_cost(page: Path) -> list[str]:
    return [line for line in page.read_text().splitlines() if not line.startswith(COST)]


# --- the verdict --------------------------------------------------------------------------------------------------


def results(rates: list[float], seed: int, count: int = 400) -> list[Result]:
    """A probe of two layers for each seed; layer b is best on held-out images, and worse on test images."""
    found = []
    for number, rate in enumerate(rates):
        rng = np.random.default_rng([seed, number])
        layers = {"a": rng.random((1, count)) < rate + 0.1, "b": rng.random((1, count)) < rate}
        rows = [{"layer": "a", "held_out": 0.2}, {"layer": "b", "held_out": 0.9}]
        random = {f"random/{name}": rng.random((3, count)) < 0.2 for name in layers}
        arrays = {f"layer/{name}": value for name, value in layers.items()} | random
        found.append(Result({"layers": rows}, arrays, number))
    return found


def test_the_interval_is_that_of_the_formula_over_seeds_and_images():
    found = {"x": results([0.7, 0.75, 0.72], 1), "y": results([0.5, 0.52, 0.55], 2)}
    outcome = compare(Comparison(variant="x", against="y"), found)
    assert (outcome.first.place, outcome.second.place) == ("b", "b")  # chosen on held-out images
    ours, theirs = (np.stack([r.correct["layer/b"][0] for r in found[name]]).astype(float) for name in "xy")
    # Bonett and Price: two pseudo-observations, one in favor of each side; plus the variance over paired seeds.
    d = ours.mean(0) - theirs.mean(0)
    n, seeds = len(d), 3
    center = d.sum() / (n + 2)
    of_images = ((np.square(d).sum() + 2) / (n + 2) - center**2) / (n + 2)
    of_seeds = np.var(ours.mean(1) - theirs.mean(1), ddof=1) / seeds
    degrees = (of_images + of_seeds) ** 2 / (of_images**2 / (n - 1) + of_seeds**2 / (seeds - 1))
    margin = stats.t.ppf(0.975, degrees) * math.sqrt(of_images + of_seeds)
    assert outcome.low == pytest.approx(center - margin)
    assert outcome.high == pytest.approx(center + margin)
    assert outcome.value == pytest.approx(ours.mean() - theirs.mean())
    assert outcome.verdict == "supported"
    assert compare(Comparison(variant="y", against="x"), found).verdict == "contradicted"
    assert compare(Comparison(variant="y", against="x", expected="lower"), found).verdict == "supported"


def test_random_weights_are_independent_of_the_seeds():
    found = {"x": results([0.7, 0.75], 1)}
    outcome = compare(Comparison(variant="x", against="random weights", layer="first"), found)
    assert outcome.second.correct.shape == (3, 400)
    assert not outcome.paired
    assert "2 seeds, 3 initializations" in conclusion(outcome.comparison, outcome)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.01, 0.01, "supported"), (-0.03, 0.01, "undecided"), (0.001, 0.03, "undecided"), (0.021, 0.03, "contradicted")],
)
def test_equal_means_within_the_margin(low, high, verdict):
    assert judge(Comparison(variant="x", against="y", expected="equal", margin=0.02), low, high) == verdict


def test_the_number_of_seeds_that_would_decide_does_decide():
    pairs = [(0.60, 0.55), (0.56, 0.55), (0.61, 0.56)]
    found = {"x": results([a for a, _ in pairs], 1, 20_000), "y": results([b for _, b in pairs], 1, 20_000)}
    outcome = compare(Comparison(variant="x", against="y"), found)
    needed = outcome.seeds_to_decide
    assert outcome.verdict == "undecided"
    assert needed is not None
    assert f"{needed} seeds would decide" in conclusion(outcome.comparison, outcome)
    cells = dict(zip(FURTHER, further(outcome.comparison, outcome), strict=True))
    assert cells["seeds that would decide"] == str(needed)
    assert cells["difference (95 % interval)"] == f"{outcome.value:+.3f} ({outcome.low:+.3f} to {outcome.high:+.3f})"
    assert cells["variant"] == f"x ({outcome.first.place}) {outcome.first.mean:.3f}"
    # The same spread with that many seeds: repeat the differences, corrected for the divisor n - 1 of the variance.
    differences = outcome.first.correct.mean(1) - outcome.second.correct.mean(1)
    spread = np.std(differences, ddof=1)

    def excludes_zero(seeds: int) -> bool:
        margin = stats.t.ppf(0.975, seeds - 1) * spread / math.sqrt(seeds)  # the images' part is negligible here
        return margin < outcome.value

    assert excludes_zero(needed + 2)
    assert not excludes_zero(max(needed - 2, 3))


def test_more_seeds_do_not_add_initializations_of_random_weights():
    """Three initializations whose spread alone leaves the difference undecided: no number of seeds would decide."""
    count = 1000
    ours = [Result({"layers": [{"layer": "a", "held_out": 0.5, "random_held_out": 0.5}]},
                   {"layer/a": np.arange(count)[None] < hits,
                    "random/a": np.stack([np.arange(count) < level for level in (480, 580, 680)])}, seed)
            for seed, hits in enumerate((650, 660, 670))]  # fmt: skip
    outcome = compare(Comparison(variant="x", against="random weights"), {"x": ours})
    margin = stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert outcome.value < margin
    assert (outcome.verdict, outcome.seeds_to_decide) == ("undecided", None)
    text = conclusion(outcome.comparison, outcome)
    assert "With 1,000 test images and 3 initializations, not even 1,000 seeds would decide" in text


def test_one_seed_decides_nothing():
    found = {"x": results([0.9], 1), "y": results([0.3], 2)}
    outcome = compare(Comparison(variant="x", against="y"), found)
    assert (outcome.verdict, outcome.seeds_to_decide) == ("undecided", None)
    assert conclusion(outcome.comparison, outcome).count("ne seed") == 2  # once with the interval
    assert further(outcome.comparison, outcome)[-2:] == ["**undecided**", "3 or more"]


def test_runs_of_the_same_seed_are_paired_where_others_failed():
    """Seeds 0 and 2 against 0, 1 and 2: the result is that without seed 1."""
    ours, theirs = results([0.7, 0.75, 0.72], 1), results([0.5, 0.52, 0.55], 2)
    comparison = Comparison(variant="x", against="y")
    outcome = compare(comparison, {"x": [ours[0], ours[2]], "y": theirs})
    expected = compare(comparison, {"x": [ours[0], ours[2]], "y": [theirs[0], theirs[2]]})
    assert outcome.second.seeds == (0, 2)
    assert (outcome.value, outcome.low, outcome.high) == (expected.value, expected.low, expected.high)
    assert compare(comparison, {"x": ours[:1], "y": theirs[1:]}) is None


def test_a_variant_without_parameters_has_one_run_and_is_decided_by_the_seeds_of_the_other():
    comparison = Comparison(variant="x", against="scattering")
    found = {"x": results([0.7, 0.75, 0.72], 1), "scattering": results([0.5], 2)}
    outcome = compare(comparison, found, fixed=["scattering"])
    assert (outcome.seeds, outcome.verdict) == (3, "supported")
    differences = np.append(outcome.first.correct.mean(0) - outcome.second.correct[0], [1, -1])  # one for either side
    over_images, over_seeds = differences.var() / 402, outcome.first.correct.mean(1).var(ddof=1) / 3
    total = over_images + over_seeds
    degrees = total**2 / (over_images**2 / 399 + over_seeds**2 / 2)
    margin = stats.t.ppf(0.975, degrees) * math.sqrt(total)
    assert (outcome.low, outcome.high) == pytest.approx((differences.mean() - margin, differences.mean() + margin))
    assert "over 3 seeds and 400 test images" in conclusion(comparison, outcome)
    assert compare(comparison, found).verdict == "undecided"  # one run of a net with random weights
    alone = compare(comparison, {"x": results([0.7], 1), "scattering": results([0.5], 2)}, ["x", "scattering"])
    assert alone.verdict == "supported"


def labeled(rates: list[list[float]], count: int = 400) -> list[Result]:
    """Few labels for each pretraining seed: accuracy of every draw; from scratch is the same for all seeds."""
    images = np.random.default_rng(0).random((2, count))
    scratch = np.stack([images[0] < 0.5] * len(rates[0]))
    table = {"name": "1,000 per class", "rows": [{"name": "probe"}, {"name": "from scratch"}]}
    return [
        Result(
            {"repeated": "draws", "results": [table]},
            {
                "1,000 per class/probe": np.stack([images[1] < draw for draw in draws]),
                "1,000 per class/from scratch": scratch,
            },
            seed,
        )
        for seed, draws in enumerate(rates)
    ]


def test_the_interval_includes_the_draws_of_labels():
    """Draws are the same for every run: with three seeds and two draws there are two sets of labels, not six."""
    found = {"x": labeled([[0.6, 0.7], [0.62, 0.72], [0.61, 0.71]])}
    comparison = Comparison(variant="x", against="from scratch", labels="1000 per class")
    outcome = compare(comparison, found)
    ours, theirs = (np.stack([r.correct[f"1,000 per class/{row}"] for r in found["x"]]).astype(float)
                    for row in ("probe", "from scratch"))  # fmt: skip
    d = ours - theirs  # (seeds, draws, images)
    images = np.append(d.mean((0, 1)), [1, -1])  # one for either side
    of_images = images.var() / len(images)
    of_seeds, of_draws = d.mean((1, 2)).var(ddof=1) / 3, d.mean((0, 2)).var(ddof=1) / 2
    total = of_images + of_seeds + of_draws
    degrees = total**2 / (of_images**2 / 399 + of_seeds**2 / 2 + of_draws**2)
    margin = stats.t.ppf(0.975, degrees) * math.sqrt(total)
    assert (outcome.low, outcome.high) == pytest.approx(
        (max(images.mean() - margin, -1), min(images.mean() + margin, 1))
    )
    assert outcome.verdict == "undecided"  # seeds and images alone would decide: the mean difference is about 0.16
    assert "paired over 3 seeds, 2 draws of labels and 400 test images" in conclusion(comparison, outcome)
    assert "and 2 draws of labels, not even" in conclusion(comparison, outcome)


def test_the_interval_covers_all_layers_that_held_out_images_do_not_exclude():
    found = {"x": results([0.7, 0.75, 0.72], 1), "y": results([0.6, 0.62, 0.65], 2)}
    undecided = [dataclasses.replace(run, facts={**run.facts, "gain": {"layers": ["b", "a"]}}) for run in found["x"]]
    one, other = (
        compare(Comparison(variant="x", against="y", layer=layer, against_layer="b"), found) for layer in "ab"
    )
    outcome = compare(Comparison(variant="x", against="y"), {**found, "x": [undecided[0], *found["x"][1:]]})
    assert outcome.value == other.value  # of the layer with the best held-out accuracy
    assert (outcome.low, outcome.high) == (min(one.low, other.low), max(one.high, other.high))
    assert (outcome.places(), outcome.places(second=True)) == (["b", "a"], ["b"])
    assert "on held-out images: x: b, a; y: b)" in conclusion(outcome.comparison, outcome)
    named = compare(Comparison(variant="x", against="y", layer="b"), {**found, "x": undecided})
    assert (named.low, named.high) == (other.low, other.high)


def test_a_comparison_that_was_added_later_may_be_wrong():
    """`further` may change when a study is continued, and is not checked again before."""
    found = {"x": results([0.7, 0.75], 1), "y": results([0.6, 0.62], 2)}
    with pytest.raises(UserError, match="no layer called 'c': choose one of a, b, best, first, last"):
        compare(Comparison(variant="x", against="y", layer="c"), found)
    bare = [dataclasses.replace(run, correct={"layer/a": run.correct["layer/a"]}) for run in found["x"]]
    with pytest.raises(UserError, match="'x' has no parameters"):
        compare(Comparison(variant="x", against="random weights", layer="first"), {"x": bare})
    table = labeled([[0.6, 0.7], [0.62, 0.72]])
    with pytest.raises(UserError, match="the labels '20 per class', but there are: 1,000 per class"):
        compare(Comparison(variant="x", against="from scratch", labels="20 per class"), {"x": table})


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"varients": {}}, "there is no key of a study called 'varients': did you mean variants?"),
        ({"comparison": {"variant": "all", "against": "on"}}, "there is no variant called 'on': did you mean one?"),
        ({"comparison": {"variant": "all", "against": "one", "layr": "x"}}, "key of comparison called 'layr'"),
        ({"variants": {"all": {}, "one": {"task": {"copys": "one"}}}}, "variant 'one': .*'task.copys'.*task.copies"),
        ({"variants": {"all": {}, "one": {"task": "rotatoin"}}}, "variant 'one': .*'rotatoin': did you mean rotation"),
        ({"variants": {"all": {}, "one": {"task": {"angles": [0]}}}}, "variant 'one': rotation needs at least two"),
        ({"variants": {"all": {}, "one": {"source": "/no/such/folder"}}}, "variant 'one': no such file or folder"),
        ({"evaluations": [{"probe": "rigde"}]}, "evaluation 1 .*'rigde': did you mean ridge"),
        ({"evaluations": [{"probe": "ridge", "source": "/no/such"}]}, "evaluation 1 .*no such file or folder"),
        ({"evaluations": [{"probe": "ridge", "source": "x.jpg"}]}, "photos have no labels"),
        ({"evaluations": [{"finetune": {"stps": 3}}]}, "'stps': did you mean steps"),
        ({"comparison": {"variant": "all", "against": "one", "layer": "layer9"}}, "variant 'all': .*layer9"),
        ({"comparison": {"variant": "all", "against": "one", "expected": "equal"}}, "margin"),
        ({"variants": {"all": {"seed": 3}, "one": {}}}, "variant 'all': a study sets the seed of every run"),
        ({"comparison": {"variant": "all", "against": "all"}}, "'all' on both sides"),
        ({"comparison": {"variant": "all", "against": "one", "labels": "5 per class"}}, "a probe has all labels"),
        (
            {**FEW, "comparison": {"variant": "all", "against": "one", "labels": "6 per class"}},
            "'6 per class', but there are: 5 per class, 1,000 per class",
        ),
        ({**FEW, "comparison": {"variant": "all", "against": "one", "layer": "layer2"}}, "few labels has no `layer`"),
        (
            {"evaluations": [{"finetune": {}}], "comparison": {"variant": "all", "against": "random weights"}},
            'compare fine-tuning with "from scratch"',
        ),
        ({"variants": [{"all": {}}]}, "variants expects names with values, as in `name: value`, got"),
        ({"evaluations": {"probe": "ridge"}}, "evaluations expects a list, got"),
        ({"comparison": {"variant": "all", "against": "one", "layer": 2}}, "comparison.layer expects text, got 2"),
        ({"seeds": 0}, "seeds: .*got 0"),
        ({"trends": {"axis": "x", "ticks": ["1"], "lines": {"a": ["on"]}}}, "no variant called 'on': did you mean one"),
        (
            {"trends": {"axis": "x", "ticks": ["1", "2"], "lines": {"a": ["one"]}}},
            "'a' needs one variant for each of the 2 `ticks`, got 1",
        ),
        ({"trends": {"axis": "x", "tics": ["1"], "lines": {}}}, "key of trends called 'tics': did you mean ticks"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_trained(changes, text, images, tmp_path, quick, capsys):
    out = tmp_path / "out"
    assert main(["study", written(tmp_path, images, **changes), "--out", str(out)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(text, said), said
    assert not out.exists()


def test_a_folder_of_another_study_is_refused(images, tmp_path, quick):
    out = tmp_path / "out"
    study = written(tmp_path, images, settings={**TINY["settings"], "steps": 1}, seeds=1)
    run_study(study, Options(threads=1), out)
    other = written(tmp_path, images, settings={**TINY["settings"], "steps": 2}, seeds=1)
    with pytest.raises(UserError, match="another study: its settings differs"):
        run_study(other, Options(threads=1), out)


# --- the shipped studies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [row.name for row in list_studies()])
def test_shipped_studies_have_valid_settings_at_every_scale(name):
    _, study = load_study(name)
    for scale in ("small", "full"):
        if getattr(study.scales, scale) is not None:
            grid = make_grid(study, scale)
            assert grid.cells
            for variant in grid.variants:
                assert variant.minutes is None or variant.minutes > 0
            layers = {variant.name: layers_of(variant) for variant in grid.variants}
            for comparison in (study.comparison, *study.further):
                check_comparison(grid, comparison, layers)


def layers_of(variant):
    """The layers of a variant, without its images."""
    if variant.baseline is not None:
        return try_baseline(variant)
    chosen = Settings.of(**variant.settings)
    return list(make_encoder(chosen.general.encoder, **{**chosen.encoder, "size": chosen.general.size or 32}).layers)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names() if load_study(name)[1].source != "scenes/"])
def test_shipped_studies_are_planned_on_a_substitute_source(name, quick, tmp_path):
    size = 96 if load_study(name)[1].source == "imagenette" else 32
    images, rng = tmp_path / "images", np.random.default_rng(0)
    for part in ("train", "test"):
        for label in ("a", "b"):
            (place := images / part / label).mkdir(parents=True)
            for number in range(80):
                Image.fromarray(rng.integers(0, 255, (size, size, 3)).astype(np.uint8)).save(place / f"{number}.png")
    _, study = load_study(name)
    photos = "source" not in study.variants and study.source not in ("cifar10", "imagenette")
    data = [] if photos else [str(images)]
    plan = plan_study(name, Options(data=data, probe_data=str(images), seeds=1))
    assert plan.minutes > 0


def test_a_question_of_your_own_needs_no_paper():
    own = {key: value for key, value in TINY.items() if key not in ("paper", "finding")}
    assert known(parse_study(own, "mine.yaml")) == []
    assert known(parse_study({**own, "finding": "Longer is better."}, "mine.yaml")) == ["Longer is better."]
    assert known(parse_study(TINY, "mine.yaml")) == ["All angles are better. (Gidaris et al., ICLR 2018)"]


def test_studies_are_listed(capsys):
    assert main(["list", "studies", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["studies"]
    assert [row["name"] for row in rows] == sorted(row["name"] for row in rows)
    assert all(row["question"].endswith("?") for row in rows)


def test_sources_can_be_replaced_by_name():
    _, study = load_study("rotation-angles")
    grid = make_grid(study, "small", ["a", "0 and 180=b"], "c", 5)
    assert [variant.data for variant in grid.variants[:2]] == [("a",), ("b",)]
    assert grid.evaluations[0].source == "c"
    assert grid.seeds == 5


def test_each_variant_has_a_result_early_and_the_comparison_that_decides_comes_next():
    variants = {"other": {}, "all": {}, "one": {"task": {"copies": "one"}}}
    grid = make_grid(parse_study({**TINY, "variants": variants, "seeds": 3}, "tiny"), "small")
    assert [f"{cell.variant.name} {cell.seed}" for cell in grid.cells] == [
        "other 0", "all 0", "one 0", "all 1", "one 1", "all 2", "one 2", "other 1", "other 2",
    ]  # fmt: skip


# --- a study from end to end --------------------------------------------------------------------------------------


def test_a_study_with_few_labels_and_a_baseline(images, tmp_path, quick):
    study = written(
        tmp_path, images, seeds=1,
        variants={"all": {}, "k-means": {"baseline": "kmeans"}},
        comparison={"variant": "all", "against": "k-means", "evaluation": 2},
        evaluations=[{"few_labels": {"labels_per_class": [4], "draws": 2, "steps": 3, "from_scratch": False}},
                     {"probe": "knn"}, {"audit": {"images": 8}}],
    )  # fmt: skip
    with pytest.raises(UserError, match="audit"):  # a baseline has no pretext task
        run_study(study, Options(threads=1), tmp_path / "out")


def test_a_null_study_is_undecided_and_a_killed_one_gives_the_same_page(images, tmp_path, quick):
    study = written(tmp_path, images, variants={"all": {}, "one": {}})
    whole = run_study(study, Options(threads=1), tmp_path / "whole")
    text = whole.read_text()
    assert "**Undecided:** all (layer2) and one (layer2) do not differ significantly" in text
    assert '"encoder": {"name": "convnet", "width": 8}' in text
    assert json.loads((whole.parent / "outcome.json").read_text())["verdict"] == "undecided"
    runs = sorted((whole.parent / "runs").iterdir())
    assert [run.name for run in runs] == ["all-0", "all-1", "one-0", "one-1"]
    assert all(Run(run).finished for run in runs)

    # Killed after the first result, in the middle of a write, and with the last run half done.
    out = tmp_path / "killed"
    process = Fork(run_without_measurement, study, str(out))
    deadline = time.monotonic() + 120
    while not list(out.glob("results/*.npz")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(out.glob("results/*.npz"))
    assert not (out / "README.md").exists()
    again = run_study(study, Options(threads=1), out)
    command = f"--out {tmp_path}"
    assert [line for line in page_without_cost(again) if command not in line] == [
        line for line in page_without_cost(whole) if command not in line
    ]
    assert json.loads((out / "outcome.json").read_text()) == json.loads((whole.parent / "outcome.json").read_text())

    # A figure is no part of the definition: the study is drawn again, with the runs that it has.
    before = [path.stat().st_mtime_ns for path in sorted(out.glob("results/*.npz"))]
    lines = {"rotation": ["all", "one"]}
    drawn = written(
        tmp_path, images, variants={"all": {}, "one": {}}, trends={"axis": "x", "ticks": ["a", "1"], "lines": lines}
    )
    assert (
        "![Top-1 accuracy of each layer by x; dashed: random weights](trends-1.svg)"
        in run_study(drawn, Options(threads=1), out).read_text()
    )
    assert "rotation" in (out / "trends-1.svg").read_text()

    # An interrupted study has a page of what is done.
    (out / "results" / "one-1-1.npz").unlink()
    before.pop()
    stop = Stop()
    stop.request()
    assert run_study(study, Options(threads=1), out, stop) is None
    so_far = (out / "README.md").read_text()
    assert so_far.split("\n\n")[1].startswith("**Preliminary: 3 of 4 runs are done.** **Undecided:** all (layer2)")
    outcome = json.loads((out / "outcome.json").read_text())
    assert (outcome["done"], outcome["runs"], len(outcome["comparisons"][0]["sides"][0]["accuracies"])) == (3, 4, 1)
    assert before == [path.stat().st_mtime_ns for path in sorted(out.glob("results/*.npz"))]


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_signal_interrupts_a_probe_and_the_study_continues(images, tmp_path, quick, jobs):
    """A probe may take minutes, and one that was interrupted is simply repeated."""
    study, out = written(tmp_path, images, seeds=1), tmp_path / "out"
    (tmp_path / "sitecustomize.py").write_text(  # of the workers of two jobs
        "import os\nif 'ENDLESS_PROBE' in os.environ:\n    import endless_probe\n    endless_probe.patch()\n"
    )
    begun = tmp_path / "begun"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "ENDLESS_PROBE": str(begun)}
    command = ["study", study, "--out", out, "--jobs", jobs, "--threads", "1"]
    process = Fork(run_command, *command, patch=endless_probe.patch, environment=environment)
    deadline = time.monotonic() + 120
    while not begun.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert begun.exists(), process.communicate(timeout=1)[1]
    with pytest.raises(UserError, match=r"another process runs this study in .*out: wait for it\."):
        run_study(study, Options(threads=1), out)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert told.strip().splitlines()[-1] == f"interrupted; the same command continues: {out}"
    assert run_study(study, Options(threads=1), out).exists()


@pytest.mark.slow
def test_two_processes_give_the_page_of_one(images, tmp_path, quick):
    study = written(tmp_path, images)
    one = run_study(study, Options(threads=1), tmp_path / "one")
    two = run_study(study, Options(threads=1, jobs=2), tmp_path / "two")
    command = f"--out {tmp_path}"
    assert [line for line in page_without_cost(two) if command not in line] == [
        line for line in page_without_cost(one) if command not in line
    ]


def test_plan_reports_runs_and_time_and_writes_nothing(images, tmp_path, quick, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    study = written(tmp_path, images)
    assert main(["study", study, "--plan"]) == 0
    assert "4 runs, each evaluated by: ridge probe" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]
    plan = plan_study(study, Options(seeds=3))
    assert plan.minutes == pytest.approx(sum(each.seconds for each in plan.estimates) / 60)
    assert [each.steps for each in plan.estimates] == [3, 3]


def test_minutes_become_steps_once(images, tmp_path, quick):
    settings = {name: value for name, value in TINY["settings"].items() if name != "steps"}
    study = written(tmp_path, images, settings={**settings, "minutes": 0.1}, seeds=1)
    page = run_study(study, Options(threads=1), tmp_path / "out")
    assert json.loads((page.parent / "study.json").read_text())["steps"] == {"all": 5, "one": 5}
    assert Run(page.parent / "runs" / "one-0").folder.read_config()["steps"] == 5


@pytest.mark.parametrize(
    ("load", "threads", "budget", "busy"),
    [(3.1, 1, "minutes", True), (2.9, 1, "minutes", False), (1.1, 3, "minutes", True), (3.1, 1, "steps", False)],
)
def test_minutes_are_not_measured_silently_on_a_busy_machine(
    images, tmp_path, quick, monkeypatch, capsys, load, threads, budget, busy
):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(progress, "_announced", set())
    settings = {name: value for name, value in TINY["settings"].items() if name != "steps"}
    study = written(tmp_path, images, settings={**settings, budget: 1}, seeds=1)
    plan_study(study, Options(threads=threads))
    assert (f"this machine is busy (load {load})" in capsys.readouterr().err) == busy


def test_precision_is_decided_once_for_all_runs(images, tmp_path, quick, monkeypatch):
    """`auto` measures on a CPU, and on a busy one the next measurement may decide otherwise."""
    measured = itertools.cycle(["bf16", "32"])
    monkeypatch.setattr(planning, "choose_precision", lambda precision, device: next(measured))
    page = run_study(written(tmp_path, images, seeds=1), Options(threads=1), tmp_path / "out")
    runs = [Run(page.parent / "runs" / name) for name in ("all-0", "one-0")]
    assert [run.folder.read_config()["precision"] for run in runs] == ["bf16", "bf16"]


def test_the_last_and_the_best_layer_are_layers_of_the_encoder():
    held = {"layer1": 0.3, "layer2": 0.4, "embedding": 0.5}
    facts = {"layers": [{"layer": layer, "held_out": value} for layer, value in held.items()]}
    results = [Result(facts, {f"layer/{layer}": np.ones((1, 3), bool) for layer in held})]
    assert [chosen_layer(rule, results) for rule in ("first", "last", "best")] == ["layer1", "layer2", "layer2"]
