"""Writes docs/results/main.json and main.md from finished runs, so that no figure is typed by hand.

python benchmarks/main_results.py runs/main-0 runs/main-1 runs/main-2 --talk runs/talk-*.json
"""

import json
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from hildaft.eval.run_data import read_run
from hildaft.eval.statistics import wilson_interval
from hildaft.study.collect import describe_run
from hildaft.study.runner import is_trained


@dataclass(frozen=True)
class Arguments:
    """Finished run folders, and what `hildaft eval --talk ... --json` printed."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    talk: tuple[Path, ...] = field(default=())
    """Files with the JSON of talk evaluations."""
    name: str = "main"
    """Name of the study, and of the two files."""


def describe(folder: Path) -> dict[str, Any]:
    """One entry of the study's `runs`."""
    if not is_trained(folder):
        sys.exit(f"{folder}: not a finished run; go on with `hildaft train --resume`")
    return describe_run(read_run(folder), "ours")


def rate(tasks: list[dict[str, Any]]) -> float:
    """Average success over tasks, in percent."""
    return 100 * float(np.mean([task["successes"] / task["episodes"] for task in tasks]))


def cell(task: dict[str, Any]) -> str:
    """Success in percent, its Wilson interval and the mean length."""
    interval = wilson_interval(task["successes"], task["episodes"])
    return (
        f"{100 * interval.estimate:.0f} ({100 * interval.low:.0f}-{100 * interval.high:.0f}),"
        f" {np.mean(task['lengths']):.1f}"
    )


def page(study: dict[str, Any]) -> str:
    """The Markdown twin of the study."""
    runs: list[dict[str, Any]] = study["runs"]
    names = [task["task"] for task in runs[0]["eval"]]
    lines = [
        f"# {study['study']}",
        "",
        f"`{study['command']}` on {study['date']}, {study['machine']}.",
        "",
        "Success in percent with 95 % Wilson interval, then mean episode length (a failure counts 50 steps).",
        "",
        "| preset, seed | stage | transitions | " + " | ".join(names) + " | average |",
        "|---|---|---|" + "---|" * (len(names) + 1),
    ]
    for run in runs:
        label = f"{run['preset']}, {run['seed']}"
        for stage, key, count in (
            ("warm-up", "warmup_eval", 0),
            ("fine-tuned", "eval", run["transitions"]),
        ):
            cells = " | ".join(cell(task) for task in run[key])
            lines.append(f"| {label} | {stage} | {count} | {cells} | **{rate(run[key]):.1f}** |")
    lines += [
        "",
        "| preset, seed | interventions | updates | robot min | wall min | obedience | size mm |"
        " null drift mm | spread mm | command | commit |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        m = run["metrics"]
        lines.append(
            f"| {run['preset']}, {run['seed']} | {100 * run['interventions_share']:.1f} % | {run['updates']} |"
            f" {run['robot_minutes']:.0f} | {run['wall_minutes']:.0f} | {m['obedience']:.3f} | {m['size_mm']:.2f} |"
            f" {m['null_drift_mm']:.2f} | {m['spread_mm']:.2f} | `{run['command']}` | {run['commit']} |"
        )
    lines += [
        "",
        "Average success over online transitions:",
        "",
        "| preset, seed | curve |",
        "|---|---|",
    ]
    for run in runs:
        curve = ", ".join(f"{p['transitions']}: {rate(p['eval']):.0f}" for p in run["curve"])
        lines.append(f"| {run['preset']}, {run['seed']} | {curve} |")
    if study["talk"]:
        lines += [
            "",
            "Talk control (same scenes for each row of a checkpoint; nobody tweaks):",
            "",
            "| run | checkpoint | talk | " + " | ".join(names) + " | average |",
            "|---|---|---|" + "---|" * (len(names) + 1),
        ]
        for entry in study["talk"]:
            cells = " | ".join(cell(task) for task in entry["tasks"])
            when = ", all the way" if entry.get("talk_always") else ""
            lines.append(
                f"| {entry['run']} | {entry['checkpoint']} | {entry['talk']}{when} | {cells} |"
                f" {rate(entry['tasks']):.1f} |"
            )
    return "\n".join([*lines, ""])


def main() -> None:
    given = tyro.cli(Arguments)
    runs = [describe(folder) for folder in given.runs]
    study = {
        "study": given.name,
        "command": shlex.join(["python", *sys.argv]),
        "commit": runs[0]["commit"],
        "date": runs[0]["date"],
        "machine": runs[0]["machine"],
        "runs": runs,
        "talk": [json.loads(path.read_text("utf-8")) for path in given.talk],
    }
    folder = Path("docs") / "results"
    (folder / f"{given.name}.json").write_text(json.dumps(study, indent=1) + "\n", "utf-8")
    (folder / f"{given.name}.md").write_text(page(study), "utf-8")


if __name__ == "__main__":
    main()
