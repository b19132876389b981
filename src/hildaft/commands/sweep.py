"""Many training runs and one table: `sweep`."""

import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from hildaft.commands.parse import parse_words
from hildaft.commands.signals import stop_on_signals
from hildaft.types import HilDaftError

if TYPE_CHECKING:
    from hildaft.eval.sweep import Ending, Job, Launcher, SweepPlan


def sweep(words: Sequence[str]) -> int:
    """`hildaft sweep PRESET... --seeds N... | FILE.yaml [--jobs N] [--ray ADDRESS] [--out FOLDER]`."""

    @dataclass(frozen=True)
    class SweepArguments:
        """Run variants times seeds of `hildaft train`; the same words go on with what is left, and print the table.

        A run that fails is named at the end and stops no other.
        """

        what: tyro.conf.Positional[tuple[str, ...]]
        """Presets to compare, or one YAML file with seeds, variants and options (docs/distributed.md)."""
        seeds: tuple[int, ...] = (0, 1, 2)
        """Each variant runs with every one of them; a file brings its own."""
        out: Path = Path("runs") / "sweep"
        """Sweep folder; may exist, to go on or to add variants and seeds."""
        jobs: int = 1
        """Runs at once on this machine; each takes one to two cores."""
        ray: str | None = None
        """Run on a Ray cluster instead: `auto`, HOST:PORT or `local`; --out has to be on storage its nodes share."""
        cpus: float = 2.0
        """Cores that Ray reserves for a run."""
        gpus: float = 0.0
        """GPUs that Ray reserves for a run."""

    from hildaft.eval.sweep import plan_jobs, run_locally
    from hildaft.eval.sweep_ray import run_on_ray
    from hildaft.eval.sweep_table import write_results

    given = parse_words(SweepArguments, "sweep", words)
    if given.jobs < 1 or given.cpus <= 0 or given.gpus < 0:
        msg = f"--jobs {given.jobs} --cpus {given.cpus} --gpus {given.gpus}: positive numbers are allowed, 0 for --gpus"
        raise HilDaftError(msg)
    jobs = plan_jobs(_plan(given.what, given.seeds), given.out.resolve())
    # Its runs have sessions of their own: a terminal that closes would leave them without it.
    stop = stop_on_signals(signal.SIGHUP)
    launch = (
        run_locally(given.jobs)
        if given.ray is None
        else run_on_ray(given.ray, given.cpus, given.gpus)
    )
    endings = _run(jobs, launch, stop)
    command = shlex.join(["hildaft", "sweep", *words])
    print(write_results(given.out, command, endings))
    if stop.is_set():
        print(f"stopped; go on with: {command}", file=sys.stderr)
        return 130
    return int(any(ending.state != "finished" for ending in endings))


def _run(jobs: Sequence["Job"], launch: "Launcher", stop: threading.Event) -> list["Ending"]:
    """Runs them, says how each ended as it does, and returns the endings in the order of the jobs."""
    endings: dict[str, Ending] = {}
    for ending in launch(jobs, stop):
        endings[ending.job.name] = ending
        left = f"{len(endings)} of {len(jobs)}"
        reason = f": {ending.reason}; see {ending.job.log}" if ending.reason else ""
        print(f"{left}  {ending.job.name} {ending.state}{reason}", file=sys.stderr, flush=True)
    return [endings[job.name] for job in jobs]


def _plan(what: tuple[str, ...], seeds: tuple[int, ...]) -> "SweepPlan":
    from hildaft.config import PRESETS
    from hildaft.config_files import read_yaml, require_name
    from hildaft.eval.sweep import SweepPlan, Variant

    if len(what) == 1 and Path(what[0]).suffix in (".yaml", ".yml"):
        plan = read_yaml(SweepPlan, Path(what[0]), "docs/distributed.md says how to write one")
    else:
        if not what or len(set(what)) != len(what):
            msg = f"sweep {' '.join(what)}: different presets, or one YAML file, are expected"
            raise HilDaftError(msg)
        plan = SweepPlan(seeds=seeds, variants={name: Variant(preset=name) for name in what})
    for name, variant in plan.variants.items():
        require_name(f"variants.{name}.preset", variant.preset, tuple(PRESETS))
    return plan
