"""The multi-robot page and picture: Fig. 7, and success against minutes for one, two and four robots."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hildaft.eval.figures import PALETTE
from hildaft.eval.statistics import wilson_interval
from hildaft.study import paper_numbers as paper
from hildaft.study.collect import Entry
from hildaft.study.grid import MEASURED
from hildaft.study.outcomes import by_method, percent
from hildaft.types import CONTROL_HZ

LEVELS: Final = (0.8, 0.95)
"""Success whose time is compared."""


def read_curves(folder: Path) -> list[Entry]:
    """Evaluations of a fleet's run on both benches, by robot and transitions."""
    files = sorted((folder / MEASURED).glob("curve-*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def _rate(evaluation: Entry) -> float:
    return fmean(e["successes"] / e["episodes"] for e in evaluation["tasks"])


def _on_the_way(run: Entry) -> list[tuple[Entry, float]]:
    """Evaluations in the order of transitions, each with success averaged over the robots that trained."""
    trained = set(run["robots"])
    by_time: dict[int, list[Entry]] = {}
    for evaluation in run["fleet"]:
        if evaluation["robot"] in trained:
            by_time.setdefault(evaluation["transitions"], []).append(evaluation)
    return [(each[0], fmean(map(_rate, each))) for _, each in sorted(by_time.items())]


def first_at_level(run: Entry, level: float) -> Entry | None:
    """The first evaluation where success, averaged over the robots that trained, is so high; None if there is none."""
    return next((each for each, rate in _on_the_way(run) if rate >= level), None)


def pooled_curve(runs: Sequence[Entry]) -> list[tuple[float, float]]:
    """Minutes by the clock and success averaged over runs of one fleet, straight between the evaluations of each run.

    It has a point wherever a run has one, and ends with the run that ended first.
    """
    curves = [
        ([e["clock_minutes"] for e, _ in points], [rate for _, rate in points])
        for points in map(_on_the_way, runs)
    ]
    if not all(minutes for minutes, _ in curves):
        return []
    end = min((minutes[-1] for minutes, _ in curves), default=0.0)
    at = sorted({m for minutes, _ in curves for m in minutes if m <= end})
    return [(m, fmean(float(np.interp(m, *curve)) for curve in curves)) for m in at]


def minutes_to(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """When a curve first reaches a level, on the straight line between two evaluations; None where it never does."""
    before: tuple[float, float] | None = None
    for minutes, rate in curve:
        if rate >= level:
            if before is None:
                return minutes
            return before[0] + (minutes - before[0]) * (level - before[1]) / (rate - before[1])
        before = (minutes, rate)
    return None


def _to_level(run: Entry, alone: Entry | None, level: float) -> str:
    """Minutes by the clock to a level and, where one robot alone reached it on that seed, the share of its minutes."""
    reached = first_at_level(run, level)
    if reached is None:
        return "not reached"
    minutes = reached["clock_minutes"]
    reference = None if alone is None or run is alone else first_at_level(alone, level)
    share = f" ({minutes / reference['clock_minutes']:.2f})" if reference else ""
    return f"{minutes:.1f}{share}"


def _robot_minutes(run: Entry, level: float) -> str:
    """What all robots together moved until a level, at 10 Hz."""
    reached = first_at_level(run, level)
    return "-" if reached is None else f"{reached['transitions'] / CONTROL_HZ / 60:.1f}"


def page(document: Entry) -> list[str]:
    """Final success on A and on B, minutes, and the curve of every run."""
    lines = [
        "Robots move at 10 Hz by the clock, a learner serves them over the link, all on one machine. Demonstrations "
        f"are of the first robot alone. The paper: {paper.FIG7}. Minutes to a level: when it was first seen, "
        "averaged over the robots that trained; in brackets the share of one robot's minutes on the same seed. Minutes "
        "end with the last update: a learner that is behind its robots makes the rest while they stand. Robot "
        "minutes are those of all robots together. The hours above are these minutes too, without warm-up and "
        "evaluations.",
        "",
        "| fleet | robots | seed | transitions | minutes |"
        f" {' | '.join(f'to {100 * level:.0f} %' for level in LEVELS)} |"
        f" {' | '.join(f'robot minutes to {100 * level:.0f} %' for level in LEVELS)} |"
        " tested on A | tested on B |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    alone = {run["seed"]: run for run in document["runs"] if len(run["robots"]) == 1}
    for run in document["runs"]:
        last = max(e["transitions"] for e in run["fleet"])
        final = {e["robot"]: e for e in run["fleet"] if e["transitions"] == last}
        cells = [
            percent(
                wilson_interval(
                    sum(t["successes"] for t in final[r]["tasks"]),
                    sum(t["episodes"] for t in final[r]["tasks"]),
                )
            )
            for r in ("A", "B")
        ]
        reached = [_to_level(run, alone.get(run["seed"]), level) for level in LEVELS]
        reached += [_robot_minutes(run, level) for level in LEVELS]
        lines.append(
            f"| {run['method']} | {' + '.join(run['robots'])} | {run['seed']} | {last} |"
            f" {final['A']['clock_minutes']:.1f} |"
            f" {' | '.join(reached)} |"
            f" {' | '.join(cells)} |"
        )
    lines += [*_over_seeds(document), ""]
    lines += ["| fleet | seed | tested on | minutes: success % |", "|---|---|---|---|"]
    for run in document["runs"]:
        for robot in ("A", "B"):
            points = [e for e in run["fleet"] if e["robot"] == robot]
            curve = "; ".join(f"{e['clock_minutes']:.1f}: {100 * _rate(e):.0f}" for e in points)
            lines.append(f"| {run['method']} | {run['seed']} | {robot} | {curve} |")
    return lines


def _over_seeds(document: Entry) -> list[str]:
    """Minutes to a level with the runs of all seeds together, against one robot on the same seeds."""
    alone = {run["seed"]: run for run in document["runs"] if len(run["robots"]) == 1}
    lines = [
        "",
        "The same over seeds: the mean of their curves, straight between evaluations. "
        "In brackets the share of one robot's minutes on the same seeds.",
        "",
        f"| fleet | seeds | {' | '.join(f'to {100 * level:.0f} %' for level in LEVELS)} |",
        f"|---|---|{'---|' * len(LEVELS)}",
    ]
    for method, runs in by_method(document).items():
        curve = pooled_curve(runs)
        others = [
            alone[run["seed"]] for run in runs if run["seed"] in alone and len(run["robots"]) > 1
        ]
        # A share of other seeds' minutes would compare seeds.
        reference = pooled_curve(others) if len(others) == len(runs) else []
        cells: list[str] = []
        for level in LEVELS:
            minutes, single = minutes_to(curve, level), minutes_to(reference, level)
            share = f" ({minutes / single:.2f})" if minutes is not None and single else ""
            cells.append("not reached" if minutes is None else f"{minutes:.1f}{share}")
        lines.append(
            f"| {method} | {', '.join(str(run['seed']) for run in runs)} | {' | '.join(cells)} |"
        )
    return lines


def draw(document: Entry) -> Figure:
    """Success on A and on B against minutes; one line per run."""
    figure = Figure(figsize=(9.5, 3.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, robot in zip(panels, ("A", "B"), strict=True):
        for number, (method, runs) in enumerate(by_method(document).items()):
            for first, run in enumerate(runs):
                points = [e for e in run["fleet"] if e["robot"] == robot]
                panel.plot(
                    [e["clock_minutes"] for e in points],
                    [_rate(e) for e in points],
                    color=PALETTE[number],
                    marker="o",
                    markersize=3.5,
                    label=f"{method} ({'+'.join(run['robots'])})" if first == 0 else None,
                )
        panel.set_title(f"Tested on robot {robot}")
        panel.set_xlabel("minutes by the clock, online stage")
        panel.set_ylim(-0.03, 1.05)
        panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=9)
    return figure
