"""Many runs of `hildaft train`: variants times seeds, on this machine or a Ray cluster, resumable, one table.

A sweep folder holds `VARIANT/seed-N/`, an ordinary run folder, and `VARIANT/seed-N.log`, what the run printed. Which
runs are finished is read from the folders alone, so the same command goes on with whatever is left.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

from hildaft.eval.evaluate import read_evaluations
from hildaft.eval.run_data import CONFIG_FILE
from hildaft.types import HilDaftError

PLAN_FILE: Final = "sweep.json"
_VARIANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}")
_STOP_S: Final = 120.0
"""A run that was told to stop writes a checkpoint after its episode; then it is killed."""

Value: TypeAlias = bool | int | float | str
State: TypeAlias = Literal["finished", "failed", "stopped"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One method, or one setting of it."""

    preset: str = "hildaft"
    """Preset of `hildaft train`."""
    options: dict[str, Value] = field(default_factory=dict[str, Value])
    """Overrides by their names in config.yaml, such as method.counterfactual_weight."""


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What a sweep runs; read from a YAML file or made from preset names."""

    seeds: tuple[int, ...]
    """Every variant runs with each of them."""
    variants: dict[str, Variant]
    """By name; the name becomes a folder."""
    options: dict[str, Value] = field(default_factory=dict[str, Value])
    """Overrides of every variant; a variant's own go before them."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            msg = f"seeds={list(self.seeds)}: one or more different numbers from 0 on are allowed"
            raise HilDaftError(msg)
        if not self.variants:
            msg = "variants: none given; name presets, or variants in a YAML file"
            raise HilDaftError(msg)
        for name, variant in self.variants.items():
            if not _VARIANT.fullmatch(name):
                msg = f"variants={name!r}: letters, digits, dots, - and _ are allowed, up to 61"
                raise HilDaftError(msg)
            for option in (*self.options, *variant.options):
                if option in ("seed", "out", "resume", "preset") or option.startswith("-"):
                    msg = f"options={option!r}: the sweep sets that itself, or it is no field of config.yaml"
                    raise HilDaftError(msg)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a sweep."""

    variant: str
    seed: int
    folder: Path
    words: tuple[str, ...]
    """What `hildaft` is called with where the run begins."""

    @property
    def name(self) -> str:
        """How it is called in messages."""
        return f"{self.variant}/seed-{self.seed}"

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def is_finished(self) -> bool:
        """Whether the run has made its last evaluation; raises HilDaftError for a damaged one."""
        return any(record.name == "final" for record in read_evaluations(self.folder))


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a job ended, or why it did not."""

    job: Job
    state: State
    reason: str = ""


Launcher: TypeAlias = Callable[[Sequence[Job], threading.Event], Iterator[Ending]]
"""Runs jobs and tells each one's end as it comes; ends early, with checkpoints, once the event is set."""


def plan_jobs(plan: SweepPlan, folder: Path) -> list[Job]:
    """The jobs in the order they are run: every variant with the first seed, then with the next.

    Raises:
        HilDaftError: the folder holds a sweep in which a variant of this name means something else.
    """
    path = folder / PLAN_FILE
    wanted = {name: _settings(plan, variant) for name, variant in plan.variants.items()}
    known: dict[str, object] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            known = json.loads(path.read_text(encoding="utf-8"))
        for name, settings in wanted.items():
            if known.get(name, settings) != settings:
                msg = (
                    f"sweep folder {folder}: variant {name!r} was begun as {json.dumps(known[name])}; "
                    "give the new one another name, or another --out"
                )
                raise HilDaftError(msg)
        temporary = path.with_suffix(".writing")
        temporary.write_text(json.dumps({**known, **wanted}, indent=1), encoding="utf-8")
        temporary.rename(path)
    except (OSError, ValueError) as error:
        msg = f"sweep folder {folder}: {error}; name another with --out"
        raise HilDaftError(msg) from error
    return [
        Job(
            variant=name,
            seed=seed,
            folder=folder / name / f"seed-{seed}",
            words=_words(plan, variant, seed, folder / name / f"seed-{seed}"),
        )
        for seed in plan.seeds
        for name, variant in plan.variants.items()
    ]


def run_job(job: Job, stop: threading.Event) -> Ending:
    """Runs one job in a process of its own, from wherever its folder stands."""
    try:
        if job.is_finished:
            return Ending(job=job, state="finished")
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        words = job.words
        if (job.folder / CONFIG_FILE).exists():
            words = ("train", "--out", str(job.folder), "--resume")
        with job.log.open("ab") as log:
            # A session of its own: a key pressed in the terminal reaches it through here, once.
            process = subprocess.Popen(
                [sys.executable, "-m", "hildaft.cli", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            code = _wait(process, stop)
        if code == 0:
            return Ending(job=job, state="finished")
        if stop.is_set():
            return Ending(job=job, state="stopped")
        return Ending(job=job, state="failed", reason=f"exit code {code}: {_last_line(job.log)}")
    except (OSError, HilDaftError) as error:
        return Ending(job=job, state="failed", reason=str(error))


def run_locally(processes: int) -> Launcher:
    """A launcher with so many runs at once on this machine."""

    def launch(jobs: Sequence[Job], stop: threading.Event) -> Iterator[Ending]:
        def one(job: Job) -> Ending:
            # Asked here: jobs that have not begun when the sweep is stopped do not begin.
            return Ending(job=job, state="stopped") if stop.is_set() else run_job(job, stop)

        with ThreadPoolExecutor(processes, thread_name_prefix="sweep") as pool:
            for future in as_completed([pool.submit(one, job) for job in jobs]):
                yield future.result()

    return launch


def _wait(process: "subprocess.Popen[bytes]", stop: threading.Event) -> int:
    """The exit code; a stop is passed on once, and where that does not help within a time, the process is killed."""
    while process.poll() is None and not stop.wait(0.2):
        pass
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        process.kill()
    return process.wait()


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else "it printed nothing"


def _settings(plan: SweepPlan, variant: Variant) -> dict[str, object]:
    return asdict(Variant(preset=variant.preset, options={**plan.options, **variant.options}))


def _words(plan: SweepPlan, variant: Variant, seed: int, folder: Path) -> tuple[str, ...]:
    words = ["train", variant.preset, "--out", str(folder), "--seed", str(seed)]
    for name, value in {**plan.options, **variant.options}.items():
        head, _, last = name.replace("_", "-").rpartition(".")
        if value is False:
            last = f"no-{last}"
        words.append(f"--{head}.{last}" if head else f"--{last}")
        if not isinstance(value, bool):
            words += str(value).split()
    return tuple(words)
