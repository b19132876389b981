"""The worker beside one robot: does what the learner assigns, keeps what it makes, goes on while the learner is away.

No torch: the policy it is given may use it.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final, final

from hildaft.runtime.interaction import Pacing
from hildaft.runtime.link import link_pb2 as pb
from hildaft.runtime.link.client import Health, WorkerLink
from hildaft.runtime.link.spool import Spool
from hildaft.runtime.rig import ActingPolicy, Companion, Rig
from hildaft.types import Episode, HilDaftError, Robot

MAX_WEIGHT_AGE_S: Final = 300.0
"""How long a worker acts on weights that nobody has confirmed as the newest."""
DEMONSTRATION_TRIES: Final = 12
"""Failed demonstrations in a row before the worker gives up."""
_WAIT_S: Final = 0.2
_DRAIN_S: Final = 20.0


@final
class Worker:
    """Runs one robot for a learner until the run is finished or `stop` is set.

    Args:
        companion: the person, whose marks end an episode (`stop` ends no more than that), or the simulated one.
        on_episode: told each demonstration and rollout that goes to the learner.
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
        rig = Rig(
            self._robot,
            self._policy,
            self._companion,
            link,
            self._pacing,
            max_weight_age_s=self._max_weight_age_s,
        )
        while not self._stop.is_set():
            link.check()
            if shortage := self._spool.shortage:
                self._hold("holding: spool full", shortage)
                continue
            assigned = link.next()
            assignment = assigned or self._choose(link)
            by_weights = assignment.activity in (pb.Assignment.ROLLOUT, pb.Assignment.EVALUATE)
            if by_weights and link.weights is not None:
                # Whoever asks for it: an episode would end before its first step, again and again.
                if self._hold_old_weights(link.weight_age_s):
                    continue
                self._chosen += assigned is None
            match assignment.activity:
                case pb.Assignment.FINISHED:
                    self._hold("finished", "")
                    return link.drain(600.0)
                case pb.Assignment.DEMONSTRATE:
                    self._demonstrate(rig, assignment.task, assignment.seed)
                    if self._companion.by_hand:
                        # A person is not asked for a demonstration that the learner is about to have.
                        link.drain(_DRAIN_S)
                case pb.Assignment.ROLLOUT if rig.policy.refresh() is not None:
                    self._roll_out(rig, assignment.task, assignment.seed)
                case pb.Assignment.EVALUATE if rig.policy.refresh() == assignment.weights:
                    self._begin("evaluating")
                    rig.evaluate(assignment.task, assignment.seed)
                    self._measure()
                    # What is still under way would be asked for again.
                    link.drain(_DRAIN_S)
                case _:
                    self._hold("waiting", "")
        return False

    def _choose(self, link: WorkerLink) -> Any:  # noqa: ANN401 - generated class
        """While the learner is away: further rollouts."""
        if not self._online or link.weights is None:
            return pb.Assignment(activity=pb.Assignment.WAIT)
        number = self._chosen + 1
        task, seed = self._tasks[number % len(self._tasks)], self._local_seed(number)
        return pb.Assignment(activity=pb.Assignment.ROLLOUT, task=task, seed=seed)

    def _hold_old_weights(self, age_s: float) -> bool:
        """Holds where the weights are too old to act on; whether they are."""
        if age_s <= self._max_weight_age_s:
            return False
        self._hold(
            "holding: weights too old",
            f"the weights were last confirmed {age_s:.0f} s ago, {self._max_weight_age_s:.0f} s are allowed; the "
            "robot holds until the learner confirms them",
        )
        return True

    def _demonstrate(self, rig: Rig, task: str, seed: int) -> None:
        self._begin("demonstrating")
        episode = rig.demonstrate(task, seed)
        if episode.success:
            self._on_episode(episode)
            self._failed = 0
        elif not self._stop.is_set():
            self._say(f"the demonstration of {task} was no success and is not kept")
            self._failed += 1
            if self._failed >= DEMONSTRATION_TRIES:
                msg = f"operator: {self._failed} demonstrations failed in a row, last task {task!r}; check the robot"
                raise HilDaftError(msg)
        self._measure()

    def _roll_out(self, rig: Rig, task: str, seed: int) -> None:
        self._begin("acting")
        self._online = True
        self._on_episode(rig.roll_out(task, seed))
        self._measure()

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
