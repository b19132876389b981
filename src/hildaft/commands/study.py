"""The paper's experiments: `study` runs one of them within a time budget and writes what came out."""

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from hildaft.commands.parse import parse_words, split_preset
from hildaft.types import HilDaftError

if TYPE_CHECKING:
    from hildaft.study.grid import Member
    from hildaft.study.results import StudyResult


@dataclass(frozen=True)
class StudyArguments:
    """Run an experiment of the paper; stop and start it as you like, finished runs are never run again."""

    name: tyro.conf.Positional[str]
    """table1, fig5, table2, long-horizon, multi-robot, ablations or talk-control."""
    quick: bool = False
    """A short form: fewer transitions and episodes, one seed; table1 takes about twenty minutes on two cores."""
    budget_minutes: float | None = None
    """Stop after this long; what was not run is listed, and the next call goes on."""
    jobs: int = os.cpu_count() or 1
    """Runs at a time."""
    seeds: tuple[int, ...] = field(default=())
    """Seeds to run; 0 1 2, or 0 with --quick, where not given. The results hold those as well, where they are."""
    transitions: int | None = None
    """Online transitions of each run where the study's own number (15,000; quick 1,500) is not wanted."""
    only: tuple[str, ...] = field(default=())
    """Methods to run; all where not given. The results hold the others as well, where they are."""
    run: tuple[Path, ...] = field(default=())
    """Finished runs to measure in place of training some (long-horizon, talk-control)."""
    root: Path = Path("runs") / "study"
    """Folder of the runs."""
    out: Path = Path("docs") / "results"
    """Folder of the results."""
    keep: bool = False
    """Keep runs of the results in --out whose folders are not here: made on another machine, or removed since."""
    summarise: bool = False
    """Run nothing; write the results of what is there."""


def study(words: Sequence[str]) -> int:
    """`hildaft study NAME [--quick] [--budget-minutes M] [--jobs J] [--seeds N...]`."""
    from hildaft.config_files import require_name
    from hildaft.study.studies import STUDIES

    given = parse_words(StudyArguments, "study", words)
    require_name("study", given.name, tuple(STUDIES))
    if given.jobs < 1 or (given.budget_minutes is not None and given.budget_minutes < 0):
        msg = f"--jobs {given.jobs} --budget-minutes {given.budget_minutes}: 1 or more, 0 or more is allowed"
        raise HilDaftError(msg)

    from hildaft.study.results import write_results
    from hildaft.study.runner import ELSEWHERE, Runner

    result = _whole_study(given, words)

    def write(failures: dict[str, str]) -> None:
        for path in write_results(result, given.out, failures):
            print(path, flush=True)

    runner = Runner(
        given.name,
        _to_run(given, result),
        result.root,
        jobs=given.jobs,
        say=_say,
        on_done=lambda: write(runner.failures),
    )
    deadline = time.monotonic() + (
        60 * given.budget_minutes if given.budget_minutes is not None else float("inf")
    )
    stop = _Stop()
    finished = True if given.summarise else runner.run(deadline, stop.is_set)
    write(runner.failures)
    if finished or given.summarise:
        return 0
    if any(reason != ELSEWHERE for reason in runner.failures.values()):
        return 1
    print("not finished; the same command goes on", file=sys.stderr)
    return 130 if stop.is_set() else 0


def _whole_study(given: StudyArguments, words: Sequence[str]) -> "StudyResult":
    """What the results are of: the usual seeds and the given ones, of every method."""
    from hildaft.study.results import StudyResult
    from hildaft.study.studies import plan_study

    usual = (0,) if given.quick else (0, 1, 2)
    members = plan_study(
        given.name,
        seeds=sorted({*usual, *given.seeds}),
        quick=given.quick,
        transitions=given.transitions,
        runs=given.run,
    )
    # Runs of other lengths are other runs.
    suffix = ("-quick" if given.quick else "") + (
        f"-{given.transitions}" if given.transitions is not None else ""
    )
    return StudyResult(
        name=given.name + suffix,
        study=given.name,
        command=("hildaft", "study", *words),
        members=members,
        root=given.root.with_name(given.root.name + suffix),
        keep=given.keep,
    )


def _to_run(given: StudyArguments, result: "StudyResult") -> list["Member"]:
    """Those asked for, without what is kept from results written before."""
    from hildaft.study.collect import key_of
    from hildaft.study.results import read_runs
    from hildaft.study.runner import run_folder
    from hildaft.study.studies import choose

    # Read in any case: that they are damaged is said before hours of runs, not after.
    earlier = read_runs(given.out / f"{result.name}.json")
    kept = set(map(key_of, earlier if given.keep else []))
    return [
        member
        for member in choose(result.members, given.only, given.seeds)
        if (member.method, member.seed) not in kept
        or run_folder(result.root, result.study, member).exists()
    ]


def fleet(words: Sequence[str]) -> int:
    """`hildaft fleet [PRESET] --robots A B --out RUN [--demonstrations RUN] [--resume] [overrides]`."""
    from hildaft.config import PRESETS, RunConfig

    preset, rest = split_preset(words)

    @dataclass(frozen=True)
    class FleetArguments:
        """A learner and several robots of the bench on this machine, by the clock; then an evaluation on A and B."""

        config: Annotated[RunConfig, tyro.conf.arg(name="")]
        robots: tuple[str, ...] = ("A", "B")
        """Robots, A or B each; the first one demonstrates."""
        demonstrations: Path | None = None
        """Run, or folder of episodes, of the first robot whose demonstrations to start from in place of recording."""
        out: Path = Path("runs") / time.strftime("fleet-%Y%m%d-%H%M%S")
        """Run folder; must not exist, unless --resume goes on with it."""
        resume: bool = False
        """Go on with the run in --out, with the config it was started with."""

    from hildaft.study.fleet import run_fleet

    given = parse_words(FleetArguments, f"fleet {preset}", rest, FleetArguments(PRESETS[preset]))
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        del frame
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    if run_fleet(
        given.config,
        given.out,
        given.robots,
        resume=given.resume,
        stop=stop,
        demonstrations=given.demonstrations,
    ):
        return 0
    print(f"stopped; go on with: hildaft fleet --out {given.out} --resume", file=sys.stderr)
    return 130


class _Stop:
    """Set by Ctrl-C or SIGTERM; the second signal kills."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    def is_set(self) -> bool:
        return self._asked

    def _on_signal(self, number: int, frame: object) -> None:
        del frame
        self._asked = True
        signal.signal(number, signal.SIG_DFL)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
