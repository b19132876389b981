"""The report's figures, as SVG text. Pure functions of what `run_data` has read."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hildaft.eval.evaluate import EvaluationRecord, TaskEvaluation
from hildaft.eval.run_data import RunData, RunGroup
from hildaft.eval.statistics import bootstrap_mean_interval, wilson_interval

INK: Final = "#1d2a2e"
MUTED: Final = "#6d7a7d"
GRID: Final = "#e4e2da"
PALETTE: Final = ("#1f7a6d", "#d08320", "#5b5ea6", "#b0413e", "#4c8fbf", "#7a6a53")
SMOOTHING: Final = 30
"""Rows of a running mean over rollouts, at most over losses."""

STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hildaft",
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Segoe UI", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 10.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One figure: a caption, what it says in words for screen readers, and the SVG."""

    title: str
    caption: str
    svg: str


def plot_success(group: RunGroup, *, against: str) -> Plot | None:
    """Evaluation success per task against "transitions" or "robot_minutes"."""

    def draw(axes: Axes) -> None:
        for task, colour in _coloured(group.tasks):
            _draw_curve(axes, group.runs, task, colour, against, _success)
        axes.set_ylim(-0.03, 1.05)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel(_axis_name(against))

    if not any(len(run.silent) > 1 for run in group.runs):
        return None
    return Plot(
        title=f"Evaluation success against {_axis_name(against)}",
        caption="Shaded: 95 % Wilson interval; thin lines: single runs where there are several.",
        svg=_render(draw, legend=True),
    )


def plot_length(group: RunGroup) -> Plot | None:
    """Evaluation episode length per task against transitions."""

    def draw(axes: Axes) -> None:
        for task, colour in _coloured(group.tasks):
            _draw_curve(axes, group.runs, task, colour, "transitions", _length)
        axes.set_ylim(0, 1.04 * group.step_limit)
        axes.set_xlabel("online transitions")

    if not any(len(run.silent) > 1 for run in group.runs):
        return None
    return Plot(
        title="Episode length (steps)",
        caption=f"Failures count as the limit of {group.step_limit}. Shaded: 95 % bootstrap interval of the mean.",
        svg=_render(draw, legend=True),
    )


def plot_metrics(
    group: RunGroup,
    title: str,
    caption: str,
    names: Mapping[str, str],
    *,
    share: bool = False,
    smooth: bool = False,
) -> Plot | None:
    """Metrics by legend label against transitions; None if none of them was written."""
    shown = [(label, name) for label, name in names.items() if _has(group.runs, name)]

    def draw(axes: Axes) -> None:
        labels = list(names)
        alpha = 1.0 if len(group.runs) == 1 else 0.55
        for label, name in shown:
            colour = PALETTE[labels.index(label) % len(PALETTE)]
            for number, run in enumerate(group.runs):
                steps, values = _finite(*run.series(name))
                values = _smoothed(values) if smooth else values
                label_once = label if number == 0 else None
                axes.plot(steps, values, color=colour, label=label_once, alpha=alpha)
        if share:
            axes.set_ylim(-0.03, 1.05)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("online transitions")

    if not shown:
        return None
    return Plot(title=title, caption=caption, svg=_render(draw, legend=len(names) > 1))


def plot_losses(runs: Sequence[RunData]) -> Plot | None:
    """Small multiples of every logged loss, warm-up losses against updates."""
    names = sorted({n for run in runs for row in run.metrics for n in row if "loss" in n})
    if not names:
        return None
    columns = 4
    rows = math.ceil(len(names) / columns)
    with ExitStack() as stack:
        stack.enter_context(rc_context({**STYLE, "font.size": 8.0, "axes.titlesize": 8.0}))
        figure = Figure(figsize=(11.0, 1.65 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False)
        for panel, name in zip(panels.flat, names, strict=False):
            key = "updates" if name.startswith("warmup/") else "step"
            for number, run in enumerate(runs):
                points = [(row[key], row[name]) for row in run.metrics if name in row]
                x, y = _finite([p[0] for p in points], [p[1] for p in points])
                colour = PALETTE[number % len(PALETTE)]
                panel.plot(x, y, color=colour, alpha=0.2, linewidth=0.8)
                window = min(SMOOTHING, max(1, len(y) // 20))
                panel.plot(x, _smoothed(y, window), color=colour, linewidth=1.4)
            panel.set_title(name, color=INK)
            panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            panel.yaxis.set_major_locator(MaxNLocator(3))
        for panel in panels.flat[len(names) :]:
            panel.set_axis_off()
        svg = _svg(figure)
    return Plot(
        title="Every logged loss",
        caption=(
            "Running mean, raw values faint. Online losses against transitions, warm-up losses "
            "against updates."
        ),
        svg=svg,
    )


def plot_comparison(groups: Sequence[RunGroup], *, against: str) -> Plot:
    """Success averaged over tasks, one colour per preset."""

    def draw(axes: Axes) -> None:
        for group, colour in zip(groups, _colours(len(groups)), strict=True):
            for number, run in enumerate(group.runs):
                axes.plot(
                    [getattr(record, against) for record in run.silent],
                    [record.result.success_rate for record in run.silent],
                    color=colour,
                    marker="o",
                    markersize=4,
                    label=group.name if number == 0 else None,
                )
        axes.set_ylim(-0.03, 1.05)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel(_axis_name(against))

    return Plot(
        title=f"Average success against {_axis_name(against)}",
        caption="Mean over tasks; one line per run.",
        svg=_render(draw, legend=True),
    )


def colour_of(tasks: Sequence[str], task: str) -> str:
    """The colour a task has in every figure."""
    return PALETTE[list(tasks).index(task) % len(PALETTE)]


def _draw_curve(
    axes: Axes,
    runs: Sequence[RunData],
    task: str,
    colour: str,
    against: str,
    estimate: Callable[[TaskEvaluation], tuple[float, float, float]],
) -> None:
    curves: list[tuple[list[float], list[float]]] = []
    for run in runs:
        points = [(record, e) for record in run.silent if (e := _of_task(record, task))]
        x = [float(getattr(record, against)) for record, _ in points]
        middle, low, high = np.array([estimate(e) for _, e in points] or [(0, 0, 0)]).T
        if not points:
            continue
        curves.append((x, middle.tolist()))
        if len(runs) == 1:
            axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
        else:
            axes.plot(x, middle, color=colour, alpha=0.3, linewidth=1.0)
    if not curves:
        return
    # The mean is drawn only where every run has been evaluated.
    end = min(x[-1] for x, _ in curves)
    grid = sorted({value for x, _ in curves for value in x if value <= end})
    mean = np.mean([np.interp(grid, x, y) for x, y in curves], axis=0)
    axes.plot(grid, mean, color=colour, marker="o", markersize=4, label=task)


def _success(evaluation: TaskEvaluation) -> tuple[float, float, float]:
    interval = wilson_interval(evaluation.successes, evaluation.episodes)
    return interval.estimate, interval.low, interval.high


def _length(evaluation: TaskEvaluation) -> tuple[float, float, float]:
    interval = bootstrap_mean_interval(evaluation.lengths)
    return interval.estimate, interval.low, interval.high


def _of_task(record: EvaluationRecord, task: str) -> TaskEvaluation | None:
    return next((e for e in record.result.tasks if e.task == task and e.outcomes), None)


def _coloured(tasks: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(tasks, _colours(len(tasks)), strict=True))


def _colours(count: int) -> list[str]:
    return [PALETTE[number % len(PALETTE)] for number in range(count)]


def _axis_name(against: str) -> str:
    return {"transitions": "online transitions", "robot_minutes": "robot minutes"}[against]


def _has(runs: Sequence[RunData], name: str) -> bool:
    return any(math.isfinite(row.get(name, math.nan)) for run in runs for row in run.metrics)


def _finite(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    kept = [(s, v) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
    return [s for s, _ in kept], [v for _, v in kept]


def _smoothed(values: Sequence[float], window: int = SMOOTHING) -> list[float]:
    """Running mean of the last `window` values, of fewer at the start."""
    if not values:
        return []
    # Sums of differences from the first value, so that a constant stays one to the last digit.
    sums = np.cumsum([0.0, *(value - values[0] for value in values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (values[0] + (sums[ends] - sums[starts]) / (ends - starts)).tolist()


def _render(draw: Callable[[Axes], None], *, legend: bool) -> str:
    with rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.0), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if legend:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=4, fontsize=9)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
