"""What the command line cannot read is said in one sentence: what must hold, what was found, what to do."""

import pytest

from selftaught.cli import main


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["pretrain", "x", "--size", "abc"], "--size must be a whole number, found 'abc': give one, or leave it out."),
        (["pretrain", "x", "--minutes=soon"], "--minutes must be a number, found 'soon': give one, or leave it out."),
        (["pretrain", "x", "--resume=maybe"], "--resume must be yes or no, found 'maybe': give one, or leave it out."),
        (
            ["pretrain", "x", "--crop-area", "1"],
            "--crop-area must be followed by 2 values, found 1: give as many, or leave it out.",
        ),
        (["pretrain", "x", "--size"], "--size must be followed by a value, found 0: give as many, or leave it out."),
        (
            ["probe"],
            "`selftaught probe` needs RUN, found none: give it; `selftaught probe --help` says what it is.",
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
