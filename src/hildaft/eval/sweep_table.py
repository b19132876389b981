"""What a sweep found: one row per variant, and every run that failed by name."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

from hildaft.eval.evaluate import EvaluationRecord
from hildaft.eval.run_data import RunData, read_run
from hildaft.eval.statistics import wilson_interval
from hildaft.eval.sweep import Ending
from hildaft.types import HilDaftError

RESULTS_FILE: Final = "results.json"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant over its seeds."""

    variant: str
    finished: int
    asked: int
    before: tuple[float, ...]
    """Success after the warm-up, mean over tasks, by run."""
    after: tuple[float, ...]
    """Success at the end, mean over tasks, by run."""
    successes: int
    episodes: int
    """Of all tasks and seeds at the end."""
    length: float
    """Steps per episode at the end, failures counted as the limit."""
    robot_minutes: float


def summarise(endings: Sequence[Ending]) -> tuple[list[Row], list[dict[str, Any]]]:
    """A row per variant, and what `results.json` says of each run.

    Raises:
        HilDaftError: a finished run's folder is damaged.
    """
    rows: list[Row] = []
    runs: list[dict[str, Any]] = []
    for variant in dict.fromkeys(ending.job.variant for ending in endings):
        mine = [ending for ending in endings if ending.job.variant == variant]
        found = [(e, read_run(e.job.folder)) for e in mine if e.state == "finished"]
        runs += [_describe(ending, run) for ending, run in found]
        ends = [run.after for _, run in found if run.after is not None]
        before = [run.before for _, run in found if run.before is not None]
        lengths = [n for end in ends for task in end.result.tasks for n in task.lengths]
        rows.append(
            Row(
                variant=variant,
                finished=len(found),
                asked=len(mine),
                before=tuple(record.result.success_rate for record in before),
                after=tuple(record.result.success_rate for record in ends),
                successes=sum(task.successes for end in ends for task in end.result.tasks),
                episodes=sum(task.episodes for end in ends for task in end.result.tasks),
                length=mean(lengths) if lengths else math.nan,
                robot_minutes=mean(e.robot_minutes for e in ends) if ends else math.nan,
            )
        )
    return rows, runs


def table(rows: Sequence[Row], endings: Sequence[Ending]) -> str:
    """Markdown, readable as it is."""
    lines = [
        "| variant | seeds | warm-up | final | 95 % of all episodes | steps | robot minutes |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        interval = "-"
        if row.episodes:
            wilson = wilson_interval(row.successes, row.episodes)
            interval = f"{100 * wilson.low:.0f} to {100 * wilson.high:.0f} %"
        cells = (
            row.variant,
            f"{row.finished} of {row.asked}",
            _over_seeds(row.before),
            _over_seeds(row.after),
            interval,
            _number(row.length),
            _number(row.robot_minutes),
        )
        lines.append(f"| {' | '.join(cells)} |")
    failed = [ending for ending in endings if ending.state != "finished"]
    if failed:
        lines += ["", "Not finished:", ""]
        lines += [f"- {e.job.name} {e.state}{': ' + e.reason if e.reason else ''}" for e in failed]
    return "\n".join(lines)


def write_results(folder: Path, command: str, endings: Sequence[Ending]) -> str:
    """Writes results.json and results.md into the sweep folder; returns the table.

    Raises:
        HilDaftError: a finished run's folder is damaged, or the folder cannot be written.
    """
    rows, runs = summarise(endings)
    text = table(rows, endings)
    unfinished = [
        {"run": e.job.name, "state": e.state, "reason": e.reason, "log": str(e.job.log)}
        for e in endings
        if e.state != "finished"
    ]
    document = {"study": folder.name, "command": command, "runs": runs, "unfinished": unfinished}
    try:
        (folder / RESULTS_FILE).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (folder / "results.md").write_text(f"`{command}`\n\n{text}\n", encoding="utf-8")
    except OSError as error:
        msg = (
            f"sweep folder {folder}: {error.strerror or error}; free space or mend the permissions"
        )
        raise HilDaftError(msg) from error
    return text


def _describe(ending: Ending, run: RunData) -> dict[str, Any]:
    """One entry of `runs`, as the results files have it."""

    def tasks(record: EvaluationRecord | None) -> list[dict[str, Any]]:
        return [] if record is None else record.result.to_json()

    after = run.after
    return {
        "method": ending.job.variant,
        "preset": run.preset,
        "seed": ending.job.seed,
        "folder": str(run.folder),
        "commit": run.commit,
        "date": run.date,
        "machine": run.machine,
        "transitions": 0 if after is None else after.transitions,
        "robot_minutes": 0.0 if after is None else after.robot_minutes,
        "wall_minutes": 0.0 if after is None else after.wall_minutes,
        "warmup_eval": tasks(run.before),
        "eval": tasks(after),
        "curve": [
            {"transitions": r.transitions, "robot_minutes": r.robot_minutes, "eval": tasks(r)}
            for r in run.silent
        ],
        "metrics": {} if after is None else dict(after.diagnostics),
    }


def _over_seeds(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread} %"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"
