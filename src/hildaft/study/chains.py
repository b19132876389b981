"""The long-horizon page and picture: how many bolts, and where chains broke."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Final

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hildaft.eval.figures import INK, MUTED, PALETTE
from hildaft.eval.statistics import Interval, wilson_interval
from hildaft.study import paper_numbers as paper
from hildaft.study.collect import Entry
from hildaft.study.outcomes import by_method, percent

BOLTS: Final = (1, 2, 3, 4)
TALK: Final = {"none": "silent", "right": "operator talks"}


def results_of(runs: Sequence[Entry], talk: str) -> list[Entry]:
    """The chains of all runs under one kind of talk."""
    return [
        chain
        for run in runs
        for result in run["measured"].values()
        if "chains" in result and result["talk"] == talk
        for chain in result["chains"]
    ]


def success_at(chains: Sequence[Entry], bolts: int) -> Interval:
    """Share of the chains that assembled at least so many bolts, with Wilson's interval."""
    return wilson_interval(sum(c["bolts_done"] >= bolts for c in chains), len(chains))


def page(document: Entry) -> list[str]:
    """Success by number of bolts, steps, and a table of where and why chains broke."""
    lines = [
        "Every chain is of four bolts, three tasks each, no reset; a script moves the end effector between tasks (its "
        "steps are counted apart). A chain ends at its first failure. A column for fewer bolts counts the same chains "
        "up to there, so columns depend on one another. The operator speaks when the policy errs and never tweaks. "
        "Brackets: Wilson's 95 % interval.",
        "",
        "| method | talk | chains | "
        + " | ".join(f"{n} x 3 operations" for n in BOLTS)
        + " | steps per task |"
        " transit steps per chain |",
        "|---|---|---|" + "---|" * (len(BOLTS) + 2),
    ]
    for method, runs in by_method(document).items():
        for talk, label in TALK.items():
            chains = results_of(runs, talk)
            if not chains:
                continue
            steps = [s["steps"] for c in chains for s in c["stages"] if s["success"]]
            cells = [percent(success_at(chains, bolts)) for bolts in BOLTS]
            lines.append(
                f"| {method} | {label} | {len(chains)} | {' | '.join(cells)} |"
                f" {f'{fmean(steps):.1f}' if steps else '-'} |"
                f" {fmean(c['transit_steps'] for c in chains):.0f} |"
            )
    reported = [f"{100 * solved // trials}" for solved, trials in paper.LONG_HORIZON.values()]
    lines.append(f"| paper | operator talks | 10 each | {' | '.join(reported)} | - | - |")
    return [*lines, *_failures(document)]


def _failures(document: Entry) -> list[str]:
    lines = [
        "",
        "## Where chains broke",
        "",
        "| method | talk | task | reason | chains | at bolt 1, 2, 3, 4 |",
        "|---|---|---|---|---|---|",
    ]
    for method, runs in by_method(document).items():
        for talk, label in TALK.items():
            broken = [c for c in results_of(runs, talk) if c["failed_task"] is not None]
            counts = Counter((c["failed_task"], c["reason"]) for c in broken)
            for (task, reason), count in counts.most_common():
                at = [
                    sum(
                        (c["failed_task"], c["reason"], c["failed_bolt"]) == (task, reason, n - 1)
                        for c in broken
                    )
                    for n in BOLTS
                ]
                places = ", ".join(map(str, at))
                lines.append(f"| {method} | {label} | {task} | {reason} | {count} | {places} |")
    return lines


def draw(document: Entry) -> Figure:
    """Success against bolts, and failures by task."""
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    groups = by_method(document)
    kinds = [(m, talk) for m in groups for talk in TALK if results_of(groups[m], talk)]
    tasks = ("upright", "pick", "assemble")
    for number, (method, talk) in enumerate(kinds):
        chains = results_of(groups[method], talk)
        colour = PALETTE[number % len(PALETTE)]
        label = TALK[talk] if len(groups) == 1 else f"{method}, {TALK[talk]}"
        rates = [success_at(chains, bolts) for bolts in BOLTS]
        x = [bolts + 0.06 * (number - (len(kinds) - 1) / 2) for bolts in BOLTS]
        left.vlines(
            x,
            [r.low for r in rates],
            [r.high for r in rates],
            color=colour,
            alpha=0.5,
            linewidth=2.5,
        )
        left.plot(x, [r.estimate for r in rates], "o-", color=colour, label=label)
        shares = [sum(c["failed_task"] == task for c in chains) / len(chains) for task in tasks]
        width = 0.8 / len(kinds)
        places = [place - 0.4 + width * (number + 0.5) for place in range(len(tasks))]
        right.bar(places, shares, 0.9 * width, color=colour)
    reported = [solved / trials for solved, trials in paper.LONG_HORIZON.values()]
    left.plot(
        BOLTS, reported, "D", color="none", markeredgecolor=MUTED, label="paper, operator talks"
    )
    left.set_xticks(BOLTS, [f"{n}" for n in BOLTS])
    left.set_xlabel("bolts assembled in a row")
    left.set_ylim(-0.03, 1.05)
    left.set_title("Chains that got so far, 95 % intervals")
    left.legend(fontsize=9)
    right.set_xticks(range(len(tasks)), tasks)
    right.tick_params(axis="x", labelcolor=INK)
    right.set_title("Share of chains that broke at")
    for axes in (left, right):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure
