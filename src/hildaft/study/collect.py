"""From run folders to the entries of a results file (DESIGN's shape: runs, each with `eval`, `curve`, `metrics`)."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hildaft.eval.evaluate import EvaluationRecord
from hildaft.eval.run_data import RunData, read_run
from hildaft.study.grid import Member
from hildaft.study.runner import is_trained

Entry = dict[str, Any]
"""JSON as it is written."""


def describe_run(run: RunData, method: str, robots: Sequence[str] = ()) -> Entry:
    """A finished run as one entry of a study's `runs`, per-episode outcomes included."""
    before, after = run.before, run.silent[-1]
    config = yaml.safe_load(run.config_text)
    own = (config.get("environment") or {}).get("name", config["robot"])
    return {
        "method": method,
        "preset": run.preset,
        "backbone": config["backbone"],
        "robots": list(robots) or [own],
        "seed": config["seed"],
        "settings": _settings(config),
        "command": run.command,
        "commit": run.commit,
        "date": run.date,
        "machine": run.machine,
        "transitions": after.transitions,
        "updates": int(max((row["updates"] for row in run.metrics), default=0)),
        "robot_minutes": round(after.robot_minutes, 2),
        "wall_minutes": round(after.wall_minutes, 2),
        "interventions_share": interventions_share(run),
        "warmup_eval": [] if before is None else before.result.to_json(),
        "eval": after.result.to_json(),
        "curve": [_point(record) for record in run.silent],
        "metrics": dict(after.diagnostics),
        "series": {
            "intervention_share": _binned(run, "rollout/intervention_share"),
            "obedience": [
                [record.transitions, record.diagnostics["obedience"]]
                for record in run.silent
                if "obedience" in record.diagnostics
            ],
        },
    }


def _settings(config: Entry) -> str:
    """A short digest of what all runs of a study share: robot, tasks, limit, and the operator."""
    # How much the operator may correct is what an ablation changes; nobody talks in what is compared.
    operator = {
        name: value
        for name, value in config["operator"].items()
        if name != "max_share" and not name.startswith("talk")
    }
    shared = [config.get(name) for name in ("robot", "environment", "tasks", "step_limit")]
    text = json.dumps([operator, shared], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def interventions_share(run: RunData) -> float | None:
    """Share of the online steps in which the human acted; None where there were none."""
    # A resumed run reports the episodes since its last checkpoint once more: the transitions tell them apart.
    episodes = {
        row["step"]: (row["rollout/intervention_share"], length)
        for row in run.metrics
        for name, length in row.items()
        if name.startswith("rollout/length/") and "rollout/intervention_share" in row
    }
    if not episodes:
        return None
    shares, lengths = zip(*episodes.values(), strict=True)
    return round(float(np.average(shares, weights=lengths)), 4)


def _point(record: EvaluationRecord) -> Entry:
    tasks = [
        {name: value for name, value in task.items() if name != "outcomes"}
        for task in record.result.to_json()
    ]
    return {
        "name": record.name,
        "transitions": record.transitions,
        "robot_minutes": round(record.robot_minutes, 2),
        "eval": tasks,
    }


def _binned(run: RunData, name: str, bins: int = 15) -> list[list[float]]:
    """Means over equal stretches of the online stage: [transitions at the end, mean]."""
    steps, values = run.series(name)
    if not steps:
        return []
    edges = np.linspace(0.0, max(steps), bins + 1)
    which = np.clip(np.searchsorted(edges, steps, side="left") - 1, 0, bins - 1)
    return [
        [round(float(edges[b + 1]), 1), round(float(np.mean(np.array(values)[which == b])), 4)]
        for b in range(bins)
        if (which == b).any()
    ]


def collect(
    members: Sequence[Member],
    folder_of: Sequence[Path],
    failures: dict[str, str],
    earlier: Sequence[Entry] = (),
) -> tuple[list[Entry], list[Entry]]:
    """Entries of the runs that are finished, and of those that are not, with why and how far they are.

    A run that is not finished here is taken from `earlier` results where they have it; what else these hold comes last.
    """
    known = {key_of(entry): entry for entry in earlier}
    runs: list[Entry] = []
    missing: list[Entry] = []
    for member, folder in zip(members, folder_of, strict=True):
        if is_trained(folder):
            entry = describe_run(read_run(folder), member.method, member.robots)
            if member.given is not None:
                entry["method"] = entry["preset"]
            entry["folder"] = folder.name
            entry["measured"] = _measured(folder, member)
            entry["not_measured"] = [
                m.name for m in member.measurements if not m.file(folder).exists()
            ]
            runs.append(entry)
        elif (kept := known.get((member.method, member.seed))) and member.given is None:
            runs.append(kept)
        else:
            reason = failures.get(str(folder)) or _how_far(folder)
            missing.append({"method": member.method, "seed": member.seed, "reason": reason})
    there = {key_of(run) for run in runs}
    return runs + [entry for key, entry in known.items() if key not in there], missing


def key_of(run: Entry) -> tuple[str, int]:
    """What tells the runs of a study apart."""
    return run["method"], run["seed"]


def _measured(folder: Path, member: Member) -> Entry:
    found: Entry = {}
    for measurement in member.measurements:
        file = measurement.file(folder)
        if file.exists():
            found[measurement.name] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _how_far(folder: Path) -> str:
    if not (folder / "config.yaml").exists():
        return "not run"
    run = read_run(folder)
    done = int(max((row["step"] for row in run.metrics), default=0))
    wanted = yaml.safe_load(run.config_text)["training"]["online_transitions"]
    return f"not finished: {done} of {wanted} transitions"
