"""Evaluation of a policy on fresh seeds that are the same for every policy, and its files."""

import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast, get_args

import numpy as np

from hildaft.eval.statistics import STEP_LIMIT, counted_lengths
from hildaft.runtime.interaction import Pacing, run_episode
from hildaft.types import Episode, HilDaftError, Operator, OperatorKeys, Policy, Robot

Talk: TypeAlias = Literal["none", "right", "random", "opposite"]
"""What the operator says during an evaluation; "none" is silence."""

STALL_STEPS: Final = 10
STALL_ACTION: Final = 0.1
"""Mean norm of the six executed motion components below which the end effector hardly moves:
a tenth of the full step, 1.5 mm or 0.9 degrees at the default scale."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one evaluation episode went."""

    seed: int
    success: bool
    length: int
    """Steps taken."""
    stalled: bool
    """Ended without success while the end effector hardly moved over the last ten steps."""
    robot: str = ""
    """The robot it was met by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskEvaluation:
    """Outcomes of one task, in the order of the seeds."""

    task: str
    talk: str
    outcomes: tuple[Outcome, ...]
    step_limit: int = STEP_LIMIT
    """What a failure counts as."""

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(self.outcomes)

    @property
    def successes(self) -> int:
        """Number of successful episodes."""
        return sum(outcome.success for outcome in self.outcomes)

    @property
    def lengths(self) -> list[int]:
        """Steps per episode, failures counted as the limit."""
        return counted_lengths(
            [outcome.success for outcome in self.outcomes],
            [outcome.length for outcome in self.outcomes],
            self.step_limit,
        )

    def to_json(self) -> dict[str, Any]:
        """Shape E of the results files, with the outcomes beside it."""
        return {
            "task": self.task,
            "talk": self.talk,
            "episodes": self.episodes,
            "successes": self.successes,
            "lengths": self.lengths,
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """All tasks of one evaluation."""

    tasks: tuple[TaskEvaluation, ...]

    @property
    def success_rate(self) -> float:
        """Mean over tasks of the success rate, in [0, 1]."""
        return float(np.mean([task.successes / task.episodes for task in self.tasks]))

    def to_json(self) -> list[dict[str, Any]]:
        """A list of shape E, one per task."""
        return [task.to_json() for task in self.tasks]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRecord:
    """One file of a run's `evaluations/`: the result and where in the run it was made."""

    name: str
    """"warmup", "online" or "final"."""
    transitions: int
    """Online transitions before this evaluation."""
    robot_minutes: float
    """Time the robot has moved online: transitions at the control rate."""
    wall_minutes: float
    """Time since the run began, pauses between sessions excluded."""
    preset: str
    seed: int
    """Seed of the run."""
    result: EvaluationResult
    talk: str = "none"
    diagnostics: Mapping[str, float] = field(default_factory=dict[str, float])
    """"obedience" (share), "size_mm", "null_drift_mm", "spread_mm"; absent where not measured."""


def evaluate(
    robot: Robot,
    policy: Policy,
    tasks: Sequence[str],
    episodes: int,
    seed: int,
    operator: Operator | None = None,
    on_episode: Callable[[Episode], None] | None = None,
    *,
    talk: Talk = "none",
    pacing: Pacing | None = None,
    keep_images: bool = False,
    keys: OperatorKeys | None = None,
    step_limit: int = STEP_LIMIT,
) -> EvaluationResult:
    """Runs `episodes` episodes of every task; `on_episode` is called after each of them.

    Start states depend on (seed, task, episode number) alone, so two policies meet the same ones.

    Args:
        robot: the robot; left stopped.
        policy: what acts.
        tasks: task names, at least one.
        episodes: per task, at least 1.
        seed: of the evaluation; keep it apart from seeds used for training.
        operator: None for silence and no tweaks.
        on_episode: for progress or storage.
        talk: recorded with the result; what the operator really says is the operator's business.
        pacing: None runs at the robot's own speed.
        keep_images: whether the episodes handed to `on_episode` carry images.
        keys: of a person beside the robot.
        step_limit: steps that a failure counts as.

    Raises:
        HilDaftError: if tasks is empty, episodes < 1 or talk is unknown.
    """
    _require_allowed(tasks, episodes, talk)
    pacing = pacing or Pacing()
    run = partial(run_episode, robot, policy, operator, keep_images=keep_images, keys=keys)
    evaluations: list[TaskEvaluation] = []
    for task in tasks:
        outcomes: list[Outcome] = []
        for number in range(episodes):
            episode = run(task, evaluation_seed(seed, task, number), "eval", pacing=pacing)
            outcomes.append(outcome_of(episode))
            if on_episode is not None:
                on_episode(episode)
        evaluations.append(
            TaskEvaluation(task=task, talk=talk, outcomes=tuple(outcomes), step_limit=step_limit)
        )
    return EvaluationResult(tasks=tuple(evaluations))


def _require_allowed(tasks: Sequence[str], episodes: int, talk: str) -> None:
    if not tasks or episodes < 1 or talk not in get_args(Talk):
        msg = (
            f"evaluation tasks={list(tasks)!r} episodes={episodes} talk={talk!r}: at least one "
            f"task, at least 1 episode and talk out of {', '.join(get_args(Talk))} are allowed"
        )
        raise HilDaftError(msg)


def evaluation_seed(seed: int, task: str, number: int) -> int:
    """Seed of one evaluation episode, in [0, 2**31): the same for every policy and machine.

    Raises:
        HilDaftError: a negative seed.
    """
    if seed < 0:
        msg = f"seed {seed}: 0 or more is allowed"
        raise HilDaftError(msg)
    entropy = np.random.SeedSequence([seed, zlib.crc32(task.encode()), number])
    return int(entropy.generate_state(1)[0]) >> 1


def outcome_of(episode: Episode) -> Outcome:
    """What an evaluation keeps of an episode."""
    motion = np.linalg.norm(episode.executed_action[-STALL_STEPS:, :6], axis=1).mean()
    return Outcome(
        seed=episode.seed,
        success=episode.success,
        length=len(episode),
        stalled=not episode.success and float(motion) < STALL_ACTION,
        robot=episode.robot,
    )


def write_evaluation(run_folder: Path, record: EvaluationRecord) -> Path:
    """Writes `evaluations/<transitions>-<name>.json` whole and returns its path.

    The same evaluation made again after a resume replaces the file.

    Raises:
        HilDaftError: if it cannot be written.
    """
    document = {
        "name": record.name,
        "transitions": record.transitions,
        "robot_minutes": record.robot_minutes,
        "wall_minutes": record.wall_minutes,
        "talk": record.talk,
        "preset": record.preset,
        "seed": record.seed,
        "step_limit": record.result.tasks[0].step_limit,
        "tasks": record.result.to_json(),
        "diagnostics": dict(record.diagnostics),
    }
    path = run_folder / "evaluations" / f"{record.transitions:06d}-{record.name}.json"
    temporary = path.with_name(f".writing-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        msg = (
            f"evaluation file {path}: {error.strerror or error}; free space or mend the permissions"
        )
        raise HilDaftError(msg) from error
    return path


def read_evaluations(run_folder: Path) -> list[EvaluationRecord]:
    """The evaluations of a run, in order of transitions; empty if none was made yet.

    Raises:
        HilDaftError: for a damaged or foreign file, naming it.
    """
    paths = sorted((run_folder / "evaluations").glob("[!.]*.json"))
    order = {"warmup": 0, "online": 1, "final": 2}
    records = [_read_evaluation(path) for path in paths]
    return sorted(records, key=lambda r: (r.transitions, order.get(r.name, 3)))


def _read_evaluation(path: Path) -> EvaluationRecord:
    try:
        document = cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))
        return EvaluationRecord(
            name=document["name"],
            transitions=int(document["transitions"]),
            robot_minutes=float(document["robot_minutes"]),
            wall_minutes=float(document["wall_minutes"]),
            preset=document["preset"],
            seed=int(document["seed"]),
            talk=document["talk"],
            result=parse_result(document["tasks"], int(document["step_limit"])),
            diagnostics={k: float(v) for k, v in document["diagnostics"].items() if v is not None},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"evaluation file {path} is damaged or not ours ({error}): move it out of the folder"
        raise HilDaftError(msg) from error


def parse_result(tasks: Sequence[Mapping[str, Any]], step_limit: int) -> EvaluationResult:
    """The inverse of `EvaluationResult.to_json`."""
    return EvaluationResult(tasks=tuple(_parse_task(task, step_limit) for task in tasks))


def _parse_task(document: Mapping[str, Any], step_limit: int) -> TaskEvaluation:
    return TaskEvaluation(
        step_limit=step_limit,
        task=document["task"],
        talk=document["talk"],
        outcomes=tuple(
            Outcome(
                seed=int(outcome["seed"]),
                success=bool(outcome["success"]),
                length=int(outcome["length"]),
                stalled=bool(outcome["stalled"]),
                robot=str(outcome.get("robot", "")),
            )
            for outcome in document["outcomes"]
        ),
    )
