"""What the evaluations of a study's runs say, pooled by method and task, and how a figure is written."""

from collections.abc import Sequence
from statistics import fmean

from hildaft.eval.comparison import over_seeds
from hildaft.eval.statistics import Interval, wilson_interval
from hildaft.study.collect import Entry


def by_method(document: Entry) -> dict[str, list[Entry]]:
    """Runs by method, in the order they come."""
    groups: dict[str, list[Entry]] = {}
    for run in document["runs"]:
        groups.setdefault(run["method"], []).append(run)
    return groups


def task_names(document: Entry) -> list[str]:
    """Tasks in the order of the evaluations."""
    return list(dict.fromkeys(e["task"] for run in document["runs"] for e in run["eval"]))


def pooled(runs: Sequence[Entry], task: str) -> tuple[int, int]:
    """Successes and episodes of one task over a method's seeds."""
    found = [e for run in runs for e in run["eval"] if e["task"] == task]
    return sum(e["successes"] for e in found), sum(e["episodes"] for e in found)


def successes_of(run: Entry) -> list[bool]:
    """Outcomes of all tasks, in the order of tasks and episodes."""
    return [outcome["success"] for e in run["eval"] for outcome in e["outcomes"]]


def lengths_of(run: Entry) -> list[int]:
    """Lengths of all tasks, failures at the limit, in the same order."""
    return [length for e in run["eval"] for length in e["lengths"]]


def scenes_of(run: Entry) -> list[tuple[str, int]]:
    """Task and seed of every evaluation episode, in the same order."""
    return [(e["task"], outcome["seed"]) for e in run["eval"] for outcome in e["outcomes"]]


def average_success(runs: Sequence[Entry]) -> Interval:
    """Mean over tasks and seeds; the interval is drawn over seeds and episodes.

    Where all episodes went alike there is nothing to draw, and Wilson's interval takes its place.
    """
    outcomes = [[float(s) for s in successes_of(run)] for run in runs]
    every = [value for row in outcomes for value in row]
    if len(set(every)) == 1:
        return wilson_interval(int(sum(every)), len(every))
    return over_seeds(outcomes)


def average_length(runs: Sequence[Entry]) -> Interval:
    """Mean length with failures at the limit."""
    return over_seeds([[float(n) for n in lengths_of(run)] for run in runs])


def solved_length(runs: Sequence[Entry], task: str) -> float | None:
    """Mean length of a task's successful episodes; None where there are none."""
    lengths = [
        outcome["length"]
        for run in runs
        for e in run["eval"]
        if task == e["task"]
        for outcome in e["outcomes"]
        if outcome["success"]
    ]
    return fmean(lengths) if lengths else None


def percent(interval: Interval) -> str:
    """An interval in percent."""
    return f"{100 * interval.estimate:.1f} ({100 * interval.low:.0f}-{100 * interval.high:.0f})"


def points(interval: Interval) -> str:
    """A difference of rates, in points, with its sign."""
    ends = f"{100 * interval.low:+.0f} to {100 * interval.high:+.0f}"
    return f"{100 * interval.estimate:+.1f} ({ends})"


def steps(interval: Interval) -> str:
    """A difference of lengths, in steps, with its sign."""
    return f"{interval.estimate:+.1f} ({interval.low:+.1f} to {interval.high:+.1f})"
