"""What runs at a station without a training session: the person alone, a policy beside them, or recording."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol, final, runtime_checkable

import numpy as np

from hildaft.console.charts import Charts
from hildaft.console.station import Station
from hildaft.data.episode_file import EpisodeSummary
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
    Operator,
    OperatorKeys,
    Policy,
    RefinementCommand,
    Robot,
    Source,
)

PENDING: Final = "pending"
"""Folder of episodes nobody has judged yet."""
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
    """Episodes of one folder: `episodes` are kept, `pending` wait for a verdict, `discarded` were refused.

    An episode is on disk before anybody is asked about it, so a crash loses none; it moves by being written to its
    new place before it leaves the old one, so a crash between the two is seen as what it is: a copy.
    """

    def __init__(self, folder: Path) -> None:
        self.kept: Final = EpisodeStore(folder / "episodes")
        self._pending: Final = EpisodeStore(folder / PENDING)
        self._discarded: Final = EpisodeStore(folder / DISCARDED)

    def count(self, task: str, source: Source = "demo") -> int:
        """Episodes of a task and kind kept so far."""
        return sum(s.task == task and s.source == source for s in self.kept.summaries())

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

    def summary(self, words: Callable[[RefinementCommand], str]) -> str:
        """What the folder holds, one line per task and kind; `words` names the labels of the corrections."""
        summaries = self.kept.summaries()
        shown = sum(s.source == "demo" for s in summaries)
        corrected = len(summaries) - shown
        lines = [f"{self.kept.folder}: {shown} demonstrations, {corrected} episodes of a policy"]
        for task in sorted({s.task for s in summaries}):
            for source in ("demo", "online"):
                own = [s for s in summaries if s.task == task and s.source == source]
                if own:
                    lines += self._line(own, words)
        refused, waiting = len(self._discarded), len(self._pending)
        return "\n".join([*lines, f"  discarded {refused}, waiting for review {waiting}"])

    def _line(
        self, own: list[EpisodeSummary], words: Callable[[RefinementCommand], str]
    ) -> list[str]:
        steps, by_hand = [s.steps for s in own], sum(s.interventions for s in own)
        line = (
            f"  {own[0].task:<10} {len(own):>3} kept, {sum(s.success for s in own)} successful,"
            f" {sum(steps)} steps ({min(steps)} to {max(steps)})"
        )
        if own[0].source == "demo":
            return [line]
        said: Counter[str] = Counter()
        for summary in own:
            episode = self.kept.read(summary.index)
            labels = episode.refinement[episode.is_intervention].tolist()
            said.update(words(RefinementCommand.from_index(label)) for label in labels)
        named = ", ".join(f"{name} {count}" for name, count in said.most_common())
        return [
            f"{line}, {by_hand} by hand ({by_hand / sum(steps):.0%})",
            *([f"             labels: {named}"] if said else []),
        ]


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
    return Demonstrator(
        begin=operator.begin_demonstration,
        demonstrate=operator.demonstrate,
        judge=partial(reviewed, station, stop),
        keys=operator,
    )


def reviewed(station: Station, stop: threading.Event, episode: Episode) -> bool | None:
    """The person's verdict on a recording; None where they stop instead."""
    station.operator.stand_aside("hold")
    return station.review(episode, stop)


def simulated(operator: SimulatedOperator | ScriptedOperator) -> Demonstrator:
    """The simulated operator: keeps what succeeded."""
    return Demonstrator(
        begin=operator.begin,
        demonstrate=operator.demonstrate,
        judge=lambda episode: episode.success,
    )


@dataclass(frozen=True, kw_only=True)
class Recorder:
    """What makes episodes of one kind, and who judges them."""

    source: Source
    make: Callable[[str, int], Episode]
    """One episode of a task in the scene of a seed."""
    judge: Callable[[Episode], bool | None]
    """True to keep an episode, False to discard it, None where nobody is there to say."""


def demonstrations(
    robot: Robot, encoders: FrozenEncoders, demonstrator: Demonstrator, pacing: Pacing
) -> Recorder:
    """Somebody does the whole task; steps in which nothing was asked for are left out."""

    def make(task: str, seed: int) -> Episode:
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
        return without_idle_steps(episode, robot.action_scale, label_tweaks)

    return Recorder(source="demo", make=make, judge=demonstrator.judge)


def corrections(
    robot: Robot,
    policy: SeededPolicy,
    operator: Operator,
    judge: Callable[[Episode], bool | None],
    pacing: Pacing,
    keys: OperatorKeys | None = None,
) -> Recorder:
    """A policy acts and is corrected, as in the online stage of training; no learner is there.

    No step is left out: the policy's own, at rest or not, are what the critics learn from.
    """

    def make(task: str, seed: int) -> Episode:
        policy.begin(seed)
        return run_episode(robot, policy, operator, task, seed, "online", pacing=pacing, keys=keys)

    return Recorder(source="online", make=make, judge=judge)


def record(
    recorder: Recorder,
    recording: Recording,
    tasks: tuple[str, ...],
    wanted: int,
    seed_of: Callable[[str, int], int],
    stop: threading.Event,
    *,
    on_progress: Callable[[str, int, Episode | None], None],
) -> bool:
    """Records until each task has its episodes; each one is judged, then kept or discarded.

    Args:
        recorder: who makes and judges them.
        recording: the folder; what waits in it from an earlier session is judged first.
        tasks: what to record.
        wanted: episodes per task.
        seed_of: the scene of an attempt, from task and attempt number.
        stop: ends it.
        on_progress: told the task and how many are kept before each episode, and each finished episode.

    Returns:
        Whether everything wanted is there.
    """
    source = recorder.source
    for index, episode in recording.pending():
        recording.settle(index, recorder.judge(episode))
    for task in tasks:
        attempt = 0
        while recording.count(task, source) < wanted and not stop.is_set():
            seed = seed_of(task, attempt)
            attempt += 1
            if seed in recording.seeds(task):
                continue
            on_progress(task, recording.count(task, source), None)
            episode = recorder.make(task, seed)
            if stop.is_set() and source == "demo" and not episode.success:
                # The stop key ended it half way: there is nothing to judge. Half a rollout is one all the same.
                break
            index = recording.add(episode)
            on_progress(task, recording.count(task, source), episode)
            recording.settle(index, recorder.judge(episode))
    return all(recording.count(task, source) >= wanted for task in tasks)
