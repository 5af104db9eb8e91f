"""The script that correlates feature quality without labels with the gain of a probe."""

import json
import math

import numpy as np
import pytest
from benchmarks import quality_vs_probe
from benchmarks.quality_vs_probe import Point, over_layers, rank_correlation, within_layer
from fake_runs import fake_run, probe

LAYERS = ("layer1", "layer2")


def ranks(values):
    """Ranks from 1, the mean rank for ties, counted one by one."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def points(ranks_of_runs, gains, layer="layer1"):
    return [Point(f"run{n}", layer, {"rank": r}, g) for n, (r, g) in enumerate(zip(ranks_of_runs, gains, strict=True))]


def test_spearman_is_the_correlation_of_ranks():
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 6, 12).tolist(), generator.normal(size=12).tolist()
    expected = np.corrcoef(ranks(first), ranks(second))[0, 1]
    assert rank_correlation(first, second) == pytest.approx(expected)


def test_the_interval_within_a_layer_is_that_of_bonett_and_wright():
    ranked, gains = [1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10], [0.1, 0.2, 0.15, 0.3, 0.25, 0.5, 0.4, 0.45, 0.9, 0.8]
    found = within_layer(points(ranked, gains), "rank")
    r = float(np.corrcoef(ranks(ranked), ranks(gains))[0, 1])
    half = 1.959964 * math.sqrt((1 + r * r / 2) / 7)
    expected = [math.tanh(0.5 * math.log((1 + r) / (1 - r)) + sign * half) for sign in (-1, 1)]
    assert [found.low, found.high] == pytest.approx(expected)


def test_the_interval_within_a_layer_covers_the_truth():
    """95 % of the intervals contain the correlation of ranks of a bivariate normal distribution, 6 asin(r / 2) / pi."""
    generator, r, covered = np.random.default_rng(0), 0.6, 0
    truth = 6 / math.pi * math.asin(r / 2)
    for _ in range(300):
        first = generator.normal(size=20)
        second = r * first + math.sqrt(1 - r * r) * generator.normal(size=20)
        found = within_layer(points(first.tolist(), second.tolist()), "rank")
        covered += found.low <= truth <= found.high
    assert 0.91 < covered / 300 <= 0.99


def test_few_runs_have_no_interval_and_equal_values_no_correlation():
    few = within_layer(points([1.0, 2, 3, 4], [0.1, 0.2, 0.3, 0.4]), "rank")
    assert (few.value, few.low, str(few)) == (pytest.approx(1), None, "+1.00 (no interval)")
    assert str(within_layer(points([1.0] * 6, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), "rank")) == "n.a."


def test_layers_of_a_run_do_not_count_as_independent():
    """Ten copies of each layer leave the interval over all layers as wide as it is."""
    generator = np.random.default_rng(1)
    own = points(generator.normal(size=8).tolist(), generator.normal(size=8).tolist())
    copies = [Point(p.run, f"layer{n}", p.quality, p.gain) for p in own for n in range(10)]
    once, often = over_layers(own, "rank"), over_layers(copies, "rank")
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    assert once.high - once.low > 0.5


@pytest.fixture
def runs(tmp_path):
    """Six runs whose gain rises with the effective rank at layer1 and falls with it at layer2."""
    made = []
    for number in range(6):
        table = probe(
            [0.5 + 0.01 * number, 0.5 - 0.01 * number], [0.4, 0.4], layers=LAYERS, step=7, weights=f"w{number}"
        )
        run = fake_run(tmp_path / f"run{number}", probes=[table], lines=3)
        values = {"std": 0.1, "alignment": 0.5, "uniformity": -1.0, "dead": 0}
        rows = [
            {
                "layer": layer,
                "channels": 8,
                "trained": {"rank": 1.0 + number, **values},
                "random": {"rank": 1.0, **values},
            }
            for layer in LAYERS
        ]
        (run / "quality").mkdir()
        content = {"data": "cifar10", "images": 100, "rows": rows, "step": 7, "weights": f"w{number}"}
        (run / "quality" / "cifar10.json").write_text(json.dumps(content))
        made.append(run)
    return made


def test_the_table_has_a_row_per_measure_and_a_column_per_layer(runs, capsys):
    quality_vs_probe.main([str(run) for run in runs])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| measure | all layers | layer1 | layer2 |"
    (rank,) = [line for line in lines if line.startswith("| rank |")]
    assert "+1.00 (" in rank.split("|")[3]
    assert "-1.00 (" in rank.split("|")[4]
    assert any(line == "| dead | n.a. | n.a. | n.a. |" for line in lines)
    assert lines[-1].endswith("6 runs.")


def test_evaluations_of_other_weights_are_no_points(runs, capsys):
    for path in (runs[0] / "quality").iterdir():
        path.write_text(path.read_text().replace('"w0"', '"other"'))
    quality_vs_probe.main([str(run) for run in runs])
    out = capsys.readouterr().out
    assert f"{runs[0]}: no `quality` and ridge probe of the same weights" in out
    assert "5 runs." in out
    with pytest.raises(SystemExit, match="no run has both"):
        quality_vs_probe.main([str(run) for run in runs] + ["--probe", "svm"])
