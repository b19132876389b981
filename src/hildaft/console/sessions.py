"""What runs at a station without a training session: the person alone, a policy beside them, or recording."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, final, runtime_checkable

import numpy as np

from hildaft.console.charts import Charts
from hildaft.console.station import Station
from hildaft.data.episodes import EpisodeStore
from hildaft.data.idle_steps import without_idle_steps
from hildaft.runtime.interaction import (
    FrozenEncoders,
    Pacing,
    record_demonstration,
    run_episode,
)
from hildaft.teleop.scripted_operator import ScriptedOperator
from hildaft.teleop.simulated_operator import SimulatedOperator
from hildaft.teleop.talk import label_tweaks
from hildaft.types import (
    CONTROL_HZ,
    Action,
    Encoded,
    Episode,
    Observation,
    OperatorKeys,
    Policy,
    Robot,
)

PENDING: Final = "pending"
"""Folder of demonstrations nobody has judged yet."""
DISCARDED: Final = "discarded"


@runtime_checkable
class SeededPolicy(Policy, Protocol):
    """A policy whose noise follows from a seed."""

    def begin(self, seed: int) -> None:
        """Starts the noise of an episode."""
        ...


@final
class NoEncoders:
    """Stands where nothing is kept: episodes without embeddings."""

    @property
    def encoder_hash(self) -> str:
        """No encoders, no hash."""
        return ""

    def encode(self, observation: Observation, task: str) -> Encoded:
        """The proprioception alone."""
        del task
        empty = np.zeros(0, dtype=np.float32)
        return Encoded(h=empty, features=empty, proprio=observation.proprio)


def practise(
    station: Station,
    robot: Robot,
    tasks: tuple[str, ...],
    charts: Charts,
    stop: threading.Event,
    *,
    seed: int = 0,
) -> None:
    """The person drives, episode after episode, until `stop`; nothing is kept."""
    operator, number = station.operator, 0
    charts.stage("practice: nothing is kept", 0)
    while not stop.is_set():
        episode = record_demonstration(
            robot,
            NoEncoders(),
            operator.demonstrate,
            operator.begin_demonstration,
            tasks[number % len(tasks)],
            seed + number,
            pacing=Pacing(CONTROL_HZ),
            keep_images=False,
            keys=operator,
        )
        charts.episode(success=episode.success, helped=len(episode), steps=len(episode))
        number += 1


def accompany(
    station: Station,
    robot: Robot,
    policy: SeededPolicy,
    tasks: tuple[str, ...],
    charts: Charts,
    stop: threading.Event,
    *,
    seed: int = 0,
) -> None:
    """A policy acts on the tasks in turn while the person talks and tweaks, until `stop`; nothing is kept."""
    number = 0
    charts.stage("policy: nothing is kept", 0)
    while not stop.is_set():
        policy.begin(seed + number)
        episode = run_episode(
            robot,
            policy,
            station.operator,
            tasks[number % len(tasks)],
            seed + number,
            "eval",
            pacing=Pacing(CONTROL_HZ),
            keep_images=False,
            keys=station.operator,
        )
        helped = int(episode.is_intervention.sum())
        charts.episode(success=episode.success, helped=helped, steps=len(episode))
        number += 1


@final
class Recording:
    """Demonstrations of one folder: `episodes` are kept, `pending` wait for a verdict, `discarded` were refused.

    An episode is on disk before anybody is asked about it, so a crash loses none; it moves by being written to its
    new place before it leaves the old one, so a crash between the two is seen as what it is: a copy.
    """

    def __init__(self, folder: Path) -> None:
        self.kept: Final = EpisodeStore(folder / "episodes")
        self._pending: Final = EpisodeStore(folder / PENDING)
        self._discarded: Final = EpisodeStore(folder / DISCARDED)

    def count(self, task: str) -> int:
        """Demonstrations of a task kept so far."""
        return sum(s.task == task for s in self.kept.summaries())

    def seeds(self, task: str) -> set[int]:
        """Scenes of a task that were shown already, whatever became of them."""
        stores = (self.kept, self._pending, self._discarded)
        return {s.seed for store in stores for s in store.summaries() if s.task == task}

    def add(self, episode: Episode) -> int:
        """Stores an episode to be judged; returns its number among the pending ones."""
        return self._pending.append(episode)

    def pending(self) -> list[tuple[int, Episode]]:
        """Episodes that wait for a verdict; one that is kept already was caught between two folders and is dropped."""
        done = {
            (s.task, s.seed) for store in (self.kept, self._discarded) for s in store.summaries()
        }
        waiting: list[tuple[int, Episode]] = []
        for index, episode in list(self._pending.iterate()):
            if (episode.task, episode.seed) in done:
                self._forget(index)
            else:
                waiting.append((index, episode))
        return waiting

    def settle(self, index: int, keep: bool | None) -> None:
        """Moves a pending episode to where it belongs; without a verdict it stays for the next session."""
        if keep is None:
            return
        episode = self._pending.read(index)
        (self.kept if keep else self._discarded).append(episode)
        self._forget(index)

    def _forget(self, index: int) -> None:
        for summary in self._pending.summaries():
            if summary.index == index:
                summary.path.unlink()

    def summary(self) -> str:
        """What the folder holds, one line per task."""
        summaries = self.kept.summaries()
        lines = [f"{self.kept.folder}: {len(summaries)} demonstrations"]
        for task in sorted({s.task for s in summaries}):
            own = [s for s in summaries if s.task == task]
            steps = [s.steps for s in own]
            lines.append(
                f"  {task:<10} {len(own):>3} kept, {sum(s.success for s in own)} successful,"
                f" {sum(steps)} steps ({min(steps)} to {max(steps)})"
            )
        refused, waiting = len(self._discarded), len(self._pending)
        return "\n".join([*lines, f"  discarded {refused}, waiting for review {waiting}"])


@dataclass(frozen=True, kw_only=True)
class Demonstrator:
    """Who shows a task, and who judges what was recorded."""

    begin: Callable[[str, int], None]
    demonstrate: Callable[[], Action]
    judge: Callable[[Episode], bool | None]
    """True to keep an episode, False to discard it, None where nobody is there to say."""
    keys: OperatorKeys | None = None


def person(station: Station, stop: threading.Event) -> Demonstrator:
    """The person at the console: drives, looks at the recording, keeps or discards it."""
    operator = station.operator

    def judge(episode: Episode) -> bool | None:
        operator.stand_aside("hold")
        return station.review(episode, stop)

    return Demonstrator(
        begin=operator.begin_demonstration,
        demonstrate=operator.demonstrate,
        judge=judge,
        keys=operator,
    )


def simulated(operator: SimulatedOperator | ScriptedOperator) -> Demonstrator:
    """The simulated operator: keeps what succeeded."""
    return Demonstrator(
        begin=operator.begin,
        demonstrate=operator.demonstrate,
        judge=lambda episode: episode.success,
    )


def record(
    robot: Robot,
    encoders: FrozenEncoders,
    demonstrator: Demonstrator,
    recording: Recording,
    tasks: tuple[str, ...],
    wanted: int,
    seed_of: Callable[[str, int], int],
    stop: threading.Event,
    *,
    pacing: Pacing,
    on_progress: Callable[[str, int, Episode | None], None],
) -> bool:
    """Records until each task has its demonstrations; each one is judged, then kept or discarded.

    Args:
        robot: the robot.
        encoders: make h and features.
        demonstrator: who acts and judges.
        recording: the folder; what waits in it from an earlier session is judged first.
        tasks: what to demonstrate.
        wanted: demonstrations per task.
        seed_of: the scene of an attempt, from task and attempt number.
        stop: ends it.
        pacing: the loop's rate.
        on_progress: told the task and how many are kept before each episode, and each finished episode.

    Returns:
        Whether everything wanted is there.
    """
    for index, episode in recording.pending():
        recording.settle(index, demonstrator.judge(episode))
    for task in tasks:
        attempt = 0
        while recording.count(task) < wanted and not stop.is_set():
            seed = seed_of(task, attempt)
            attempt += 1
            if seed in recording.seeds(task):
                continue
            on_progress(task, recording.count(task), None)
            episode = record_demonstration(
                robot,
                encoders,
                demonstrator.demonstrate,
                demonstrator.begin,
                task,
                seed,
                pacing=pacing,
                keys=demonstrator.keys,
            )
            if stop.is_set() and not episode.success:
                # The stop key ended it half way: there is nothing to judge.
                break
            episode = without_idle_steps(episode, robot.action_scale, label_tweaks)
            index = recording.add(episode)
            on_progress(task, recording.count(task), episode)
            recording.settle(index, demonstrator.judge(episode))
    return all(recording.count(task) >= wanted for task in tasks)
