"""The conclusion of a comparison in words."""

from selftaught.evaluation.table import digits
from selftaught.studies.definition import Comparison
from selftaught.studies.outcome import MOST_SEEDS, Outcome, Side


def conclusion(comparison: Comparison, outcome: Outcome | None) -> str:
    """The verdict on the comparison that decides, and the figures that it rests on.

    Args:
        comparison: what is compared.
        outcome: None if no seed has a result on both sides.
    """
    if outcome is None:
        sides = f"{comparison.variant} and {comparison.against}"
        return f"**Undecided:** {sides} cannot be compared: no seed has a result of both."
    first, second, difference, interval = _figures(outcome)
    verdict = outcome.verdict
    text = (
        f"**{verdict.capitalize()}:** {_claim(outcome)}. Top-1 accuracy: {first}; {second}; difference {difference} "
        f"(95 % interval {interval}, {_basis(outcome)}). Expected: {_expected(comparison)}."
    )
    return f"{text} {_more(outcome)}" if verdict == "undecided" else text


FURTHER = ("variant", "against", "difference (95 % interval)", "expected", "verdict", "seeds that would decide")
"""Columns of the table of further comparisons."""


def further(comparison: Comparison, outcome: Outcome | None) -> list[str]:
    """A row of the table of further comparisons: a cell for each of `FURTHER`."""
    within = f" within {comparison.margin:g}" if comparison.expected == "equal" else ""
    expected = f"{comparison.expected}{within}"
    if outcome is None:
        return [comparison.variant, comparison.against, "no seed has both", expected, "**undecided**", ""]
    first, second, difference, interval = _figures(outcome)
    needed = ""
    if outcome.verdict == "undecided" and outcome.seeds:
        seeds = outcome.seeds_to_decide
        needed = "3 or more" if outcome.seeds == 1 else f"over {MOST_SEEDS:,}" if seeds is None else f"{seeds:,}"
    return [first, second, f"{difference} ({interval})", expected, f"**{outcome.verdict}**", needed]


def _figures(outcome: Outcome) -> tuple[str, str, str, str]:
    """Both sides with their accuracy, the difference, and its interval."""
    places = digits(outcome.first.correct.shape[1])
    first, second = (f"{_name(side)} {side.mean:.{places}f}" for side in (outcome.first, outcome.second))
    interval = f"{outcome.low:+.{places}f} to {outcome.high:+.{places}f}"
    return first, second, f"{outcome.value:+.{places}f}", interval


def _name(side: Side) -> str:
    return f"{side.name} ({side.place})"


def _claim(outcome: Outcome) -> str:
    comparison, low, high = outcome.comparison, outcome.low, outcome.high
    first, second = _name(outcome.first), _name(outcome.second)
    if outcome.verdict == "undecided":
        if comparison.expected == "equal":
            return f"the interval does not show whether {first} and {second} differ by less than {comparison.margin:g}"
        if low <= 0 <= high:
            return f"{first} and {second} do not differ significantly"
        return f"there is one run each of {first} and {second}"
    if comparison.expected == "equal":
        size = "less" if outcome.verdict == "supported" else "more"
        return f"{first} and {second} differ by {size} than {comparison.margin:g}"
    return f"{first} is {'better' if outcome.value > 0 else 'worse'} than {second}"


def _basis(outcome: Outcome) -> str:
    return f"{_repetitions(outcome)}{_layers(outcome)}"


def _repetitions(outcome: Outcome) -> str:
    """What an interval is over."""
    images = f"{outcome.first.correct.shape[1]:,} test images"
    if outcome.repetitions > 1:
        images = f"{outcome.repetitions} {outcome.repeated} and {images}"
    if not outcome.seeds:
        return f"over {images}; neither depends on a seed"
    if outcome.seeds == 1:
        return f"over {images}; one seed"
    join = "," if outcome.repetitions > 1 else " and"
    if not outcome.paired:
        return f"over {outcome.seeds} seeds, {len(outcome.second.correct)} initializations and {images}"
    both = outcome.first.seeds and outcome.second.seeds
    return f"{'paired over' if both else 'over'} {outcome.seeds} seeds{join} {images}"


def _layers(outcome: Outcome) -> str:
    """The layers that an interval covers, if there are several."""
    if len(outcome.differences) == 1:
        return ""
    sides = ((outcome.first, outcome.places()), (outcome.second, outcome.places(second=True)))
    names = "; ".join(f"{side.name}: {', '.join(places)}" for side, places in sides)
    return f", and over all layers not significantly worse than the best one on held-out images: {names}"


def _expected(comparison: Comparison) -> str:
    if comparison.expected == "equal":
        return f"a difference below {comparison.margin:g}"
    word = "better" if comparison.expected == "higher" else "worse"
    return f"{comparison.variant} is {word} than {comparison.against}"


def _more(outcome: Outcome) -> str:
    """How many seeds would decide."""
    if not outcome.seeds:
        return "More test images would be needed to decide."
    if outcome.seeds == 1:
        return "One seed: the variation between runs is unknown, so nothing is decided; three seeds or more are needed."
    seeds = outcome.seeds_to_decide
    if seeds is None:
        more = "" if outcome.paired else f" and {len(outcome.second.correct)} initializations"
        more += f" and {outcome.repetitions} {outcome.repeated}" if outcome.repetitions > 1 else ""
        several = " between these layers" if len(outcome.differences) > 1 else ""
        return (
            f"With {outcome.first.correct.shape[1]:,} test images{more}, not even {MOST_SEEDS:,} seeds would decide "
            f"about a difference of this size{several}."
        )
    return f"If difference and spread stay as they are, {seeds:,} seeds would decide."
