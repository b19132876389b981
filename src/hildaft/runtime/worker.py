"""The worker beside one robot: does what the learner assigns, keeps what it makes, goes on while the learner is away.

No torch: the policy it is given may use it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, final, runtime_checkable

from hildaft.data.idle_steps import without_idle_steps
from hildaft.runtime.interaction import Pacing, record_demonstration, run_episode
from hildaft.runtime.link import link_pb2 as pb
from hildaft.runtime.link.client import Health, Weights, WorkerLink
from hildaft.runtime.link.spool import Spool
from hildaft.teleop.talk import label_tweaks
from hildaft.types import (
    Action,
    Encoded,
    Episode,
    HilDaftError,
    Observation,
    Operator,
    OperatorKeys,
    Policy,
    RefinementCommand,
    Robot,
)

MAX_WEIGHT_AGE_S: Final = 300.0
"""How long a worker acts on weights that nobody has confirmed as the newest."""
DEMONSTRATION_TRIES: Final = 12
"""Failed demonstrations in a row before the worker gives up."""
_WAIT_S: Final = 0.2
_DELIVERY_S: Final = 3.0
"""How long a person's demonstration is waited for to reach the learner."""


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
    """A simulated operator who can also do the whole task."""

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
    """A person's keys; None for a simulated one."""

    @staticmethod
    def simulated(operator: Demonstrator) -> "Companion":
        """One who needs no keys and begins a demonstration as any other episode."""
        return Companion(
            operator=operator,
            begin_demonstration=operator.begin,
            demonstrate=operator.demonstrate,
        )


@final
class Worker:
    """Runs one robot for a learner until the run is finished or `stop` is set.

    Args:
        companion: the person, or the simulated one.
        on_episode: told each episode that goes to the learner.
        local_seed: number of an episode this worker chose itself -> scene seed.
        say: takes lines for people.
    """

    def __init__(
        self,
        robot: Robot,
        policy: ActingPolicy,
        companion: Companion,
        spool: Spool,
        tasks: tuple[str, ...],
        pacing: Pacing,
        *,
        local_seed: Callable[[int], int],
        say: Callable[[str], None],
        stop: threading.Event,
        max_weight_age_s: float = MAX_WEIGHT_AGE_S,
        on_episode: Callable[[Episode], None] = lambda episode: None,
    ) -> None:
        self._robot, self._policy, self._companion = robot, policy, companion
        self._on_episode = on_episode
        self._spool, self._tasks, self._pacing = spool, tasks, pacing
        self._local_seed, self._say, self._stop = local_seed, say, stop
        self._max_weight_age_s = max_weight_age_s
        self._state, self._held_because = "starting", ""
        self._online, self._failed, self._chosen = False, 0, 0
        self._rate = (0.0, 0.0)

    def health(self) -> Health:
        """For the link's reports; callable from any thread."""
        hz, late_share = self._rate
        return Health(state=self._state, achieved_hz=hz, late_share=late_share)

    def run(self, link: WorkerLink) -> bool:
        """Works until the run is finished and everything is delivered; False where `stop` came first.

        Raises:
            HilDaftError: the learner refuses this worker, the spool cannot be written, or the operator fails.
        """
        following = _Following(self._policy, link)
        while not self._stop.is_set():
            link.check()
            if shortage := self._spool.shortage:
                self._hold("holding: spool full", shortage)
                continue
            assignment = link.next() or self._choose(link)
            match assignment.activity:
                case pb.Assignment.FINISHED:
                    self._hold("finished", "")
                    return link.drain(600.0)
                case pb.Assignment.DEMONSTRATE:
                    self._demonstrate(assignment.task, assignment.seed)
                    if self._companion.keys is not None:
                        # A person is not asked for a demonstration that the learner is about to have.
                        link.drain(_DELIVERY_S)
                case pb.Assignment.ROLLOUT if following.refresh():
                    self._roll_out(following, assignment.task, assignment.seed)
                case _:
                    self._hold("waiting", "")
            link.delivered()
        return False

    def _choose(self, link: WorkerLink) -> Any:  # noqa: ANN401 - generated class
        """While the learner is away: further rollouts as long as the weights are young enough."""
        if not self._online or link.weights is None:
            return pb.Assignment(activity=pb.Assignment.WAIT)
        if link.weight_age_s > self._max_weight_age_s:
            self._hold(
                "holding: weights too old",
                f"the weights were last confirmed {link.weight_age_s:.0f} s ago, {self._max_weight_age_s:.0f} s are "
                "allowed; the robot holds until the learner is back",
            )
            return pb.Assignment(activity=pb.Assignment.WAIT)
        self._chosen += 1
        task = self._tasks[self._chosen % len(self._tasks)]
        seed = self._local_seed(self._chosen)
        return pb.Assignment(activity=pb.Assignment.ROLLOUT, task=task, seed=seed)

    def _demonstrate(self, task: str, seed: int) -> None:
        self._begin("demonstrating")
        episode = record_demonstration(
            self._robot,
            self._policy,
            self._companion.demonstrate,
            self._companion.begin_demonstration,
            task,
            seed,
            pacing=self._pacing,
            keys=self._companion.keys,
            journal=self._spool,
        )
        if episode.success:
            if self._companion.keys is not None:
                episode = without_idle_steps(episode, self._robot.action_scale, label_tweaks)
            self._commit(episode)
            self._failed = 0
        elif self._stop.is_set():
            self._spool.discard()
        else:
            self._say(f"the demonstration of {task} was no success and is not kept")
            self._spool.discard()
            self._failed += 1
            if self._failed >= DEMONSTRATION_TRIES:
                msg = f"operator: {self._failed} demonstrations failed in a row, last task {task!r}; check the robot"
                raise HilDaftError(msg)
        self._measure()

    def _roll_out(self, following: "_Following", task: str, seed: int) -> None:
        self._begin("acting")
        self._online = True
        self._policy.begin(seed)
        episode = run_episode(
            self._robot,
            following,
            self._companion.operator,
            task,
            seed,
            "online",
            pacing=self._pacing,
            keys=self._companion.keys,
            journal=self._spool,
        )
        self._commit(episode)
        self._measure()

    def _commit(self, episode: Episode) -> None:
        self._spool.commit(episode)
        self._on_episode(episode)

    def _begin(self, state: str) -> None:
        self._state, self._held_because = state, ""

    def _hold(self, state: str, reason: str) -> None:
        """The robot stands still; the reason is said once."""
        if state != self._state:
            self._robot.stop()
        if reason and state != self._held_because:
            self._say(reason)
            self._held_because = state
        self._state = state
        self._stop.wait(_WAIT_S)

    def _measure(self) -> None:
        timing = self._pacing.timing()
        self._rate = (timing.achieved_hz, timing.late_steps / max(1, timing.steps))


@final
class _Following:
    """The policy with the newest weights the link has, taken over between two steps."""

    def __init__(self, policy: ActingPolicy, link: WorkerLink) -> None:
        self._policy, self._link = policy, link
        self._held: Weights | None = None

    @property
    def version(self) -> int:
        return self._policy.version

    @property
    def encoder_hash(self) -> str:
        return self._policy.encoder_hash

    def refresh(self) -> bool:
        """Takes over newer weights, if there are any; False while there are none at all."""
        newest = self._link.weights
        if newest is not None and newest is not self._held:
            self._policy.load(newest.tensors, newest.version)
            self._held = newest
        return self._held is not None

    def encode(self, observation: Observation, task: str) -> Encoded:
        return self._policy.encode(observation, task)

    def act(self, encoded: Encoded, command: RefinementCommand) -> Action:
        self.refresh()
        return self._policy.act(encoded, command)


def wait_for(
    ask: Callable[[], Any],
    patient: type[Exception],
    say: Callable[[str], None],
    stop: threading.Event,
) -> Any | None:  # noqa: ANN401
    """Repeats `ask` until it answers without raising `patient`; None where `stop` came first."""
    said, pause_s = False, 0.2
    while not stop.is_set():
        try:
            return ask()
        except patient as error:  # noqa: PERF203 - trying again is the point
            if not said:
                say(f"waiting for the learner ({error})")
                said = True
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)
    return None
