"""Reward for a robot that gives none: someone or something that judges each observation.

A person's key, a rule over the observation, or a trained classifier can judge; all are a `SuccessJudge`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, final, runtime_checkable

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


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Who says that a task is done. Not in the paper, whose robots are judged by a person or a rule."""

    by: Literal["robot", "person", "rule", "classifier"] = "robot"
    """The robot or its environment; the keys of the person at the seat alone; a rule of yours; a trained classifier."""
    rule: str = ""
    """`module:function` or `file.py:function` of (task, observation), True when done. It is Python code, and it is
    run."""
    classifier: str = ""
    """What `hildaft train-success RUN` has made: its run folder, or the file."""
    confirm_s: float = 3.0
    """Time for the person at the seat to say "not yet" when rule or classifier see success; 0 for not asking."""

    def __post_init__(self) -> None:
        for name in ("rule", "classifier"):
            value = getattr(self, name)
            if bool(value) != (self.by == name):
                need = "needs a value" if self.by == name else "is allowed only"
                msg = f"judge.{name}={value!r}: it {need} with judge.by={name}"
                raise HilDaftError(msg)
        if not 0.0 <= self.confirm_s <= 60.0:
            msg = f"judge.confirm_s={self.confirm_s}: 0 to 60 s is allowed"
            raise HilDaftError(msg)


@final
class PersonJudge:
    """Sees nothing: success is what the person at the seat marks, and the loop heeds their keys."""

    def begin(self, task: str) -> None:
        """Nothing to forget."""

    def shows_success(self, observation: Observation) -> bool:
        """Never."""
        del observation
        return False


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
        # What NumPy calls true is no bool.
        return bool(self._rule(self._task, observation))


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

    Args:
        robot: the robot; its own reward is not used.
        judge: sees success.
        step_limit: control steps of an episode.
        confirm: asked when the judge sees success, with the robot standing still; False is "not yet": the episode
            goes on. None believes the judge.

    Raises:
        HilDaftError: a step limit below 1.
    """

    def __init__(
        self,
        robot: Robot,
        judge: SuccessJudge,
        step_limit: int,
        confirm: Callable[[], bool] | None = None,
    ) -> None:
        if step_limit < 1:
            msg = f"step_limit={step_limit}: 1 or more is allowed"
            raise HilDaftError(msg)
        self._robot: Final = robot
        self._judge, self._limit, self._steps = judge, step_limit, 0
        self._confirm, self._task = confirm, ""

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
        self._task, self._steps = task, 0
        return observation

    def step(self, action: Action) -> StepResult:
        """Steps the robot and judges what it sees; the robot's own reward and success are not used."""
        result = self._robot.step(action)
        self._steps += 1
        success = self._judge.shows_success(result.observation)
        if success and self._confirm is not None:
            self._robot.stop()
            success = self._confirm()
            if not success:
                self._judge.begin(self._task)
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
