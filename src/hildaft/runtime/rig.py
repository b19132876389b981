"""One robot, its policy and whoever stands beside it: every episode is made here, on one machine or on many.

No torch: the policy it is given may use it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

from hildaft.runtime.channel import Channel, Weights
from hildaft.runtime.interaction import Pacing, record_demonstration, run_episode
from hildaft.types import (
    Action,
    Encoded,
    Episode,
    Mark,
    Observation,
    Operator,
    OperatorKeys,
    Policy,
    RefinementCommand,
    Robot,
)


@runtime_checkable
class ActingPolicy(Policy, Protocol):
    """A policy that can take over published weights."""

    def begin(self, seed: int) -> None:
        """Restarts the policy's noise, at the start of an episode."""
        ...

    def load(self, tensors: bytes, version: int) -> None:
        """Takes over a safetensors file of weights between two steps."""
        ...


@runtime_checkable
class Demonstrator(Operator, Protocol):
    """An operator who can also do the whole task."""

    def demonstrate(self) -> Action:
        """The human's action for this step."""
        ...


@dataclass(frozen=True, kw_only=True)
class Companion:
    """Who is beside the robot: corrects and talks as `operator`, and can do the whole task."""

    operator: Operator
    begin_demonstration: Callable[[str, int], None]
    """Called after the reset that precedes a demonstration."""
    demonstrate: Callable[[], Action]
    """The human's action for this step."""
    keys: OperatorKeys | None = None
    """A person's keys, heeded whatever runs; None for a simulated one."""

    @staticmethod
    def simulated(operator: Demonstrator) -> "Companion":
        """One who needs no keys and begins a demonstration as any other episode."""
        return Companion(
            operator=operator,
            begin_demonstration=operator.begin,
            demonstrate=operator.demonstrate,
        )


@final
class Rig:
    """What it makes goes into the channel; what acts comes out of it, taken over between two steps.

    Args:
        max_weight_age_s: an episode ends, truncated, at the step before which the weights are older; the robot is
            then held.
    """

    def __init__(
        self,
        robot: Robot,
        policy: ActingPolicy,
        companion: Companion,
        channel: Channel,
        pacing: Pacing,
        *,
        max_weight_age_s: float = math.inf,
    ) -> None:
        self._robot, self._companion = robot, companion
        self._channel, self._pacing = channel, pacing
        self._max_weight_age_s = max_weight_age_s
        self.policy = FollowingPolicy(policy, channel)

    def demonstrate(self, task: str, seed: int, pacing: Pacing | None = None) -> Episode:
        """One demonstration; a successful one goes into the channel, another is dropped."""
        journal = self._channel.journal
        episode = record_demonstration(
            self._robot,
            self.policy,
            self._companion.demonstrate,
            self._companion.begin_demonstration,
            task,
            seed,
            pacing=pacing or self._pacing,
            keys=self._companion.keys,
            journal=journal,
        )
        if episode.success:
            self._channel.put(episode)
        elif journal is not None:
            journal.discard()
        return episode

    def roll_out(self, task: str, seed: int) -> Episode:
        """One episode of the policy with the operator beside it, into the channel; its noise follows from the seed."""
        self.policy.begin(seed)
        episode = run_episode(
            self._robot,
            self.policy,
            self._companion.operator,
            task,
            seed,
            "online",
            pacing=self._pacing,
            keys=self._limits(),
            journal=self._channel.journal,
        )
        self._channel.put(episode)
        return episode

    def evaluate(self, task: str, seed: int) -> Episode | None:
        """One episode of the policy alone, into the channel; None, and nothing there, where it was stopped."""
        self.policy.begin(seed)
        limits = self._limits()
        episode = run_episode(
            self._robot,
            self.policy,
            None,
            task,
            seed,
            "eval",
            pacing=self._pacing,
            keep_images=False,
            keys=limits,
        )
        if limits.stopped:
            return None
        self._channel.put(episode)
        return episode

    def _limits(self) -> "_Limits":
        return _Limits(
            self._companion.keys, lambda: self._channel.weight_age_s > self._max_weight_age_s
        )


@final
class FollowingPolicy:
    """Implements `Policy` with the newest weights of a channel."""

    def __init__(self, policy: ActingPolicy, channel: Channel) -> None:
        self._policy, self._channel = policy, channel
        self._held: Weights | None = None

    @property
    def version(self) -> int:
        """Version of the weights now acting."""
        return self._policy.version

    @property
    def encoder_hash(self) -> str:
        """Content hash of the frozen encoders."""
        return self._policy.encoder_hash

    def refresh(self) -> str | None:
        """Takes over newer weights, if there are any; the name of those that act, None while there are none."""
        newest = self._channel.weights
        if newest is not None and newest is not self._held:
            self._policy.load(newest.tensors, newest.version)
            self._held = newest
        return None if self._held is None else self._held.name

    def begin(self, seed: int) -> None:
        """Restarts the noise, with the newest weights."""
        self.refresh()
        self._policy.begin(seed)

    def encode(self, observation: Observation, task: str) -> Encoded:
        """Runs the frozen encoders."""
        return self._policy.encode(observation, task)

    def act(self, encoded: Encoded, command: RefinementCommand) -> Action:
        """Acts with the newest weights."""
        self.refresh()
        return self._policy.act(encoded, command)


@final
class _Limits:
    """A person's keys, and one more reason to stop, asked for before each step."""

    def __init__(self, keys: OperatorKeys | None, too_old: Callable[[], bool]) -> None:
        self._keys, self._too_old = keys, too_old
        self.stopped = False
        """Whether the episode ended for a reason that says nothing of the policy."""

    def holds(self) -> bool:
        return self._keys is not None and self._keys.holds()

    def idle(self) -> None:
        if self._keys is not None:
            self._keys.idle()

    def take_mark(self) -> Mark | None:
        mark = None if self._keys is None else self._keys.take_mark()
        if mark is None and self._too_old():
            mark = "stop"
        self.stopped = self.stopped or mark == "stop"
        return mark
