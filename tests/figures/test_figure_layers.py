from typing import Any

import numpy as np

from selftaught.figures import layers, svg
from selftaught.figures.style import MUTED, SERIES


def probe(trained: list[float], random: list[float | None], std: float | None = None) -> dict[str, Any]:
    rows = [
        {"layer": f"layer{place}", "accuracy": accuracy, "std": std, "random": chance, "random_std": None}
        for place, (accuracy, chance) in enumerate(zip(trained, random, strict=True), start=1)
    ]
    return {"data": "cifar10", "metric": "accuracy", "chance": 0.1, "pixels": 0.4, "layers": rows}


def levels(axes: Any) -> list[float]:
    """Heights of the lines that cross the whole axes."""
    across = [line for line in axes.lines if line.get_transform() == axes.get_yaxis_transform(which="grid")]
    return [float(line.get_ydata()[0]) for line in across]


def test_one_run_is_plotted_with_its_baselines() -> None:
    axes = layers({"rot": probe([0.5, 0.7, 0.6], [0.45, 0.44, 0.43], std=0.01)}).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[0, 0.5], [1, 0.7], [2, 0.6]])
    np.testing.assert_array_equal(axes.lines[1].get_xydata(), [[0, 0.45], [1, 0.44], [2, 0.43]])
    assert levels(axes) == [0.4, 0.1]
    bars = [segment for collection in axes.collections for segment in collection.get_segments()]
    np.testing.assert_allclose(bars, [[[0, 0.49], [0, 0.51]], [[1, 0.69], [1, 0.71]], [[2, 0.59], [2, 0.61]]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["layer1", "layer2", "layer3"]
    assert {text.get_text() for text in axes.texts} == {"trained", "random weights", "raw pixels", "chance"}
    assert axes.get_ylabel() == "top-1 accuracy"
    assert axes.get_xlabel() == "layer, from first to last"


def test_labels_are_in_the_order_of_their_lines() -> None:
    axes = layers({"rot": probe([0.5, 0.451], [0.45, 0.45])}).axes[0]
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert heights["trained"] > heights["random weights"] > heights["raw pixels"] > heights["chance"]


def test_runs_with_equal_random_weights_share_one_line() -> None:
    axes = layers({"a": probe([0.5, 0.7], [0.4, 0.41]), "b": probe([0.6, 0.5], [0.4, 0.41])}).axes[0]
    assert [line.get_color() for line in axes.lines[:3]] == [SERIES[0], SERIES[1], MUTED]
    assert {text.get_text() for text in axes.texts} == {"a", "b", "random weights", "raw pixels", "chance"}


def test_runs_with_their_own_random_weights_have_a_line_each() -> None:
    axes = layers({"a": probe([0.5, 0.7], [0.4, 0.41]), "b": probe([0.6, 0.5], [0.3, 0.31])}).axes[0]
    assert [line.get_color() for line in axes.lines[:4]] == [*SERIES[:2], *SERIES[:2]]
    np.testing.assert_array_equal(axes.lines[3].get_ydata(), [0.3, 0.31])


def test_encoders_of_different_depths_are_aligned_by_relative_depth() -> None:
    axes = layers({"a": probe([0.5, 0.6, 0.7], [None] * 3), "b": probe([0.4, 0.5], [None] * 2)}).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [0, 0.5, 1])
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), [0, 1])
    assert "depth" in axes.get_xlabel()


def test_layers_of_an_encoder_with_and_without_an_embedding_are_aligned() -> None:
    simclr, rotation = probe([0.5, 0.6, 0.7], [None] * 3), probe([0.4, 0.5], [None] * 2)
    simclr["layers"][2]["layer"] = "embedding"
    axes = layers({"rotation": rotation, "simclr": simclr}).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [0, 1])
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), [0, 1, 2])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["layer1", "layer2", "embedding"]


def test_levels_that_differ_between_runs_are_omitted() -> None:
    other = probe([0.4, 0.5], [None] * 2) | {"pixels": 0.3}
    assert levels(layers({"a": probe([0.5, 0.6], [None] * 2), "b": other}).axes[0]) == [0.1]


def test_missing_values_leave_gaps() -> None:
    given = probe([0.5, 0.6], [None, None]) | {"pixels": None, "chance": float("nan")}
    given["layers"][1]["accuracy"] = None
    axes = layers({"a": given}).axes[0]
    assert len(axes.lines) == 1
    assert np.isnan(np.asarray(axes.lines[0].get_ydata())).tolist() == [False, True]
    assert svg(axes.figure).startswith("<svg")


def test_names_of_many_layers_are_rotated() -> None:
    axes = layers({"a": probe([0.5] * 12, [0.4] * 12)}).axes[0]
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {35.0}
