"""What the command line cannot read is said in one sentence: what must hold, what was found, what to do."""

import pytest

from selftaught.cli import main
from selftaught.errors import UserError
from selftaught.evaluation.features import require_seeds


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["pretrain", "x", "--size", "abc"], "--size expects an integer, got 'abc'."),
        (["pretrain", "x", "--steps", "1.5"], "--steps expects an integer, got '1.5'."),
        (["pretrain", "x", "--minutes=soon"], "--minutes expects a number, got 'soon'."),
        (["pretrain", "x", "--resume=maybe"], "--resume expects true or false, got 'maybe'."),
        (
            ["pretrain", "x", "--crop-area", "1"],
            "--crop-area expects 2 values, got 1.",
        ),
        (["pretrain", "x", "--crop-area="], "--crop-area expects 2 values, got 1."),
        (["pretrain", "x", "--size"], "--size expects a value, got none."),
        (["pretrain", "x", "--task", "--out", "r"], "--task expects a value, got none."),
        (["pretrain", "x", "--steps", "0"], "--steps must be from 1 to 1,000,000,000,000, got 0."),
        (["pretrain", "x", "--steps", "-1", "--restarts", "3"], "--steps must be from 1 to 1,000,000,000,000, got -1."),
        (
            ["probe"],
            "missing required argument RUN. See `selftaught probe --help`.",
        ),
        (
            ["pretrain", "x", "--sise", "3"],
            "Unknown option: --sise. Did you mean --size? See `selftaught pretrain --help`.",
        ),
    ],
)
def test_one_sentence(given, said, capsys):
    assert main(given) == 2
    assert capsys.readouterr().err == f"selftaught: {said}\n"


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (["frobnicate"], "selftaught"),
        (["list", "bogus"], "selftaught list"),
        (["probe", "a", "b", "--data", "c"], "selftaught probe"),
    ],
)
def test_the_rest_says_where_to_look(given, command, capsys):
    assert main(given) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.endswith(f"See `{command} --help`.\n")


@pytest.mark.parametrize("seeds", [0, 1001, 2**63])
def test_a_number_of_seeds_that_would_never_end_is_refused(seeds):
    with pytest.raises(UserError, match=r"--seeds must be from 1 to 1,000, got"):
        require_seeds(seeds)
