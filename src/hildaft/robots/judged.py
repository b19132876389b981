"""Reward for a robot that gives none: someone or something that judges each observation.

A key, a rule over the observation, or a trained classifier can judge; all are a `SuccessJudge`.
"""

import threading
from collections.abc import Callable
from typing import Final, Protocol, final, runtime_checkable

from hildaft.types import Action, ActionScale, HilDaftError, Observation, Robot, StepResult


@runtime_checkable
class SuccessJudge(Protocol):
    """Says whether an observation shows the task done."""

    def begin(self, task: str) -> None:
        """Called at each episode start."""
        ...

    def shows_success(self, observation: Observation) -> bool:
        """Asked once per step, in order."""
        ...


@final
class KeyJudge:
    """Success is when the operator presses the key; a press counts for the step under way."""

    def __init__(self) -> None:
        self._pressed = threading.Event()

    def press(self) -> None:
        """May be called from any thread."""
        self._pressed.set()

    def begin(self, task: str) -> None:
        """Forgets a press that came before the episode."""
        del task
        self._pressed.clear()

    def shows_success(self, observation: Observation) -> bool:
        """Whether the key was pressed since the episode began."""
        del observation
        return self._pressed.is_set()


@final
class RuleJudge:
    """Success by a rule over the observation, such as a gripper that holds something at rest.

    Args:
        rule: task and observation to whether the task is done.
    """

    def __init__(self, rule: Callable[[str, Observation], bool]) -> None:
        self._rule = rule
        self._task = ""

    def begin(self, task: str) -> None:
        """Keeps the task for the rule."""
        self._task = task

    def shows_success(self, observation: Observation) -> bool:
        """Asks the rule."""
        return self._rule(self._task, observation)


@final
class ProbabilityJudge:
    """Success when a classifier's probability stays above a threshold for a streak of observations.

    Args:
        probability: task and observation to the probability of success.
        limits: task to threshold and streak.
    """

    def __init__(
        self,
        probability: Callable[[str, Observation], float],
        limits: Callable[[str], tuple[float, int]],
    ) -> None:
        self._probability, self._limits = probability, limits
        self._task, self._run = "", 0

    def begin(self, task: str) -> None:
        """Starts counting anew."""
        self._task, self._run = task, 0

    def shows_success(self, observation: Observation) -> bool:
        """Whether this observation completes the streak."""
        threshold, streak = self._limits(self._task)
        above = self._probability(self._task, observation) >= threshold
        self._run = self._run + 1 if above else 0
        return self._run >= streak


@final
class JudgedRobot:
    """Wraps a robot: reward 1 and the end of the episode when the judge sees success, else 0.

    An episode is truncated at the step limit, and where the robot itself ends one that the judge has not.

    Raises:
        HilDaftError: a step limit below 1.
    """

    def __init__(self, robot: Robot, judge: SuccessJudge, step_limit: int) -> None:
        if step_limit < 1:
            msg = f"step_limit={step_limit}: 1 or more is allowed"
            raise HilDaftError(msg)
        self._robot: Final = robot
        self._judge, self._limit, self._steps = judge, step_limit, 0

    @property
    def name(self) -> str:
        """The wrapped robot's name."""
        return self._robot.name

    @property
    def action_scale(self) -> ActionScale:
        """The wrapped robot's action scale."""
        return self._robot.action_scale

    def reset(self, task: str, seed: int) -> Observation:
        """Resets robot, judge and step count."""
        observation = self._robot.reset(task, seed)
        self._judge.begin(task)
        self._steps = 0
        return observation

    def step(self, action: Action) -> StepResult:
        """Steps the robot and judges what it sees; the robot's own reward and success are not used."""
        result = self._robot.step(action)
        self._steps += 1
        success = self._judge.shows_success(result.observation)
        over = self._steps >= self._limit or result.truncated or result.terminated
        return StepResult(
            observation=result.observation,
            reward=1.0 if success else 0.0,
            terminated=success,
            truncated=over and not success,
        )

    def stop(self) -> None:
        """Stops the wrapped robot."""
        self._robot.stop()
