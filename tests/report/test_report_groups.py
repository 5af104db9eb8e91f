"""Groups of runs that differ in the seed only, and paired intervals between them."""

import json
from pathlib import Path

import numpy as np
import pytest
from fake_runs import probed_run

from selftaught.errors import UserError
from selftaught.report.groups import group_results, sentences
from selftaught.report.record import read_records


def test_runs_that_differ_in_the_seed_only_are_one_group(tmp_path: Path) -> None:
    runs = [probed_run(tmp_path / f"rot{seed}", (0.9, 0.5 + seed / 100), seed) for seed in range(3)]
    runs.append(probed_run(tmp_path / "other", (0.9, 0.6), batch_size=8))
    three, one = group_results(read_records(runs))
    assert (three.name, one.name) == ("rot0 (mean of 3 seeds)", "other")
    assert three.layer == "layer2"  # by held-out accuracy, though layer1 is better on test images
    arrays = [np.load(run / "probes" / "0.npz")["trained"][0, 1] for run in runs[:3]]
    assert three.accuracies == pytest.approx([array.mean() for array in arrays])
    assert three.std == pytest.approx(np.std([array.mean() for array in arrays], ddof=1))
    assert one.std is None
    gain, low, high = three.own.minus(three.random)
    assert gain == pytest.approx(np.mean(arrays) - three.random.mean)
    assert low < gain < high


def test_a_clear_difference_is_a_sentence_and_a_small_one_is_not_decided(tmp_path: Path) -> None:
    runs = [
        probed_run(tmp_path / "good", (0.5, 0.60)),
        probed_run(tmp_path / "worse", (0.5, 0.50), batch_size=8),
        probed_run(tmp_path / "same", (0.5, 0.601), batch_size=9),
    ]
    good, worse, same = group_results(read_records(runs))
    clear, close, note = sentences([good, worse, same])
    value, low, high = good.own.minus(worse.own)
    assert clear == (
        f"cifar10 (ridge, 50,000 labels): good is better than worse by {value:.3f} top-1 accuracy (95 % interval "
        f"{low:.3f} to {high:.3f}). One run each: variation between runs is not included. They differ in batch size "
        "only: 256 and 8."
    )
    assert ": not decided: good and same differ by " in close
    assert "the 2 intervals are not corrected for multiple comparisons" in note


def test_the_only_setting_that_keeps_runs_from_being_seeds_of_one_group_is_named(tmp_path: Path) -> None:
    runs = [
        probed_run(tmp_path / "one", (0.5, 0.6), precision="bf16"),
        probed_run(tmp_path / "two", (0.5, 0.5), 1, precision="32"),
        probed_run(tmp_path / "three", (0.5, 0.4), 2, precision="32", batch_size=8),
    ]
    first, second, _ = sentences(group_results(read_records(runs)))
    assert first.endswith("They differ in precision only: bf16 and 32.")
    assert "They differ" not in second


def test_seeds_that_differ_a_lot_decide_nothing(tmp_path: Path) -> None:
    """Of two seeds each, with a spread much larger than that over test images."""
    runs = [probed_run(tmp_path / f"a{seed}", (0.5, rate), seed) for seed, rate in enumerate((0.4, 0.7))]
    runs += [
        probed_run(tmp_path / f"b{seed}", (0.5, rate), seed, batch_size=8) for seed, rate in enumerate((0.35, 0.6))
    ]
    (sentence,) = sentences(group_results(read_records(runs)))
    assert "not decided" in sentence
    assert "Variation between 2 and 2 seeds is included." in sentence
    assert "too few to decide" in sentence
    (single,) = sentences(group_results(read_records([runs[0], runs[2]])))
    assert "is better than" in single


def test_intervals_cover_the_layers_that_held_out_images_leave_open(tmp_path: Path) -> None:
    """The other layer of the better run is worse than the other run, so which is better is open."""
    runs = [
        probed_run(tmp_path / "good", (0.40, 0.60)),
        probed_run(tmp_path / "worse", (0.3, 0.50), batch_size=8),
    ]
    good, worse = group_results(read_records(runs))
    gain, low, high = good.gain()
    assert "good is better than worse" in sentences([good, worse])[0]
    path = runs[0] / "probes" / "0.json"
    probe = json.loads(path.read_text())
    probe["gain"] |= {"layers": ["layer1", "layer2", "nonsense"], "random_layers": "layer1"}
    path.write_text(json.dumps(probe))
    good, worse = group_results(read_records(runs))
    other = good.choices[1].minus(good.random)
    assert other[1] < low
    assert good.gain() == (gain, other[1], high)
    assert "not decided: good and worse differ by " in sentences([good, worse])[0]


def test_few_test_images_decide_nothing(tmp_path: Path) -> None:
    runs = [probed_run(tmp_path / "a", (0.5, 0.6), count=12), probed_run(tmp_path / "b", (0.5, 0.5), count=12, steps=9)]
    (sentence,) = sentences(group_results(read_records(runs)))
    assert "not decided" in sentence
    assert "12 test images and these seeds are too few to decide" in sentence


def test_other_test_images_are_not_compared(tmp_path: Path) -> None:
    runs = [probed_run(tmp_path / "a", (0.5, 0.6)), probed_run(tmp_path / "b", (0.5, 0.5), batch_size=8)]
    arrays = dict(np.load(runs[1] / "probes" / "0.npz"))
    np.savez(runs[1] / "probes" / "0.npz", **{**arrays, "test_ids": arrays["test_ids"] + 1})
    assert sentences(group_results(read_records(runs))) == []


def change_probe(run: Path, **facts: object) -> None:
    path = run / "probes" / "0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def test_probes_with_other_settings_are_neither_compared_nor_seeds_of_one_group(tmp_path: Path) -> None:
    """k-NN with k = 3 against k = 200 is a difference of probes, not of runs."""
    runs = [probed_run(tmp_path / f"a{seed}", (0.5, 0.6), seed) for seed in range(2)]
    for run, k in zip(runs, (3, 200), strict=True):
        change_probe(run, probe="knn", settings={"k": k, "temperature": 0.07})
    few, many = group_results(read_records(runs))
    assert [few.probe, many.probe] == ["cifar10 (knn, 50,000 labels, k 3)", "cifar10 (knn, 50,000 labels, k 200)"]
    assert (few.name, many.name) == ("a0", "a1")
    assert sentences([few, many]) == []
    change_probe(runs[1], settings={"k": 3, "temperature": 0.07})
    (both,) = group_results(read_records(runs))
    assert (both.name, both.probe) == ("a0 (mean of 2 seeds)", "cifar10 (knn, 50,000 labels)")


def test_a_run_that_was_probed_at_two_sizes_is_not_compared_with_itself(tmp_path: Path) -> None:
    run = probed_run(tmp_path / "a", (0.5, 0.6))
    change_probe(run, size=32)
    probe = json.loads((run / "probes" / "0.json").read_text())
    (run / "probes" / "1.json").write_text(json.dumps({**probe, "size": 64}))
    groups = group_results(read_records([run]))
    assert len(groups) == 2
    assert sentences(groups) == []


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    run = probed_run(tmp_path / "a", (0.5, 0.6))
    path = run / "probes" / "0.npz"
    arrays = dict(np.load(path))
    for wrong in (
        {"labels": arrays["labels"][:5]},
        {"trained": arrays["trained"].astype(float)},
        {"layers": arrays["layers"][:1]},
    ):
        np.savez(path, **{**arrays, **wrong})
        with pytest.raises(UserError, match=r"0\.npz is damaged"):
            group_results(read_records([run]))
    path.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"0\.npz is damaged"):
        group_results(read_records([run]))
    path.unlink()
    assert group_results(read_records([run])) == []
    found = json.loads((run / "probes" / "0.json").read_text())
    (run / "probes" / "0.json").write_text(json.dumps({**found, "correctness": "../../outside.npz"}))
    assert group_results(read_records([run])) == []


def test_the_same_test_images_under_another_path_are_compared(tmp_path: Path) -> None:
    runs = [probed_run(tmp_path / "good", (0.5, 0.8)), probed_run(tmp_path / "worse", (0.5, 0.5), batch_size=8)]
    path = runs[1] / "probes" / "0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "data": "/elsewhere/cifar10"}))
    (sentence,) = sentences(group_results(read_records(runs)))
    assert sentence.startswith("cifar10 (ridge, 50,000 labels): good is better than worse")
