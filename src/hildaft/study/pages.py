"""The Markdown of each study: tables of the paper's shape, its numbers beside ours."""

from collections.abc import Collection, Sequence
from statistics import fmean
from typing import Final

from hildaft.eval.statistics import wilson_interval
from hildaft.study import paper_numbers as paper
from hildaft.study.collect import Entry
from hildaft.study.outcomes import (
    average_length,
    average_success,
    by_method,
    percent,
    pooled,
    solved_length,
    task_names,
)
from hildaft.study.paired import paired_table
from hildaft.types import CONTROL_HZ

SPOKEN_TO: Final = ", spoken to"
_LENGTHS: Final = (
    "Length: mean steps of the successful episodes, which is what the paper's figures must be (DSRL at 24 % success "
    "and 27.3 steps cannot count failures), then with failures counted as the limit of 50."
)


def with_spoken(document: Entry) -> dict[str, list[Entry]]:
    """Runs by method; a method that was spoken to in a second evaluation has a row more for it."""
    rows: dict[str, list[Entry]] = {}
    for method, runs in by_method(document).items():
        rows[method] = runs
        spoken = [
            {**run, "eval": result["tasks"]}
            for run in runs
            for name, result in run["measured"].items()
            if name.startswith("spoken-")
        ]
        if spoken:
            rows[f"{method}{SPOKEN_TO}"] = spoken
    return rows


def not_run(document: Entry) -> list[str]:
    """A table of the runs that are not there and why; seeds that share a reason share a row. Nothing where all are."""
    rows: dict[tuple[str, str], list[str]] = {}
    for entry in document["not_run"]:
        rows.setdefault((entry["method"], entry["reason"]), []).append(str(entry["seed"]))
    if not rows:
        return []
    lines = [f"| {method} | {', '.join(seeds)} | {why} |" for (method, why), seeds in rows.items()]
    return ["| method | seeds | state |", "|---|---|---|", *lines]


def reported(
    method: str, rows: Collection[str]
) -> tuple[Sequence[int], Sequence[int] | None] | None:
    """The paper's success and lengths for a row: its operator talks, so they stand where somebody does, if anywhere."""
    listening = method.removesuffix(SPOKEN_TO)
    if listening == method and f"{method}{SPOKEN_TO}" in rows:
        return None
    return paper.TABLE1.get(listening)


def success_table(document: Entry) -> list[str]:
    """Success per task and method; the paper's averages where it has them."""
    names = task_names(document)
    lines = [
        "| method | seeds | " + " | ".join(names) + " | average | paper |",
        "|---|---|" + "---|" * (len(names) + 2),
    ]
    groups = with_spoken(document)
    for method, runs in groups.items():
        cells = [percent(wilson_interval(*pooled(runs, task))) for task in names]
        theirs = reported(method, groups)
        lines.append(
            f"| {method} | {len(runs)} | {' | '.join(cells)} | **{percent(average_success(runs))}** |"
            f" {'-' if theirs is None else f'{fmean(theirs[0]):.1f}'} |"
        )
    return lines


def length_table(document: Entry) -> list[str]:
    """Length per task and method, of successful episodes, and with failures at the limit on average.

    The average is the mean of the tasks', as the paper's is; none where a task was never solved.
    """
    names = task_names(document)
    lines = [
        "",
        _LENGTHS,
        "",
        "| method | " + " | ".join(names) + " | average | paper | failures at 50 |",
        "|---|" + "---|" * (len(names) + 3),
    ]
    groups = with_spoken(document)
    for method, runs in groups.items():
        solved = [solved_length(runs, task) for task in names]
        known = [n for n in solved if n is not None]
        solved.append(fmean(known) if len(known) == len(names) else None)
        theirs = reported(method, groups)
        their_steps = theirs and theirs[1]
        counted = average_length(runs)
        lines.append(
            f"| {method} | {' | '.join('-' if n is None else f'{n:.1f}' for n in solved)} |"
            f" {'-' if not their_steps else f'{fmean(their_steps):.1f}'} |"
            f" {counted.estimate:.1f} ({counted.low:.1f}-{counted.high:.1f}) |"
        )
    return lines


def cost_table(document: Entry) -> list[str]:
    """What each run took."""
    lines = [
        "",
        "## Cost",
        "",
        "| method | seed | transitions | updates | robot min | wall min | interventions | after warm-up | obedience |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in document["runs"]:
        share, obedience = run["interventions_share"], run["metrics"].get("obedience")
        before = (
            f"{100 * fmean(e['successes'] / e['episodes'] for e in run['warmup_eval']):.1f} %"
            if run["warmup_eval"] and run["transitions"]
            else "-"
        )
        lines.append(
            f"| {run['method']} | {run['seed']} | {run['transitions']} | {run['updates']} |"
            f" {run['robot_minutes']:.0f} | {run['wall_minutes']:.1f} |"
            f" {'-' if share is None else f'{100 * share:.1f} %'} | {before} |"
            f" {'-' if obedience is None else f'{obedience:.3f}'} |"
        )
    return lines


def curve_table(document: Entry) -> list[str]:
    """Average success and length of every evaluation."""
    lines = [
        "",
        "| method | seed | robot minutes: success %, length (failures at 50) |",
        "|---|---|---|",
    ]
    for run in document["runs"]:
        points = [
            f"{p['robot_minutes']:.1f}: {100 * fmean(e['successes'] / e['episodes'] for e in p['eval']):.0f}, "
            f"{fmean(n for e in p['eval'] for n in e['lengths']):.1f}"
            for p in run["curve"]
        ]
        lines.append(f"| {run['method']} | {run['seed']} | {'; '.join(points)} |")
    return lines


def table1(document: Entry) -> list[str]:
    """Table I."""
    return [
        "Success in percent: per task with Wilson's 95 % interval over all seeds, average with a bootstrap over seeds "
        "and episodes. Nobody tweaks in these evaluations; an operator talks, when the policy errs, in the rows that "
        "say so (the paper's could).",
        "",
        *success_table(document),
        *length_table(document),
        "",
        paper.CLONED_BASELINES,
        *paired_table(document),
        *cost_table(document),
    ]


def fig5(document: Entry) -> list[str]:
    """Fig. 5."""
    return [
        "Evaluations only, nobody talks or tweaks; training rollouts with a human in the loop are not in any curve. "
        f"Robot minutes: online steps at 10 Hz. The paper: {paper.FIG5} (its minutes hold resets and pauses).",
        *curve_table(document),
        *paired_table(document),
    ]


def table2(document: Entry) -> list[str]:
    """Table II."""
    return [
        f"The paper: {paper.TABLE2}. Here: `hildaft` is octo-tiny, and smol-tiny is read by eq. 17; both are trained "
        "by us at a small size, the published weights were not run.",
        "",
        *success_table(document),
        *length_table(document),
        *latency_table(document),
        *cost_table(document),
    ]


def latency_table(document: Entry) -> list[str]:
    """Milliseconds of the networks per step; nothing where none were measured."""
    rows: list[str] = []
    for run in document["runs"]:
        if found := run["measured"].get("latency"):
            slow = found["encode_p99_ms"] + found["act_p99_ms"]
            rows.append(
                f"| {run['method']} | {run['seed']} |"
                f" {found['encode_p50_ms']:.1f}, {found['encode_p99_ms']:.1f} |"
                f" {found['act_p50_ms']:.2f}, {found['act_p99_ms']:.2f} |"
                f" {found['threads']} | {slow * CONTROL_HZ / 10:.0f} % |"
            )
    head = [
        "",
        "Latency at batch 1, images to action, in ms (median, then 99th percentile), and the share of the 100 ms step "
        "that the slowest hundredth takes:",
        "",
        "| method | seed | encode | act | threads | share |",
        "|---|---|---|---|---|---|",
    ]
    return [*head, *rows] if rows else []


def ablations(document: Entry) -> list[str]:
    """Preset hildaft with one thing changed at a time."""
    lines = [
        "Preset hildaft with one thing changed at a time; docs/baselines.md says what each name stands for.",
        "",
        *success_table(document),
        *length_table(document),
        "",
        "| changed | obedience | size mm | null drift mm | spread mm | interventions |",
        "|---|---|---|---|---|---|",
    ]
    for method, runs in by_method(document).items():
        names = ("obedience", "size_mm", "null_drift_mm", "spread_mm")
        values = [[r["metrics"][n] for r in runs if n in r["metrics"]] for n in names]
        shares = [r["interventions_share"] for r in runs if r["interventions_share"] is not None]
        cells = [f"{fmean(v):.2f}" if v else "-" for v in values]
        share = f"{100 * fmean(shares):.1f} %" if shares else "-"
        lines.append(f"| {method} | {' | '.join(cells)} | {share} |")
    return [*lines, *paired_table(document), *cost_table(document)]


def talk_control(document: Entry) -> list[str]:
    """Right, random and opposite words on the same scenes."""
    lines = [
        "The same scenes for each row of a run; nobody tweaks. The operator speaks where the policy errs, or all the "
        "way: of every move but its last 5 mm. The content of the words matters where right beats random and opposite.",
        "",
        "| run | seed | transitions | obedience | talk | success % | length |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in document["runs"]:
        for result in run["measured"].values():
            tasks = result["tasks"]
            solved = sum(e["successes"] for e in tasks)
            episodes = sum(e["episodes"] for e in tasks)
            obedience = run["metrics"].get("obedience")
            when = ", all the way" if result.get("talk_always") else ""
            lines.append(
                f"| {run['method']} | {run['seed']} | {run['transitions']} |"
                f" {'-' if obedience is None else f'{obedience:.3f}'} | {result['talk']}{when} |"
                f" {percent(wilson_interval(solved, episodes))} |"
                f" {fmean(n for e in tasks for n in e['lengths']):.1f} |"
            )
    return lines
