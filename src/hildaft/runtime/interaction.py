"""The interaction thread of Algorithm 1: one robot, one episode at a time. No torch.

What happens at the robot, in this order: observe, encode, listen, act, heed the keys, tweak, execute, record.
"""

import contextlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol, final, runtime_checkable

import numpy as np

from hildaft.data.episode_builder import EpisodeBuilder, Journal
from hildaft.teleop.talk import label_tweaks
from hildaft.types import (
    ACTION_DIM,
    NULL_COMMAND,
    Action,
    Encoded,
    Episode,
    HilDaftError,
    Mark,
    Observation,
    Operator,
    OperatorKeys,
    Policy,
    RefinementCommand,
    Robot,
    Source,
    StepResult,
)

DEMONSTRATION_VERSION: Final = -1
"""The policy version recorded where no policy acted."""


@runtime_checkable
class FrozenEncoders(Protocol):
    """What a demonstration needs of a policy: the frozen encoders without the actors."""

    @property
    def encoder_hash(self) -> str:
        """Content hash of the frozen encoders."""
        ...

    def encode(self, observation: Observation, task: str) -> Encoded:
        """Runs the frozen encoders."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Percentiles of a duration, in milliseconds; NaN where nothing was measured."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopTiming:
    """How well the loop kept its rate, over all episodes the pacing saw."""

    steps: int
    late_steps: int
    """Steps whose tick had passed before they were ready; always 0 when unpaced."""
    achieved_hz: float
    """Steps per second within episodes; NaN before the second step."""
    jitter: Latency
    """Absolute deviation of the step-to-step time from the period; NaN when unpaced."""
    encode: Latency
    act: Latency
    step: Latency


@final
class Pacing:
    """Keeps a loop at a rate, or lets it run free, and measures it either way.

    A step that comes late is counted and moves the schedule: the robot never gets a burst of
    actions to catch up. `clock` (s) and `wait` (s) are the time source, replaceable in tests.

    Args:
        hz: the rate to keep; None runs as fast as the robot and the networks allow.

    Raises:
        HilDaftError: if hz is not a positive finite number.
    """

    def __init__(
        self,
        hz: float | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        if hz is not None and not (math.isfinite(hz) and hz > 0):
            msg = f"pacing hz={hz}: a positive rate in Hz is allowed, or None to run free"
            raise HilDaftError(msg)
        self._period_s = None if hz is None else 1.0 / hz
        self._clock, self._wait = clock, wait
        self._due_s: float | None = None
        self._last_tick_s: float | None = None
        self._steps = self._late = 0
        self._periods_s: list[float] = []
        self._durations_s: dict[str, list[float]] = {"encode": [], "act": [], "step": []}

    def begin_episode(self) -> None:
        """Starts a new schedule: the first step of an episode is never late."""
        self._due_s = self._last_tick_s = None

    def tick(self) -> None:
        """Sleeps until the next step is due; before the human is asked and the robot moves."""
        now = self._clock()
        if self._period_s is not None:
            due, self._due_s = self._due_s, now + self._period_s
            if due is not None and now > due:
                self._late += 1
            elif due is not None:
                # The grid stays where it was, however exactly the wait ends.
                self._due_s = due + self._period_s
                self._wait(due - now)
                now = self._clock()
        if self._last_tick_s is not None:
            self._periods_s.append(now - self._last_tick_s)
        self._last_tick_s = now
        self._steps += 1

    @contextlib.contextmanager
    def measure(self, part: Literal["encode", "act", "step"]) -> Generator[None]:
        """Books the duration of what runs inside under `part`."""
        start = self._clock()
        yield
        self._durations_s[part].append(self._clock() - start)

    def timing(self) -> LoopTiming:
        """Everything measured so far."""
        period = self._period_s
        jitter = [] if period is None else [abs(p - period) for p in self._periods_s]
        total = sum(self._periods_s)
        return LoopTiming(
            steps=self._steps,
            late_steps=self._late,
            achieved_hz=len(self._periods_s) / total if total > 0 else math.nan,
            jitter=_percentiles(jitter),
            encode=_percentiles(self._durations_s["encode"]),
            act=_percentiles(self._durations_s["act"]),
            step=_percentiles(self._durations_s["step"]),
        )


def run_episode(
    robot: Robot,
    policy: Policy,
    operator: Operator | None,
    task: str,
    seed: int,
    source: Source,
    *,
    pacing: Pacing,
    keep_images: bool = True,
    keys: OperatorKeys | None = None,
    journal: Journal | None = None,
) -> Episode:
    """Lets the policy act for one episode while the operator, if there is one, talks and tweaks.

    The policy's action is asked for in every step, so an intervention keeps what it replaced. The executed action
    is the human's or the policy's, clipped to [-1, 1] at this boundary; a hand-over's step is not the human's. Weights
    may change between steps; the version recorded is the one at the first step. Every step goes to `journal`, where
    there is one, before the next is taken.

    Raises:
        HilDaftError: if an action is not finite; the robot is stopped before.

    Paper: Alg. 1, lines 18-20, 23-24, 26-27, 30.
    """
    try:
        while True:
            observation = robot.reset(task, seed)
            if operator is not None:
                operator.begin(task, seed)
            builder = _builder(
                robot, policy, task, seed, source, policy.version, keep_images, journal
            )
            encoded = _observe(builder, pacing, policy, observation, task)
            pacing.begin_episode()
            mark, running = None, True
            while running:
                command = NULL_COMMAND if operator is None else operator.speak()
                with pacing.measure("act"):
                    policy_action = policy.act(encoded, command)
                pacing.tick()
                mark = _heed(keys, robot, pacing)
                if mark is not None and _end(builder, mark):
                    break
                stops = mark == "stop"
                tweak = None if operator is None or stops else operator.tweak(policy_action)
                action = policy_action if tweak is None else tweak.action
                executed = _still(encoded) if stops else _executable(action)
                result = _step(robot, executed, pacing, ends=stops)
                human = executed if tweak is not None and tweak.is_correction else None
                _record(builder, policy_action, human, executed, command, result)
                encoded = _observe(builder, pacing, policy, result.observation, task)
                running = not (result.terminated or result.truncated)
            if mark != "again":
                return builder.build(label_tweaks)
            builder.discard()
    finally:
        robot.stop()


def record_demonstration(
    robot: Robot,
    encoders: FrozenEncoders,
    demonstrate: Callable[[], Action],
    begin: Callable[[str, int], None],
    task: str,
    seed: int,
    *,
    pacing: Pacing,
    keep_images: bool = True,
    keys: OperatorKeys | None = None,
    journal: Journal | None = None,
) -> Episode:
    """Records one episode in which the human acts throughout; no policy is asked.

    `begin` is called after the reset, `demonstrate` once per step for the human's action.
    """
    try:
        while True:
            observation = robot.reset(task, seed)
            begin(task, seed)
            version = DEMONSTRATION_VERSION
            builder = _builder(robot, encoders, task, seed, "demo", version, keep_images, journal)
            encoded = _observe(builder, pacing, encoders, observation, task)
            pacing.begin_episode()
            mark, running = None, True
            while running:
                pacing.tick()
                mark = _heed(keys, robot, pacing)
                if mark is not None and _end(builder, mark):
                    break
                stops = mark == "stop"
                executed = _still(encoded) if stops else _executable(demonstrate())
                result = _step(robot, executed, pacing, ends=stops)
                _record(builder, None, executed, executed, NULL_COMMAND, result)
                encoded = _observe(builder, pacing, encoders, result.observation, task)
                running = not (result.terminated or result.truncated)
            if mark != "again":
                return builder.build(label_tweaks)
            builder.discard()
    finally:
        robot.stop()


def _heed(keys: OperatorKeys | None, robot: Robot, pacing: Pacing) -> Mark | None:
    """Waits while the person holds the robot; returns their mark, if any.

    It comes after the tick, so that a key pressed during the wait still precedes the step.
    """
    if keys is None:
        return None
    held = False
    while True:
        mark = keys.take_mark()
        if mark is not None or not keys.holds():
            break
        if not held:
            robot.stop()
            held = True
        keys.idle()
    if held:
        # Standing still on a person's word is no late step.
        pacing.begin_episode()
    return mark


def _end(builder: EpisodeBuilder, mark: Mark) -> bool:
    """Writes the mark's outcome at the newest step; False where there is none to judge."""
    if mark == "again":
        return True
    if len(builder) == 0:
        return False
    stops = mark == "stop"
    builder.end(reward=float(mark == "success"), terminated=not stops, truncated=stops)
    return True


def _still(encoded: Encoded) -> Action:
    """Stay, with the jaws as they are commanded."""
    action = np.zeros(ACTION_DIM, dtype=np.float32)
    action[6] = 1.0 if encoded.proprio[1] > 0.5 else -1.0
    return action


def _step(robot: Robot, action: Action, pacing: Pacing, *, ends: bool) -> StepResult:
    """Executes; an episode stopped before its first step consists of this one."""
    with pacing.measure("step"):
        result = robot.step(action)
    return replace(result, truncated=not result.terminated) if ends else result


def _record(
    builder: EpisodeBuilder,
    policy_action: Action | None,
    human_action: Action | None,
    executed: Action,
    command: RefinementCommand,
    result: StepResult,
) -> None:
    builder.act(
        policy_action=policy_action,
        human_action=human_action,
        executed_action=executed,
        spoken=command,
        reward=result.reward,
        terminated=result.terminated,
        truncated=result.truncated,
    )


def _builder(
    robot: Robot,
    encoders: FrozenEncoders,
    task: str,
    seed: int,
    source: Source,
    version: int,
    keep_images: bool,
    journal: Journal | None,
) -> EpisodeBuilder:
    return EpisodeBuilder(
        task=task,
        source=source,
        robot=robot.name,
        seed=seed,
        policy_version=version,
        encoder_hash=encoders.encoder_hash,
        action_scale=robot.action_scale,
        keep_images=keep_images,
        journal=journal,
    )


def _observe(
    builder: EpisodeBuilder,
    pacing: Pacing,
    encoders: FrozenEncoders,
    observation: Observation,
    task: str,
) -> Encoded:
    with pacing.measure("encode"):
        encoded = encoders.encode(observation, task)
    builder.observe(observation, encoded)
    return encoded


def _executable(action: Action) -> Action:
    if not np.isfinite(action).all():
        msg = (
            f"action={action.tolist()}: finite values are allowed; the robot was stopped, go back to "
            "an earlier checkpoint or check the device"
        )
        raise HilDaftError(msg)
    return np.clip(action, -1.0, 1.0).astype(np.float32)


def _percentiles(durations_s: list[float]) -> Latency:
    if not durations_s:
        return Latency(p50_ms=math.nan, p95_ms=math.nan, p99_ms=math.nan)
    p50, p95, p99 = (1e3 * float(p) for p in np.percentile(durations_s, (50, 95, 99)))
    return Latency(p50_ms=p50, p95_ms=p95, p99_ms=p99)
