"""Several robots and one learner on this machine, as processes over the link: the multi-robot runs.

The robots move at 10 Hz by the clock, so minutes are minutes. The first robot demonstrates, unless demonstrations are
given; the others join when they are there, as in Sec. V-F. Policies are set aside on the way and evaluated on both
benches afterwards.
"""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, final

from hildaft.algo.checkpoint import list_checkpoints
from hildaft.build import build_encoders, claim_folder, human_data_from, resolve_config
from hildaft.config import RunConfig
from hildaft.eval.evaluate import EvaluationRecord, parse_result, write_evaluation
from hildaft.eval.local_bench import EVALUATION_SEED_OFFSET
from hildaft.jobs import evaluate_run
from hildaft.runtime.metrics import RESUMED, read_metrics
from hildaft.study.bound import start_bound
from hildaft.study.grid import MEASURED
from hildaft.types import CONTROL_HZ, HilDaftError

TEST_ROBOTS: Final[tuple[Literal["A", "B"], ...]] = ("A", "B")
_READY: Final = "--learner "
_POLL_S: Final = 0.5
_STOP_S: Final = 120.0


def run_fleet(
    config: RunConfig,
    folder: Path,
    robots: Sequence[str],
    *,
    resume: bool,
    stop: threading.Event,
    demonstrations: Path | None = None,
) -> bool:
    """Trains with these robots and evaluates on both; False where `stop` was set before the end.

    A new run starts from the `demonstrations` of another, or of a folder of episodes, where one is given. Two fleets
    of one seed do not record the same: which task and scene is next hangs on when episodes arrive.

    Raises:
        HilDaftError: no robot, the folder or the demonstrations do not fit, or one of the processes failed; its log
            says why.
    """
    if not robots or any(robot not in TEST_ROBOTS for robot in robots):
        msg = f"--robots {' '.join(robots)}: one or more of {', '.join(TEST_ROBOTS)} are allowed"
        raise HilDaftError(msg)
    config = resolve_config(replace(config, real_time=True), folder, resume=resume)
    if not resume and demonstrations is None:
        claim_folder(config, folder)
    elif not resume:
        given, encoders = (demonstrations, None), build_encoders(config)
        claim_folder(config, folder, human_data_from(given, config, folder, robots[0], encoders))
    if not (folder / "trained").exists():
        fleet = _Fleet(config, folder, robots, stop)
        if not fleet.run():
            return False
        (folder / "trained").touch()
    return _evaluate(config, folder, robots, stop)


@final
class _Fleet:
    """The processes of one run; all of them end with it."""

    def __init__(
        self, config: RunConfig, folder: Path, robots: Sequence[str], stop: threading.Event
    ) -> None:
        self._config, self._folder, self._robots, self._stop = config, folder, robots, stop
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._snapshots = Snapshots(config, folder)

    def run(self) -> bool:
        """Until the learner is finished; False where stopped before."""
        try:
            # Evaluations by the clock would take longer than the training whose time is measured.
            words = ("--out", str(self._folder), "--resume", "--listen", "127.0.0.1:0")
            self._launch("learner", *words, "--no-evaluate")
            address = self._address()
            while not self._stop.is_set():
                if self._processes["learner"].poll() == 0:
                    return True
                self._require_alive()
                ready = self._robots if self._demonstrated() else self._robots[:1]
                for number, robot in enumerate(ready):
                    name = f"robot-{number}-{robot}"
                    if name not in self._processes and address:
                        self._join(name, robot, address)
                self._snapshots.set_aside()
                self._stop.wait(_POLL_S)
            return False
        finally:
            self._snapshots.set_aside()
            self._end()

    def _launch(self, name: str, *words: str) -> None:
        command = "learner" if name == "learner" else "worker"
        log = self._folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        # A line of an earlier start must not be taken for one of this.
        with log.open("wb") as file:
            program = (sys.executable, "-m", "hildaft.cli", command)
            self._processes[name] = start_bound((*program, *words), file)

    def _join(self, name: str, robot: str, address: str) -> None:
        self._launch(
            name,
            *("--robot", robot, "--learner", address, "--name", name),
            *("--token-file", str(self._folder / "token")),
            *("--spool", str(self._folder / "spool" / name)),
        )

    def _address(self) -> str:
        """HOST:PORT the learner listens on; empty where stopped before it did."""
        log = self._folder / "logs" / "learner.log"
        while not self._stop.is_set():
            text = log.read_text(encoding="utf-8", errors="replace")
            if "learner ready" in text and "\n" in text.partition("learner ready")[2]:
                return text.partition("learner ready")[2].partition(_READY)[2].split()[0]
            self._require_alive()
            self._stop.wait(_POLL_S)
        return ""

    def _require_alive(self) -> None:
        for name, process in self._processes.items():
            code = process.poll()
            # A worker leaves on its own when the run is finished.
            if code is not None and (code != 0 or name == "learner"):
                log = self._folder / "logs" / f"{name}.log"
                msg = f"fleet: {name} ended with code {code}; {log} says why, --resume goes on"
                raise HilDaftError(msg)

    def _demonstrated(self) -> bool:
        wanted = self._config.training.demonstrations * len(self._config.tasks)
        return len(list((self._folder / "episodes").glob("*-demo.safetensors"))) >= wanted

    def _end(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + _STOP_S
        for process in self._processes.values():
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
            if process.poll() is None:
                process.kill()
                process.wait()


@final
class Snapshots:
    """Copies of a run's policies on the way, one for each multiple of `evaluation.every` transitions."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        """A resumed fleet goes on with those there are."""
        self._training, self._every, self._folder = config.training, config.evaluation.every, folder
        self._newest = max(
            (int(path.name) // self._every for path in _snapshots(folder)), default=0
        )

    def set_aside(self) -> None:
        """Keeps a copy of the newest checkpoint once the next multiple is passed."""
        for checkpoint in list_checkpoints(self._folder / "checkpoints")[-1:]:
            step = int(checkpoint.name.split("-")[1])
            transitions = step - self._training.warmup_updates
            if transitions >= self._training.online_transitions:
                # The last one is taken when the learner has made its last update.
                return
            number = transitions // self._every
            due = number > self._newest or transitions == 0
            # Where the learner has dropped the checkpoint meanwhile, the next one is taken.
            if transitions >= 0 and due and _copy(checkpoint, self._folder, transitions):
                self._newest = number


def _snapshots(folder: Path) -> list[Path]:
    return sorted((folder / "snapshots").glob("[0-9]*"))


def _copy(checkpoint: Path, folder: Path, transitions: int) -> bool:
    """Whether the checkpoint is set aside; False where it was gone before it was copied."""
    target = folder / "snapshots" / f"{transitions:06d}"
    if target.exists():
        return True
    part = target.with_name(f".writing-{target.name}")
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.copytree(checkpoint, part / "checkpoints" / checkpoint.name)
    except FileNotFoundError:
        shutil.rmtree(part, ignore_errors=True)
        return False
    shutil.copyfile(folder / "config.yaml", part / "config.yaml")
    part.rename(target)
    return True


def _evaluate(
    config: RunConfig, folder: Path, robots: Sequence[str], stop: threading.Event
) -> bool:
    """Evaluates what was set aside and the last policy, each once; a bench nobody trained on is met first and last."""
    newest = list_checkpoints(folder / "checkpoints")[-1]
    last = int(newest.name.split("-")[1]) - config.training.warmup_updates
    _copy(newest, folder, last)
    clock = OnlineClock(folder)
    for snapshot in _snapshots(folder):
        transitions = int(snapshot.name)
        final_one = transitions == last
        at_an_end = final_one or transitions == 0
        for robot in TEST_ROBOTS:
            file = folder / MEASURED / f"curve-{robot}-{transitions:06d}.json"
            if file.exists() or not (at_an_end or robot in robots):
                continue
            if stop.is_set():
                return False
            text = evaluate_run(
                snapshot,
                episodes=config.evaluation.episodes
                if final_one
                else config.evaluation.episodes_during,
                talk="none",
                talk_always=False,
                robot=robot,
                seed=EVALUATION_SEED_OFFSET + config.seed,
                tasks=(),
                as_json=True,
            )
            document = {
                **json.loads(text),
                "robot": robot,
                "transitions": transitions,
                "clock_minutes": clock.at_end() if final_one else clock.at(transitions),
                "robot_minutes": transitions / CONTROL_HZ / 60 / len(robots),
            }
            file.parent.mkdir(exist_ok=True)
            part = file.with_name(f".writing-{file.name}")
            part.write_text(json.dumps(document, indent=1), encoding="utf-8")
            part.rename(file)
    _conclude(config, folder, last, len(robots))
    return True


@final
class OnlineClock:
    """Minutes by the clock since the first online episode's end; while nothing runs, the clock stands."""

    def __init__(self, folder: Path) -> None:
        self._rollouts: list[tuple[float, float]] = []
        self._end_s = stood_s = before = 0.0
        for row in read_metrics(folder):
            if RESUMED in row:
                stood_s += row["time"] - before
            before, self._end_s = row["time"], row["time"] - stood_s
            if any(name.startswith("rollout/length/") for name in row):
                self._rollouts.append((row["step"], self._end_s))

    def at(self, transitions: int) -> float:
        """Until so many transitions were there; 0 before the first."""
        reached = [at for step, at in self._rollouts if step >= transitions > 0]
        return (reached[0] - self._rollouts[0][1]) / 60 if reached else 0.0

    def at_end(self) -> float:
        """Until the last update, which a learner that is behind its robots makes while they stand."""
        return (self._end_s - self._rollouts[0][1]) / 60 if self._rollouts else 0.0


def _conclude(config: RunConfig, folder: Path, last: int, robots: int) -> None:
    """The run's own final evaluation: on A, as every other run's."""
    documents: list[dict[str, Any]] = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((folder / MEASURED).glob("curve-A-*.json"))
    ]
    for document in documents:
        transitions = int(document["transitions"])
        name = "final" if transitions == last else "online" if transitions else "warmup"
        write_evaluation(
            folder,
            EvaluationRecord(
                name=name,
                transitions=transitions,
                robot_minutes=transitions / CONTROL_HZ / 60 / robots,
                wall_minutes=float(document["clock_minutes"]),
                preset=config.preset,
                seed=config.seed,
                result=parse_result(document["tasks"], config.step_limit),
            ),
        )
