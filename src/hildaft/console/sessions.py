"""What runs at a station without a training session: the person alone, a policy beside them, or recording."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, final, runtime_checkable

import numpy as np

from hildaft.console.charts import Charts
from hildaft.console.recording import Recording
from hildaft.console.station import Station
from hildaft.data.episode_builder import Journal
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
    Robot,
    Source,
)


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
    make: Callable[[str, int, Journal], Episode]
    """One episode of a task in the scene of a seed, its steps written down as they are taken."""
    judge: Callable[[Episode], bool | None]
    """True to keep an episode, False to discard it, None where nobody is there to say."""


def demonstrations(
    robot: Robot, encoders: FrozenEncoders, demonstrator: Demonstrator, pacing: Pacing
) -> Recorder:
    """Somebody does the whole task; steps in which nothing was asked for are left out."""

    def make(task: str, seed: int, journal: Journal) -> Episode:
        episode = record_demonstration(
            robot,
            encoders,
            demonstrator.demonstrate,
            demonstrator.begin,
            task,
            seed,
            pacing=pacing,
            keys=demonstrator.keys,
            journal=journal,
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

    def make(task: str, seed: int, journal: Journal) -> Episode:
        policy.begin(seed)
        return run_episode(
            robot,
            policy,
            operator,
            task,
            seed,
            "online",
            pacing=pacing,
            keys=keys,
            journal=journal,
        )

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
    with recording.claimed():
        for index, episode in recording.pending():
            recording.settle(index, recorder.judge(episode))
        for task in tasks:
            _record_task(recorder, recording, task, wanted, seed_of, stop, on_progress)
    return all(recording.count(task, recorder.source) >= wanted for task in tasks)


def _record_task(
    recorder: Recorder,
    recording: Recording,
    task: str,
    wanted: int,
    seed_of: Callable[[str, int], int],
    stop: threading.Event,
    on_progress: Callable[[str, int, Episode | None], None],
) -> None:
    source, attempt = recorder.source, 0
    while recording.count(task, source) < wanted and not stop.is_set():
        seed = seed_of(task, attempt)
        attempt += 1
        if seed in recording.seeds(task):
            continue
        on_progress(task, recording.count(task, source), None)
        episode = recorder.make(task, seed, recording.journal)
        if stop.is_set() and source == "demo" and not episode.success:
            # The stop key ended it half way: there is nothing to judge. Half a rollout is one all the same.
            recording.journal.discard()
            break
        index = recording.add(episode)
        on_progress(task, recording.count(task, source), episode)
        recording.settle(index, recorder.judge(episode))
