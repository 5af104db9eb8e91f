"""Every task gives the same views, losses and weights whether one process trains it or several share its batches.

The table of results/processes.md: PYTHONPATH=src:tests:tests/pretext python tests/pretext/test_processes.py 5 2
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import shared_batches
import torch
from shared_batches import CASES, WRONG
from tiny_tasks import NARROW_HEADS

from processes import finish, fork
from selftaught.pretext import TASKS

STEPS = 3
"""Two epochs, so that what happens before an epoch happens after training, too."""
ROUNDING = 1e-7
"""Relative change of the initial weights, about one rounding error of fp32."""
MOST = 1e-3
"""Largest difference of losses, relative to them, and of weights, relative to their change in training. Measured: 4e-4
for a task with large gradients, 1e-6 for most."""


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        for change in NARROW_HEADS:
            patch.setattr(*change)
        return shared_batches.all_trained(tmp_path_factory.mktemp("one"), STEPS)


def several(count: int, folder: Path, steps: int = STEPS, *names: str) -> list[dict[str, Any]]:
    ended = finish(fork(count, shared_batches.save_all_trained, folder, steps, names or tuple(CASES)), 3600)
    assert all(code == 0 for code, _ in ended), "\n".join(output for _, output in ended)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(count)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> list[dict[str, Any]]:
    return several(2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def four(tmp_path_factory) -> list[dict[str, Any]]:
    return several(4, tmp_path_factory.mktemp("four"))


def same_views(alone: dict[str, Any], parts: list[dict[str, Any]]) -> bool:
    for step, views in enumerate(alone["views"]):
        for name, whole in views.items():
            found = [part["views"][step][name] for part in parts]
            shared = len(found[0]) == len(whole)  # by all images, such as the indices of negatives
            if not (
                all(torch.equal(each, whole) for each in found) if shared else torch.equal(torch.cat(found), whole)
            ):
                return False
    return True


def loss_difference(alone: dict[str, Any], first: dict[str, Any]) -> float:
    """Of all that is logged, relative to its largest value."""
    lines = list(zip(alone["lines"], first["lines"], strict=True))
    assert lines
    names = lines[0][0].keys()
    assert all(line.keys() == names for pair in lines for line in pair)
    return max(
        max(abs(one[name] - other[name]) for one, other in lines) / (max(abs(one[name]) for one, _ in lines) + 0.1)
        for name in names
    )


def weight_difference(alone: dict[str, Any], first: dict[str, Any]) -> float:
    """Of all weights and buffers, relative to their change."""
    apart = changed = 0.0
    for key, value in alone["state"].items():
        other = first["state"][key]
        assert value.shape == other.shape
        assert value.dtype == other.dtype
        if value.is_floating_point() and value.isfinite().all():
            apart += float((value.double() - other.double()).square().sum())
            changed += float((value.double() - alone["start"][key].nan_to_num().double()).square().sum())
        else:
            assert torch.equal(value.nan_to_num(), other.nan_to_num()), key
    return (apart / changed) ** 0.5


def require_equal(alone: dict[str, Any], parts: list[dict[str, Any]]) -> None:
    assert same_views(alone, parts), "views differ"
    for part in parts[1:]:
        for key, value in parts[0]["state"].items():
            assert torch.equal(value.nan_to_num(), part["state"][key].nan_to_num()), f"{key} differs between processes"
    assert loss_difference(alone, parts[0]) < MOST
    assert weight_difference(alone, parts[0]) < MOST


RIGHT = [name for name in CASES if name not in {kind.__name__ for kind in WRONG}]


@pytest.mark.parametrize("name", RIGHT)
def test_two_processes_train_as_one(name, single, pair):
    require_equal(single[name], [part[name] for part in pair])


@pytest.mark.slow
@pytest.mark.parametrize("name", RIGHT)
def test_four_processes_train_as_one(name, single, four):
    require_equal(single[name], [part[name] for part in four])


@pytest.mark.parametrize("name", [kind.__name__ for kind in WRONG])
def test_wrong_tasks_fail(name, single, pair):
    with pytest.raises(AssertionError):
        require_equal(single[name], [part[name] for part in pair])


def table(steps: int, counts: tuple[int, ...], folder: Path) -> None:
    """Print the largest differences for every task in the table, after some steps with one and with more processes.

    The last columns are one process again, with initial weights changed by about one rounding error: what training
    makes of rounding.
    """
    shared_batches.narrow()
    torch.set_num_threads(1)
    alone = shared_batches.all_trained(folder / "1", steps, TASKS)
    changed = shared_batches.all_trained(folder / "changed", steps, TASKS, noise=ROUNDING)
    groups = []
    for count in counts:
        (folder / str(count)).mkdir()
        groups.append(several(count, folder / str(count), steps, *TASKS))
    heads = [*map(str, counts), "1 changed"]
    print("| task |" + "".join(f" logged, {head} | weights, {head} |" for head in heads))
    print("|---|" + "---|---|" * len(heads))
    for name in TASKS:
        cells = []
        for group in groups:
            same = same_views(alone[name], [part[name] for part in group])
            differences = loss_difference(alone[name], group[0][name]), weight_difference(alone[name], group[0][name])
            cells += [f"{each:.0e}" if same else "other views" for each in differences]
        pair = alone[name], changed[name]
        cells += [f"{each:.0e}" for each in (loss_difference(*pair), weight_difference(*pair))]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    table(int(sys.argv[1]), tuple(map(int, sys.argv[2:])), Path(tempfile.mkdtemp()))
