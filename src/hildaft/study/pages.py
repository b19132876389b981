"""The Markdown of each study: tables of the paper's shape, its numbers beside ours."""

from collections.abc import Sequence
from statistics import fmean
from typing import Final

from hildaft.eval.comparison import Paired, compare_paired, over_seeds
from hildaft.eval.statistics import Interval, wilson_interval
from hildaft.study import paper_numbers as paper
from hildaft.study.collect import Entry
from hildaft.types import CONTROL_HZ

REFERENCE: Final = "hildaft"
_LENGTHS: Final = (
    "Length: mean steps of the successful episodes, which is what the paper's figures must be (DSRL at 24 % success "
    "and 27.3 steps cannot count failures), then with failures counted as the limit of 50."
)


def by_method(document: Entry) -> dict[str, list[Entry]]:
    """Runs by method, in the order they come."""
    groups: dict[str, list[Entry]] = {}
    for run in document["runs"]:
        groups.setdefault(run["method"], []).append(run)
    return groups


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
            rows[f"{method}, spoken to"] = spoken
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


def solved_length(runs: Sequence[Entry], task: str | None = None) -> float | None:
    """Mean length of successful episodes; None where there are none."""
    lengths = [
        outcome["length"]
        for run in runs
        for e in run["eval"]
        if task in (None, e["task"])
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


def success_table(document: Entry) -> list[str]:
    """Success per task and method; the paper's averages where it has them."""
    names = task_names(document)
    lines = [
        "| method | seeds | " + " | ".join(names) + " | average | paper |",
        "|---|---|" + "---|" * (len(names) + 2),
    ]
    for method, runs in with_spoken(document).items():
        cells = [percent(wilson_interval(*pooled(runs, task))) for task in names]
        reported = paper.TABLE1.get(method)
        lines.append(
            f"| {method} | {len(runs)} | {' | '.join(cells)} | **{percent(average_success(runs))}** |"
            f" {'-' if reported is None else f'{fmean(reported[0]):.1f}'} |"
        )
    return lines


def length_table(document: Entry) -> list[str]:
    """Length per task and method, of successful episodes, and with failures at the limit on average."""
    names = task_names(document)
    lines = [
        "",
        _LENGTHS,
        "",
        "| method | " + " | ".join(names) + " | average | paper | failures at 50 |",
        "|---|" + "---|" * (len(names) + 3),
    ]
    for method, runs in with_spoken(document).items():
        solved = [solved_length(runs, task) for task in (*names, None)]
        reported = paper.TABLE1.get(method)
        steps = reported and reported[1]
        counted = average_length(runs)
        lines.append(
            f"| {method} | {' | '.join('-' if n is None else f'{n:.1f}' for n in solved)} |"
            f" {'-' if not steps else f'{fmean(steps):.1f}'} |"
            f" {counted.estimate:.1f} ({counted.low:.1f}-{counted.high:.1f}) |"
        )
    return lines


def compare(document: Entry, method: str, other: str) -> Paired | None:
    """Two methods on the seeds both have; None where there are none."""
    groups = by_method(document)
    first = {run["seed"]: run for run in groups.get(method, [])}
    second = {run["seed"]: run for run in groups.get(other, [])}
    seeds = sorted(first.keys() & second.keys())
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
    best = max(others, key=lambda m: average_success(groups[m]).estimate)
    lines = [
        "",
        f"## {REFERENCE} against the others",
        "",
        f"Same seeds, same evaluation episodes. Best of the others: **{best}**. Differences with 95 % bootstrap "
        "intervals over seeds and episodes; McNemar's exact test on the episodes that one of the two solved alone, "
        "Wilcoxon's signed-rank test on the lengths.",
        "",
        "| against | seeds | episodes | success, points | p | length, steps | p | solved alone: ours, theirs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in others:
        paired = compare(document, REFERENCE, method)
        if paired is None:
            continue
        name = f"**{method}**" if method == best else method
        length = paired.length
        lines.append(
            f"| {name} | {paired.seeds} | {paired.pairs} | {points(paired.success)} | {paired.p_success:.2g} |"
            f" {length.estimate:+.1f} ({length.low:+.1f} to {length.high:+.1f}) | {paired.p_length:.2g} |"
            f" {paired.only_a}, {paired.only_b} |"
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
            if run["warmup_eval"]
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
