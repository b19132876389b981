"""The report's numbers as HTML: cards, tables and how figures are written."""

import math
from collections.abc import Callable
from html import escape
from statistics import fmean
from typing import Final

from hildaft.eval.evaluate import TaskEvaluation
from hildaft.eval.figures import colour_of
from hildaft.eval.run_data import RunGroup
from hildaft.eval.statistics import Interval, bootstrap_mean_interval, wilson_interval

PAPER_NOTE: Final = (
    "The paper reports, on a real robot with 25 trials a task: 100 % success and 30.7 steps for "
    "the dual actor, 86.7 % without it, 25.3 % for HG-DAgger and 24.0 % for DSRL. The figures "
    "above are this run's own, on its own bench."
)


def cards_html(group: RunGroup) -> str:
    """One card per task: success before and after, with intervals."""
    cards: list[str] = []
    for task in group.tasks:
        before, after = group.pooled(task, after=False), group.pooled(task, after=True)
        tone = colour_of(group.tasks, task)
        was = percent(_rate(before).estimate) if before else "-"
        now = percent(_rate(after).estimate) if after else "-"
        counted = " · ".join(
            f"{e.successes} of {e.episodes} {when}"
            for e, when in ((before, "before"), (after, "after"))
            if e
        )
        cards.append(
            f'<div class="card" style="--tone:{tone}"><span class="task">{escape(task)}</span>'
            f'<div class="score"><span class="was">{was}</span><span class="arrow">→</span>'
            f'<span class="is">{now}</span></div>{_interval_bar(before, after, tone)}'
            f"<small>{counted}</small></div>"
        )
    if not cards:
        return '<p class="empty">No evaluation has been made in this run yet.</p>'
    return f'<div class="cards">{"".join(cards)}</div>'


def _interval_bar(before: TaskEvaluation | None, after: TaskEvaluation | None, tone: str) -> str:
    """A 0 to 100 % axis with both estimates and their 95 % Wilson intervals."""
    marks = ['<line x1="4" x2="296" y1="30" y2="30" stroke="#e6e3da"/>']
    for share in (0, 50, 100):
        x = 4 + 2.92 * share
        anchor = {0: "start", 50: "middle", 100: "end"}[share]
        marks.append(
            f'<text x="{x}" y="44" font-size="10" fill="#66757a" text-anchor="{anchor}">'
            f"{share}</text>"
        )
    for evaluation, y, colour, name in (
        (before, 12, "#a9b2b3", "before"),
        (after, 22, tone, "after"),
    ):
        if evaluation is None:
            continue
        rate = _rate(evaluation)
        low, middle, high = (4 + 292 * v for v in (rate.low, rate.estimate, rate.high))
        marks.append(
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="{colour}" '
            f'stroke-width="3" stroke-linecap="round" opacity=".55"/><circle cx="{middle:.1f}" '
            f'cy="{y}" r="4.5" fill="{colour}"><title>{name}: '
            f"{_with_interval(rate)}</title></circle>"
        )
    return (
        f'<svg viewBox="0 0 300 46" role="img" aria-label="95 % intervals">{"".join(marks)}</svg>'
    )


def table_html(group: RunGroup) -> str:
    """Success, length and stalls per task and on average; empty without evaluations."""
    rows: list[str] = []
    for task in group.tasks:
        pair = group.pooled(task, after=False), group.pooled(task, after=True)
        cells = [_cell(e, lambda e: _with_interval(_rate(e), markup=True)) for e in pair]
        cells += [_cell(e, _length_cell) for e in pair]
        cells += [_cell(e, lambda e: str(sum(o.stalled for o in e.outcomes))) for e in pair]
        rows.append(f"<tr><td>{escape(task)}</td>{''.join(cells)}</tr>")
    if not rows:
        return ""
    totals = [average(group, after=after) for after in (False, True)]
    lengths = [average(group, after=after, lengths=True) for after in (False, True)]
    means = [f"<td>{'-' if v is None else percent(v)}</td>" for v in totals]
    means += [f"<td>{'-' if v is None else f'{v:.1f}'}</td>" for v in lengths]
    heads = ("success before", "success after", "steps before", "steps after")
    head = "".join(f"<th>{name}</th>" for name in (*heads, "stalled before", "stalled after"))
    return (
        "<h2>Success and length</h2><p>Brackets: 95 % intervals, Wilson for success and bootstrap "
        f"for the mean length. A failure counts as {group.step_limit} steps.</p>"
        f'<div class="scroll"><table><tr><th>task</th>{head}</tr>{"".join(rows)}'
        f'<tr class="total"><td>average</td>{"".join(means)}<td></td><td></td></tr></table></div>'
        f'<p class="note">{PAPER_NOTE}</p>'
    )


def talk_html(group: RunGroup) -> str:
    """Evaluations with talk or diagnostics; empty if there are none."""
    rows: list[str] = []
    for run in group.runs:
        for record in run.evaluations:
            if record.talk == "none" and not record.diagnostics:
                continue
            figures = [record.diagnostics.get(name, math.nan) for name in _DIAGNOSTICS]
            cells = "".join(f"<td>{_number(value)}</td>" for value in figures)
            rows.append(
                f"<tr><td>{escape(run.name)}</td><td>{record.transitions}</td><td>{escape(record.name)}"
                f"</td><td>{escape(record.talk)}</td><td>{percent(record.result.success_rate)}</td>"
                f"{cells}</tr>"
            )
    if not rows:
        return ""
    head = "".join(f"<th>{name}</th>" for name in _DIAGNOSTICS.values())
    return (
        "<h2>Talk</h2><p>Obedience: share of single-axis commands that move the action the "
        "commanded way. Size: how far. Null drift: how far silence moves it. Spread: of the "
        "policy's own actions over the noise.</p>"
        '<div class="scroll"><table><tr><th>run</th><th>transitions</th>'
        f"<th>evaluation</th><th>talk</th><th>success</th>{head}</tr>{''.join(rows)}</table></div>"
    )


_DIAGNOSTICS: Final = {
    "obedience": "obedience",
    "size_mm": "size (mm)",
    "null_drift_mm": "null drift (mm)",
    "spread_mm": "spread (mm)",
}


def average(group: RunGroup, *, after: bool, lengths: bool = False) -> float | None:
    """Mean over tasks of success (share) or length (steps); None without evaluations."""
    pooled = [group.pooled(task, after=after) for task in group.tasks]
    found = [evaluation for evaluation in pooled if evaluation is not None]
    if not found:
        return None
    return fmean(fmean(e.lengths) if lengths else e.successes / e.episodes for e in found)


def _cell(evaluation: TaskEvaluation | None, show: Callable[[TaskEvaluation], str]) -> str:
    return f"<td>{'-' if evaluation is None else show(evaluation)}</td>"


def _rate(evaluation: TaskEvaluation) -> Interval:
    return wilson_interval(evaluation.successes, evaluation.episodes)


def _length_cell(evaluation: TaskEvaluation) -> str:
    mean = bootstrap_mean_interval(evaluation.lengths)
    return f"{mean.estimate:.1f}<i>[{mean.low:.1f}, {mean.high:.1f}]</i>"


def _with_interval(rate: Interval, *, markup: bool = False) -> str:
    low, high = 100 * rate.low, 100 * rate.high
    bracket = f"[{low:.0f}, {high:.0f}]"
    return f"{percent(rate.estimate)}{f'<i>{bracket}</i>' if markup else f' {bracket}'}"


def percent(share: float) -> str:
    """A share as whole per cent."""
    return f"{100 * share:.0f} %"


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"
