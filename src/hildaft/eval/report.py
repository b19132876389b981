"""One HTML page about one or more runs, complete in itself: figures and pictures are embedded."""

import base64
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from hildaft.eval.figures import (
    Plot,
    plot_comparison,
    plot_length,
    plot_losses,
    plot_metrics,
    plot_success,
)
from hildaft.eval.frames import Strip, task_strips
from hildaft.eval.report_tables import average, cards_html, percent, table_html, talk_html
from hildaft.eval.run_data import RunData, RunGroup, group_runs, read_run
from hildaft.types import HilDaftError


def write_report(run_folders: Sequence[Path], output: Path | None = None) -> Path:
    """Writes `report/index.html` in the first run folder, or at `output`, and returns its path.

    Runs of one preset and config are pooled as seeds of one method; several methods are set side by side.

    Raises:
        HilDaftError: if a folder is missing or not a run folder, a file in it is damaged, or the
            page cannot be written.
    """
    if not run_folders:
        msg = "report runs=[]: name at least one run folder"
        raise HilDaftError(msg)
    page = compose_report([read_run(folder) for folder in run_folders])
    path = output or run_folders[0] / "report" / "index.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".writing-{path.name}")
        temporary.write_text(page, encoding="utf-8")
        temporary.rename(path)
    except OSError as error:
        msg = f"report {path}: {error.strerror or error}; free space or mend its permissions"
        raise HilDaftError(msg) from error
    return path


def compose_report(runs: Sequence[RunData]) -> str:
    """The page as HTML text."""
    groups = group_runs(runs)
    sections = [_masthead(groups)]
    if len(groups) > 1:
        sections.append(_comparison(groups))
    for group in groups:
        if len(groups) > 1:
            sections.append(f"<h2>Method {escape(group.name)}</h2>{_lede(group)}")
        sections += [
            cards_html(group),
            _learning(group),
            table_html(group),
            talk_html(group),
            _rollouts(group),
        ]
    sections += [_losses(runs), _reproduce(runs)]
    style = files("hildaft.eval").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>HiL-DAFT report</title><style>{style}</style></head>\n"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _masthead(groups: Sequence[RunGroup]) -> str:
    group = groups[0]
    before, after = average(group, after=False), average(group, after=True)
    if len(groups) > 1:
        title = f"{len(groups)} methods, {sum(len(g.runs) for g in groups)} runs"
    elif before is not None and after is not None:
        title = f"Success {percent(before)} after warm-up, {percent(after)} after fine-tuning"
    elif before is not None:
        title = f"Success {percent(before)} after warm-up"
    else:
        title = "No evaluation yet"
    lede = _lede(group) if len(groups) == 1 else ""
    return f'<p class="eyebrow">HiL-DAFT report</p><h1>{escape(title)}</h1>{lede}'


def _lede(group: RunGroup) -> str:
    last = [run.silent[-1] for run in group.runs if run.silent]
    seeds = ", ".join(run.seed for run in group.runs)
    facts = [
        f"preset <b>{escape(group.name)}</b>",
        f"{'seed' if len(group.runs) == 1 else 'seeds'} <b>{escape(seeds)}</b>",
    ]
    if last:
        facts += [
            f"<b>{_span([r.transitions for r in last])}</b> online transitions",
            f"<b>{_span([round(r.robot_minutes) for r in last])}</b> robot minutes",
            f"<b>{_span([round(r.wall_minutes) for r in last])}</b> minutes on the wall clock",
        ]
    return f'<p class="lede">{" · ".join(facts)}</p>'


def _learning(group: RunGroup) -> str:
    tasks = group.tasks
    plots = [
        plot_success(group, against="transitions"),
        plot_success(group, against="robot_minutes"),
        plot_length(group),
        plot_metrics(
            group,
            "Intervention share of the robot's steps",
            "Running mean over 30 rollouts.",
            {"interventions": "rollout/intervention_share"},
            share=True,
            smooth=True,
        ),
        plot_metrics(
            group,
            "Success of training rollouts",
            "With the operator's help where he gave it; running mean over 30 rollouts.",
            {task: f"rollout/success/{task}" for task in tasks},
            share=True,
            smooth=True,
        ),
        plot_metrics(
            group,
            "Obedience",
            "Share of refinement commands that move the end effector the commanded way.",
            {"obedience": "refinement/obedience"},
            share=True,
        ),
        plot_metrics(
            group,
            "Q of the policy's action, per task",
            "Mean over the critics' ensemble (Qbar of eq. 16).",
            {task: f"actor/qbar/{task}" for task in tasks},
        ),
        plot_metrics(
            group,
            "Task weights eps (eq. 16)",
            "A task whose Q is low gets more of the actor's gradient.",
            {task: f"actor/eps/{task}" for task in tasks},
        ),
    ]
    figures = "".join(_figure(plot) for plot in plots if plot is not None)
    if not figures:
        return ""
    return (
        "<h2>Learning</h2><p>Evaluations run the primary actor alone, without talk or tweak, from "
        f'start states never used in training.</p><div class="grid">{figures}</div>'
    )


def _rollouts(group: RunGroup) -> str:
    run = group.runs[0]
    store = run.store
    if store is None:
        return ""
    parts: list[str] = []
    for task in group.tasks:
        strips = task_strips(store, task)
        if strips:
            parts.append(f"<h3>{escape(task)}</h3>{''.join(map(_strip, strips))}")
    if not parts:
        return ""
    return (
        f"<h2>Rollouts</h2><p>A first, a middle and the last training rollout per task of run "
        f"{escape(run.name)}, both cameras. An amber bar marks frames in which the operator acted."
        f"</p>{''.join(parts)}"
    )


def _strip(strip: Strip) -> str:
    outcome = ("good", "success") if strip.success else ("bad", "failure")
    helped = strip.interventions
    tag = f'<span class="tag help">{helped} by the operator</span>' if helped else ""
    return (
        f'<div class="strip"><p><b>{strip.moment}</b> · episode {strip.index} · '
        f"{strip.steps} steps "
        f'<span class="tag {outcome[0]}">{outcome[1]}</span>{tag}</p>'
        f'<img alt="{strip.moment} rollout, {outcome[1]} in {strip.steps} steps" '
        f'src="data:image/jpeg;base64,{base64.b64encode(strip.jpeg).decode()}"></div>'
    )


def _comparison(groups: Sequence[RunGroup]) -> str:
    plots = [plot_comparison(groups, against=a) for a in ("transitions", "robot_minutes")]
    rows = "".join(
        f"<tr><td>{escape(group.name)}</td><td>{len(group.runs)}</td>"
        + "".join(
            f"<td>{'-' if value is None else percent(value)}</td>"
            for value in (average(group, after=False), average(group, after=True))
        )
        + "</tr>"
        for group in groups
    )
    return (
        "<h2>Comparison</h2><p>Success averaged over tasks.</p>"
        '<div class="scroll"><table><tr><th>method</th><th>runs</th><th>success before</th>'
        f'<th>success after</th></tr>{rows}</table></div><div class="grid" '
        f'style="margin-top:16px">{"".join(map(_figure, plots))}</div>'
    )


def _losses(runs: Sequence[RunData]) -> str:
    plot = plot_losses(runs)
    return (
        ""
        if plot is None
        else f"<h2>Losses</h2><p>What each update minimises.</p>{_figure(plot, wide=True)}"
    )


def _reproduce(runs: Sequence[RunData]) -> str:
    parts: list[str] = []
    for run in runs:
        facts = {
            "run": run.name,
            "command": run.command,
            "seed": run.seed,
            "preset": run.preset,
            "commit": run.commit,
            "date": run.date,
            "machine": run.machine,
        }
        items = "".join(
            f"<dt>{name}</dt><dd><code>{escape(value)}</code></dd>" for name, value in facts.items()
        )
        parts.append(
            f"<dl>{items}</dl><details><summary>Resolved config</summary>"
            f"<pre>{escape(run.config_text)}</pre></details>"
        )
    return f"<h2>Make it again</h2><p>What was run, and with what.</p>{''.join(parts)}"


def _figure(plot: Plot, *, wide: bool = False) -> str:
    data = base64.b64encode(plot.svg.encode()).decode()
    return (
        f'<figure class="{"wide" if wide else ""}"><b>{escape(plot.title)}</b>'
        f'<img alt="{escape(plot.title)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
