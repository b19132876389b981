"""The bolt bench at the session's disposal: robot, acting policy and simulated operator on this machine."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, Protocol, final, runtime_checkable

from hildaft.algo.policy import DualActorPolicy
from hildaft.algo.training import Learner, Metrics
from hildaft.data.idle_steps import without_idle_steps
from hildaft.data.replay import States
from hildaft.eval.evaluate import EvaluationRecord, evaluate, read_evaluations, write_evaluation
from hildaft.eval.statistics import STEP_LIMIT
from hildaft.runtime.interaction import Pacing, record_demonstration, run_episode
from hildaft.runtime.training_run import Clock, View
from hildaft.teleop.browser import BrowserOperator, Control
from hildaft.teleop.scripted_operator import ScriptedOperator
from hildaft.teleop.simulated_operator import SimulatedOperator
from hildaft.teleop.talk import label_tweaks
from hildaft.types import CONTROL_HZ, Episode, HilDaftError, Robot

HELD_OUT_EPISODES: Final = 5
"""Evaluation episodes per task whose states obedience and its companions are measured on."""
EVALUATION_SEED_OFFSET: Final = 1_000
"""Keeps a run's evaluation scenes apart from its training scenes and from `hildaft eval`'s default seed."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How often and on how many episodes a run evaluates itself."""

    episodes: int = 100
    """Episodes per task at the end."""
    episodes_before: int = 40
    """Episodes per task after the warm-up."""
    episodes_during: int = 20
    """Episodes per task of the evaluations in between."""
    every: int = 2_500
    """Online transitions between evaluations."""

    def __post_init__(self) -> None:
        for name in ("episodes", "episodes_before", "episodes_during", "every"):
            if getattr(self, name) < 1:
                msg = f"evaluation.{name}={getattr(self, name)}: 1 or more is allowed"
                raise HilDaftError(msg)


@runtime_checkable
class BenchView(View, Protocol):
    """A view that shows evaluations too."""

    def evaluated(self, name: str, task: str, successes: int, episodes: int) -> None:
        """An evaluation of one task ended."""
        ...


class _StopError(Exception):
    """The stop key was pressed during an evaluation, which then counts for nothing."""


@final
class LocalBench:
    """Implements the session's `Bench` on one robot of this machine; the policy is told the newest weights.

    With a `seat` a person sits beside the robot: their keys are heeded whatever runs, and their hand and words
    go before the simulated operator's, which is then the seat's stand-in. Without a simulated operator the person
    demonstrates.

    Raises:
        HilDaftError: neither a simulated operator nor a seat.
    """

    def __init__(
        self,
        folder: Path,
        robot: Robot,
        policy: DualActorPolicy,
        operator: SimulatedOperator | ScriptedOperator | None,
        view: BenchView,
        config: EvaluationConfig,
        *,
        preset: str,
        seed: int,
        tasks: tuple[str, ...],
        real_time: bool,
        seat: BrowserOperator | None = None,
        step_limit: int = STEP_LIMIT,
    ) -> None:
        self._folder, self._robot, self._policy, self._operator = folder, robot, policy, operator
        self._view, self._config = view, config
        self._preset, self._seed, self._tasks = preset, seed, tasks
        self._seat = seat
        self._step_limit = step_limit
        if operator is None and seat is None:
            msg = "operator: nobody demonstrates and corrects; give --operator"
            raise HilDaftError(msg)
        self.pacing: Final = Pacing(CONTROL_HZ if real_time else None)
        """Measures the loop; keeps it at 10 Hz in real time."""

    def demonstrate(self, task: str, seed: int) -> Episode:
        """One demonstration, by the simulated operator or, without one, by the person at the seat."""
        if self._operator is None:
            return self._demonstrate_by_hand(task, seed)
        with self._seat_shows("helper"):
            return record_demonstration(
                self._robot,
                self._policy,
                self._operator.demonstrate,
                self._operator.begin,
                task,
                seed,
                # The person at the seat waits for the simulated one: not by the clock.
                pacing=self.pacing if self._seat is None else Pacing(),
                keys=self._seat,
            )

    def _demonstrate_by_hand(self, task: str, seed: int) -> Episode:
        assert self._seat is not None
        try:
            episode = record_demonstration(
                self._robot,
                self._policy,
                self._seat.demonstrate,
                self._seat.begin_demonstration,
                task,
                seed,
                pacing=self.pacing,
                keys=self._seat,
            )
        finally:
            self._seat.stand_aside("hold")
        if not episode.success:
            self._view.note(f"the demonstration of {task} was no success and is not kept: again")
        return without_idle_steps(episode, self._robot.action_scale, label_tweaks)

    def rollout(self, task: str, seed: int) -> Episode:
        """One episode of the policy with the operator beside it; its noise follows from the seed."""
        self._policy.begin(seed)
        with self._seat_shows("policy"):
            return run_episode(
                self._robot,
                self._policy,
                self._seat or self._operator,
                task,
                seed,
                "online",
                pacing=self.pacing,
                keys=self._seat,
            )

    @contextmanager
    def _seat_shows(self, control: Control) -> Generator[None]:
        """Tells the person who moves the robot, and that nobody does afterwards."""
        if self._seat is None:
            yield
            return
        self._seat.stand_aside(control)
        try:
            yield
        finally:
            self._seat.stand_aside("hold")

    def publish(self, learner: Learner) -> None:
        """Copies the learner's actors to the acting policy."""
        self._policy.load_weights(learner.dual_actor.weights(), learner.online_updates)

    def evaluate(self, name: str, episodes: int, learner: Learner, clock: Clock) -> Metrics:
        """Evaluates in silence and without tweaks, unless that was done before a resume; writes and shows it."""
        done = read_evaluations(self._folder)
        if any(r.name == name and r.transitions == clock.transitions for r in done):
            return {}
        seed = EVALUATION_SEED_OFFSET + self._seed
        self._policy.begin(seed)
        held_out: list[Episode] = []
        finished = count(1)

        def keep(episode: Episode) -> None:
            if self._seat is not None and self._seat.stopped:
                raise _StopError
            self._view.advance(next(finished), {})
            if sum(kept.task == episode.task for kept in held_out) < HELD_OUT_EPISODES:
                held_out.append(episode)

        self._view.stage(f"evaluate ({name})", episodes * len(self._tasks))
        try:
            with self._seat_shows("policy"):
                result = evaluate(
                    self._robot,
                    self._policy,
                    self._tasks,
                    episodes,
                    seed,
                    on_episode=keep,
                    keys=self._seat,
                    step_limit=self._step_limit,
                )
        except _StopError:
            return {}
        states = States.of(held_out, learner.dual_actor.device)
        record = EvaluationRecord(
            name=name,
            transitions=clock.transitions,
            robot_minutes=clock.robot_minutes,
            wall_minutes=clock.wall_minutes,
            preset=self._preset,
            seed=self._seed,
            result=result,
            diagnostics=learner.dual_actor.diagnostics(states, self._robot.action_scale),
        )
        write_evaluation(self._folder, record)
        for task in result.tasks:
            self._view.evaluated(name, task.task, task.successes, task.episodes)
        return record.diagnostics
