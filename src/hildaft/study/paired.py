"""Ours against every other method, on the same scenes of the same seeds."""

from collections.abc import Callable
from typing import Final

from hildaft.eval.comparison import Paired, RunTest, compare_paired
from hildaft.eval.statistics import Interval
from hildaft.study.collect import Entry
from hildaft.study.outcomes import (
    average_success,
    by_method,
    lengths_of,
    points,
    scenes_of,
    steps,
    successes_of,
)

REFERENCE: Final = "hildaft"
BASELINES: Final = (
    "hg-dagger",
    "hil-conrft",
    "dsrl",
    "dsrl-offline",
    "dsrl-sac",
    "dsrl-direct",
    "bc",
)
"""Methods that are not ours; the rest are ours with something changed."""


def compare(document: Entry, method: str, other: str) -> Paired | None:
    """Two methods on the seeds both have, where bench and scenes were the same; None where there are none."""
    groups = by_method(document)
    first = {run["seed"]: run for run in groups.get(method, [])}
    second = {run["seed"]: run for run in groups.get(other, [])}
    seeds = [
        seed
        for seed in sorted(first.keys() & second.keys())
        if scenes_of(first[seed]) == scenes_of(second[seed])
        and first[seed].get("settings") == second[seed].get("settings")
    ]
    if not seeds:
        return None
    a, b = ([runs[seed] for seed in seeds] for runs in (first, second))
    return compare_paired(
        [successes_of(run) for run in a],
        [successes_of(run) for run in b],
        [lengths_of(run) for run in a],
        [lengths_of(run) for run in b],
    )


def paired_table(document: Entry) -> list[str]:
    """Ours against every other method, episode by episode, the best of them marked."""
    groups = by_method(document)
    others = [m for m in groups if m != REFERENCE]
    if REFERENCE not in groups or not others:
        return []
    baselines = [m for m in others if m in BASELINES]
    best = max(baselines, key=lambda m: average_success(groups[m]).estimate, default=None)
    lines = [
        "",
        f"## {REFERENCE} against the others",
        "",
        f"Same seeds, same evaluation episodes.{f' Best of the baselines: **{best}**.' if best else ''} Differences of "
        "success in points and of length in steps, failures at 50, with 95 % bootstrap intervals over seeds and "
        "episodes. The p beside them are of episodes (McNemar's exact test on those that one of the two solved alone, "
        "Wilcoxon's signed-rank test on the lengths): they tell these trained policies apart, not the methods. What "
        'few runs say of the methods stands under "over runs": each seed is one observation (95 % t interval, paired '
        "t-test).",
        "",
        "| against | seeds | episodes | success | p, episodes | over runs | p, runs | solved alone: ours, theirs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lengths = [
        "",
        "| against | length | p, episodes | over runs | p, runs |",
        "|---|---|---|---|---|",
    ]
    for method in others:
        paired = compare(document, REFERENCE, method)
        if paired is None:
            continue
        name = f"**{method}**" if method == best else method
        lines.append(
            f"| {name} | {paired.seeds} | {paired.pairs} | {points(paired.success)} | {paired.p_success:.2g} |"
            f" {_over_runs(paired.success_runs, points)} | {paired.only_a}, {paired.only_b} |"
        )
        lengths.append(
            f"| {name} | {steps(paired.length)} | {paired.p_length:.2g} |"
            f" {_over_runs(paired.length_runs, steps)} |"
        )
    return lines + lengths


def _over_runs(test: RunTest | None, show: Callable[[Interval], str]) -> str:
    return "- | -" if test is None else f"{show(test.difference)} | {test.p:.2g}"
