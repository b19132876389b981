"""The last check before a robot moves: whatever acts, the robot gets finite, bounded actions."""

from dataclasses import dataclass
from types import TracebackType
from typing import Final, final

import numpy as np

from hildaft.types import (
    ACTION_DIM,
    Action,
    ActionScale,
    HilDaftError,
    Observation,
    Robot,
    StepResult,
)


@dataclass(frozen=True, kw_only=True)
class SafetyLimits:
    """What an action may ask for."""

    translation: float = 1.0
    """Largest translation per axis and step, as a share of the robot's action scale, in (0, 1].
    Not in the paper."""
    rotation: float = 1.0
    """Largest rotation per axis and step, as a share of the robot's action scale, in (0, 1].
    Not in the paper."""

    def __post_init__(self) -> None:
        for name in ("translation", "rotation"):
            value = getattr(self, name)
            if not 0.0 < value <= 1.0:
                msg = f"SafetyLimits.{name}={value}: above 0 and at most 1 is allowed"
                raise HilDaftError(msg)


@final
class SafeRobot:
    """Wraps any robot: clips actions, refuses non-finite ones by holding still, stops at the end.

    Use it as a context manager: leaving the block stops the robot whatever happened inside.
    """

    def __init__(self, robot: Robot, limits: SafetyLimits | None = None) -> None:
        self._robot: Final = robot
        limits = limits or SafetyLimits()
        self._bound = np.ones(ACTION_DIM, dtype=np.float32)
        self._bound[:3] = limits.translation
        self._bound[3:6] = limits.rotation
        self._gripper = np.float32(-1.0)
        self.refused = 0
        """Actions refused so far because they were not 7 finite numbers."""
        self.clipped = 0
        """Actions clipped so far."""

    @property
    def name(self) -> str:
        """The wrapped robot's name."""
        return self._robot.name

    @property
    def action_scale(self) -> ActionScale:
        """The wrapped robot's action scale."""
        return self._robot.action_scale

    def reset(self, task: str, seed: int) -> Observation:
        """Resets the robot; stops it when that fails."""
        observation = self._guard_reset(task, seed)
        self._gripper = np.float32(1.0 if observation.proprio[1] > 0.5 else -1.0)
        return observation

    def _guard_reset(self, task: str, seed: int) -> Observation:
        try:
            return self._robot.reset(task, seed)
        except BaseException:
            self._robot.stop()
            raise

    def step(self, action: Action) -> StepResult:
        """Executes what is left of the action after the checks; stops the robot when that fails."""
        try:
            return self._robot.step(self._checked(action))
        except BaseException:
            self._robot.stop()
            raise

    def _checked(self, action: Action) -> Action:
        """Clips; a refused action becomes: stay, jaws as last commanded."""
        if action.shape != (ACTION_DIM,) or not np.isfinite(action).all():
            self.refused += 1
            still = np.zeros(ACTION_DIM, dtype=np.float32)
            still[6] = self._gripper
            return still
        bounded = np.clip(action, -self._bound, self._bound).astype(np.float32)
        self.clipped += int(not np.array_equal(bounded, action))
        self._gripper = np.float32(1.0 if bounded[6] > 0 else -1.0)
        return bounded

    def stop(self) -> None:
        """Leaves the arm holding still."""
        self._robot.stop()

    def __enter__(self) -> "SafeRobot":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._robot.stop()
