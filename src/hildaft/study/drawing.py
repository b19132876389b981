"""The picture of each study, as PNG."""

import io
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Final

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from hildaft.eval.comparison import over_seeds
from hildaft.eval.figures import INK, MUTED, PALETTE, STYLE
from hildaft.eval.statistics import wilson_interval
from hildaft.study.collect import Entry
from hildaft.study.outcomes import (
    average_length,
    average_success,
    by_method,
    pooled,
    task_names,
)
from hildaft.study.pages import reported, with_spoken

_DPI: Final = 130


def render(figure: Callable[[Entry], Figure], document: Entry) -> bytes:
    """A figure of the document, as PNG."""
    with rc_context(
        {**STYLE, "axes.axisbelow": True, "figure.facecolor": "white", "axes.facecolor": "white"}
    ):
        buffer = io.BytesIO()
        figure(document).savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def draw_bars(document: Entry) -> Figure:
    """Success per task and on average, beside episode length; the paper's averages as hollow marks.

    Axes span what is drawn, so that methods that are near one another are told apart.
    """
    groups, names = with_spoken(document), task_names(document)
    figure = Figure(figsize=(10.5, 0.62 * len(groups) + 1.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    for row, (method, runs) in enumerate(groups.items()):
        for number, task in enumerate(names):
            rate = wilson_interval(*pooled(runs, task))
            _mark(
                left,
                rate.estimate,
                rate.low,
                rate.high,
                row - 0.27 + 0.16 * number,
                PALETTE[number],
                4.0,
                task,
            )
        mean = average_success(runs)
        _mark(left, mean.estimate, mean.low, mean.high, row + 0.27, INK, 7.0, "average")
        steps = average_length(runs)
        _mark(right, steps.estimate, steps.low, steps.high, row + 0.1, INK, 7.0, None)
        if theirs := reported(method, groups):
            rate = fmean(theirs[0]) / 100
            left.plot(rate, row + 0.27, "D", color="none", markeredgecolor=MUTED, markersize=7)
    left.plot(
        [], [], "D", color="none", markeredgecolor=MUTED, markersize=7, label="paper, average"
    )
    left.set_yticks(range(len(groups)), list(groups))
    left.tick_params(axis="y", labelcolor=INK)
    left.set_ylim(len(groups) - 0.5, -0.5)
    left.set_xlim(np.floor(10 * left.dataLim.x0) / 10 - 0.02, 1.02)
    left.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    shortest, longest = right.dataLim.intervalx
    right.set_xlim(10 * np.floor(shortest / 10) - 1, 10 * np.ceil(longest / 10) + 1)
    left.set_title("Success, 95 % intervals")
    right.set_title("Episode length (steps, failures at 50)")
    for axes in (left, right):
        axes.grid(axis="x")
    _legend_once(left)
    return figure


def _mark(
    axes: Axes,
    value: float,
    low: float,
    high: float,
    y: float,
    colour: str,
    size: float,
    label: str | None,
) -> None:
    axes.plot([low, high], [y, y], color=colour, linewidth=2.2, alpha=0.45)
    axes.plot(value, y, "o", color=colour, markersize=size, label=label)


def _legend_once(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    first = dict(zip(reversed(labels), reversed(handles), strict=True))
    order = list(dict.fromkeys(labels))
    axes.legend(
        [first[name] for name in order],
        order,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.06),
        ncols=len(order),
        fontsize=9,
    )


def draw_curves(document: Entry) -> Figure:
    """Success and length of each task, and on average, against robot minutes; bands over seeds."""
    groups, names = by_method(document), task_names(document)
    columns = [*names, "average"]
    figure = Figure(figsize=(3.0 * len(columns), 4.8), layout="constrained")
    panels = figure.subplots(2, len(columns), sharex=True, sharey="row")
    for column, task in enumerate(columns):
        for number, (method, runs) in enumerate(groups.items()):
            colour = PALETTE[number % len(PALETTE)]
            wanted = names if task == "average" else [task]
            for row, values in enumerate((_successes, _lengths)):
                _band(panels[row][column], runs, wanted, values, colour, method)
        panels[0][column].set_title(task, color=INK)
        panels[0][column].set_ylim(-0.03, 1.05)
        panels[0][column].yaxis.set_major_formatter(PercentFormatter(1.0))
        panels[1][column].set_ylim(0, 52)
        panels[1][column].set_xlabel("robot minutes")
    panels[0][0].set_ylabel("success")
    panels[1][0].set_ylabel("steps, failures at 50")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _successes(evaluation: Entry) -> list[float]:
    missed = evaluation["episodes"] - evaluation["successes"]
    return [1.0] * evaluation["successes"] + [0.0] * missed


def _lengths(evaluation: Entry) -> list[float]:
    return [float(length) for length in evaluation["lengths"]]


def _band(
    axes: Axes,
    runs: Sequence[Entry],
    tasks: Sequence[str],
    values: Callable[[Entry], list[float]],
    colour: str,
    label: str,
) -> None:
    """Evaluations are paired over seeds by their number: runs are evaluated at the same transitions, to an episode."""
    points = min(len(run["curve"]) for run in runs)
    x: list[float] = []
    middle: list[tuple[float, float, float]] = []
    for number in range(points):
        rows = [
            [v for e in run["curve"][number]["eval"] if e["task"] in tasks for v in values(e)]
            for run in runs
        ]
        interval = over_seeds(rows)
        x.append(fmean(run["curve"][number]["robot_minutes"] for run in runs))
        middle.append((interval.estimate, interval.low, interval.high))
    estimate, low, high = np.array(middle).T
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(x, estimate, color=colour, marker="o", markersize=3.5, label=label)


def draw_series(document: Entry, series: str, title: str) -> Figure:
    """A metric over training, one colour per method and one line per run."""
    groups = {
        method: [run["series"][series] for run in runs if run["series"][series]]
        for method, runs in by_method(document).items()
    }
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    axes = figure.subplots()
    shown = {method: found for method, found in groups.items() if found}
    for number, (method, found) in enumerate(shown.items()):
        for first, points in enumerate(found):
            x, y = np.array(points).T
            colour = PALETTE[number % len(PALETTE)]
            style = "-" if number < len(PALETTE) else "--"
            label = method if first == 0 else None
            axes.plot(x, y, style, color=colour, alpha=0.8, linewidth=1.5, label=label)
    axes.set_ylim(-0.03, 1.05 if series == "obedience" else None)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("online transitions")
    axes.set_title(title)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def draw_talk(document: Entry) -> Figure:
    """Success by what was said, one group per kind of run of which anything was measured and per when it was said."""
    groups: dict[str, list[Entry]] = {}
    for method, runs in by_method(document).items():
        found = [r for run in runs for r in run["measured"].values()]
        silent = [r for r in found if r["talk"] == "none"]
        for when, always in (("where it errs", False), ("all the way", True)):
            said = [
                r for r in found if r["talk"] != "none" and bool(r.get("talk_always")) == always
            ]
            if said:
                groups[f"{method}, {when}"] = silent + said
    modes = ("none", "right", "random", "opposite")
    figure = Figure(figsize=(max(4.6, 1.6 + 2.2 * len(groups)), 3.2), layout="constrained")
    axes = figure.subplots()
    for place, results in enumerate(groups.values()):
        for number, mode in enumerate(modes):
            found = [r for r in results if r["talk"] == mode]
            solved = sum(e["successes"] for r in found for e in r["tasks"])
            episodes = sum(e["episodes"] for r in found for e in r["tasks"])
            if not episodes:
                continue
            rate = wilson_interval(solved, episodes)
            x = place - 0.3 + 0.2 * number
            axes.bar(x, rate.estimate, 0.17, color=PALETTE[number])
            axes.plot([x, x], [rate.low, rate.high], color=INK, linewidth=1.2)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_title("Success by what the operator says")
    keys = [Patch(color=PALETTE[number], label=mode) for number, mode in enumerate(modes)]
    axes.legend(handles=keys, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=9)
    return figure
