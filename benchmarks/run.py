"""Runs every benchmark in a process of its own and writes `docs/results/bench.json` and `bench.md`.

`python benchmarks/run.py [--out docs/results] [--lerobot-python PATH] [--only NAME ...]`. What is not measured is left
as it was only with --only; otherwise it is absent. Each benchmark is stored with its own commit, date and how busy the
machine was with other work, so that a figure of another day or of a crowded machine can be told.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from common import ROOT, Neighbours, commit, launched, machine

HERE: Final = Path(__file__).parent
LIMIT_S: Final = 900
BENCHMARKS: Final = (
    "learner",
    "against_lerobot",
    "replay",
    "worker",
    "sim_cost",
    "publish",
    "gpu",
)

BARS: Final[dict[str, tuple[str, str]]] = {
    "learner.online_vs_reencode": (">= 60", "150"),
    "learner.online_vs_lerobot": (">= 100", "200"),
    "learner.online_vs_loop": (">= 1.75", "3"),
    "learner.warmup_vs_loop": (">= 1.5", "2.5"),
    "learner.warmup_vs_loop_e10": (">= 1.5", "2.5"),
    "learner.online_floor_share": (">= 42", "65"),
    "learner.warmup_floor_share": (">= 35", "55"),
    "learner.fault_share": ("<= 15", "0"),
    "replay.sample_share": ("<= 2", "0.5"),
    "learner.tasks30_vs_3": ("<= 1.5", "1.2"),
    "replay.bytes_per_transition": ("<= 6550", "3020"),
    "worker.act_p99_ms": ("<= 2", "0.5"),
    "worker.late_share": ("<= 1", "0"),
    "sim.steps_per_core_s": (">= 100", "200"),
    "publish.p50_ms": ("<= 100", "20"),
    "gpu.updates_per_s": (">= 1000", "3000"),
}
"""What we set out to reach, and what we hoped for."""


def run_one(name: str, options: Sequence[str]) -> dict[str, Any]:
    """One benchmark's output, or the reason why there is none; and what it was measured on and beside."""
    neighbours = Neighbours()
    before = os.getloadavg()[0]
    result = _output_of(name, options)
    measured = {
        "commit": commit(),
        "date": _today(),
        "load_average": {"before": round(before, 2), "after": round(os.getloadavg()[0], 2)},
        "others_busy_cores": round(neighbours.cores(), 2),
    }
    return {"figures": result["figures"], "extra": {**result["extra"], "measured": measured}}


def _today() -> str:
    return datetime.now(timezone.utc).date().isoformat()


def _output_of(name: str, options: Sequence[str]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, str(HERE / f"{name}.py"), *options],
            env=launched(),
            stdout=subprocess.PIPE,
            text=True,
            timeout=LIMIT_S,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        return {"figures": {}, "extra": {"skipped": f"{name}: {error}"}}
    return json.loads(done.stdout)


def table(document: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        "# bench",
        "",
        f"`make bench` at {document['commit']} on {document['date']}, {document['machine']}.",
        "",
        "Medians with quartiles; how they are taken: [performance](../performance.md).",
        "",
        "| figure | value | quartiles | unit | against | bar | hoped for |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, f in document["figures"].items():
        bar, hoped = BARS.get(name, ("", ""))
        cells = (
            f"`{name}`",
            f"{f['value']:g}",
            f"{f['low']:g} - {f['high']:g}",
            f["unit"],
            f["against"],
            bar,
            hoped,
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += _circumstances(document["extra"])
    reasons = [extra["skipped"] for extra in document["extra"].values() if extra.get("skipped")]
    if reasons:
        lines += ["", "Not measured:", "", *(f"- {reason}" for reason in reasons)]
    return "\n".join(lines) + "\n"


def _circumstances(extra: dict[str, Any]) -> list[str]:
    """When, at which commit and beside how much other work each benchmark ran."""
    rows: list[str] = []
    for name, values in extra.items():
        if found := values.get("measured"):
            load = found["load_average"]
            rows.append(
                f"| {name} | {found['commit']} | {found['date']} | {load['before']:g}, {load['after']:g} |"
                f" {found['others_busy_cores']:g} |"
            )
    if not rows:
        return []
    head = (
        "| benchmark | commit | date | load average before, after | cores that others kept busy |"
    )
    return ["", head, "|---|---|---|---|---|", *rows]


def main() -> None:
    """Runs, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--lerobot-python", type=Path, help="interpreter that can import lerobot")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS)
    arguments = parser.parse_args()
    target = arguments.out / "bench.json"
    document: dict[str, Any] = {
        "machine": machine(),
        "commit": commit(),
        "date": _today(),
        "command": "python benchmarks/run.py",
        "figures": {},
        "extra": {},
    }
    if tuple(arguments.only) != BENCHMARKS and target.exists():
        kept = json.loads(target.read_text())
        document["figures"], document["extra"] = kept["figures"], kept["extra"]
    for name in arguments.only:
        options = ()
        if name == "against_lerobot" and arguments.lerobot_python:
            options = ("--lerobot-python", str(arguments.lerobot_python))
        print(f"{name} ...", file=sys.stderr, flush=True)
        result = run_one(name, options)
        for old in document["extra"].get(name, {}).get("figures", ()):
            document["figures"].pop(old, None)
        document["figures"] |= result["figures"]
        document["extra"][name] = {"figures": list(result["figures"]), **result["extra"]}
        arguments.out.mkdir(parents=True, exist_ok=True)
        # Written after each: a run that is cut short still counts.
        target.write_text(json.dumps(document, indent=1) + "\n")
        (arguments.out / "bench.md").write_text(table(document))
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
