"""Long horizon: one to four bolts, each set upright, picked and assembled, with no reset in between.

Bolts are fed one at a time, as from a feeder: the next one appears lying in the start zone once the hand
is back, and those already assembled stay in the rail, where each new one pushes them on. Between two
tasks a script moves the hand to a start pose of the next task; these moves are counted apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias, final

import numpy as np
from jaxtyping import Float64

from hildaft.robots.bolt_sim.env import BoltEnv
from hildaft.robots.bolt_sim.geometry import DOWNWARD, vector_from_rotation
from hildaft.robots.bolt_sim.model import RobotName
from hildaft.robots.bolt_sim.robot import observation_from
from hildaft.robots.bolt_sim.tasks import TASKS, TaskName, sample_start
from hildaft.types import Action, ActionScale, Observation, SceneState

PolicyStep: TypeAlias = Callable[[Observation, str], Action]
"""From an observation and the task's name to an action in [-1, 1]."""

_TRANSIT_LIMIT: Final = 60
_NEAR_M: Final = 0.004
_NEAR_RAD: Final = 0.04
_GAIN: Final = 0.42


@dataclass(frozen=True, slots=True)
class StageResult:
    """How one task of the chain went."""

    bolt: int
    task: TaskName
    success: bool
    steps: int


@dataclass(frozen=True, slots=True)
class ChainResult:
    """How one chain went; it ends at the first task that fails."""

    bolts: int
    stages: tuple[StageResult, ...]
    transit_steps: int

    @property
    def success(self) -> bool:
        """Whether every task of every bolt succeeded."""
        wanted = self.bolts * len(TASKS)
        return len(self.stages) == wanted and all(stage.success for stage in self.stages)

    @property
    def task_steps(self) -> int:
        """Control steps the policy acted."""
        return sum(stage.steps for stage in self.stages)


@final
class BoltChain:
    """Runs chains on one robot; each task has its usual 50 steps."""

    def __init__(
        self, robot: RobotName, bolts: int, action_scale: ActionScale | None = None
    ) -> None:
        self.env: Final = BoltEnv(robot=robot, action_scale=action_scale, bolts=bolts)
        self._bolts: Final = bolts

    def run(
        self,
        policy_step: PolicyStep,
        seed: int,
        watch: Callable[[], None] | None = None,
    ) -> ChainResult:
        """Runs one chain; `watch` is called after every step, transit included."""
        env = self.env
        rng = np.random.default_rng(seed)
        stages: list[StageResult] = []
        transit = 0
        env.reset(seed=seed, options={"task": TASKS[0], "assembled": 0})
        for bolt in range(self._bolts):
            for task in TASKS:
                if bolt > 0 or task != TASKS[0]:
                    transit += self._transit(task, bolt, rng, watch)
                stage = self._stage(policy_step, task, bolt, watch)
                stages.append(stage)
                if not stage.success:
                    return ChainResult(self._bolts, tuple(stages), transit)
        return ChainResult(self._bolts, tuple(stages), transit)

    def scene_state(self) -> SceneState:
        """The true state, for a simulated operator."""
        return self.env.scene_state()

    def close(self) -> None:
        """Frees the GL context."""
        self.env.close()

    def _stage(
        self,
        policy_step: PolicyStep,
        task: TaskName,
        bolt: int,
        watch: Callable[[], None] | None,
    ) -> StageResult:
        env = self.env
        env.continue_with(task)
        values = env.observe()
        terminated = truncated = False
        steps = 0
        while not (terminated or truncated):
            action = policy_step(observation_from(values), task)
            values, _, terminated, truncated, _ = env.step(action)
            steps += 1
            if watch is not None:
                watch()
        return StageResult(bolt=bolt, task=task, success=terminated, steps=steps)

    def _transit(
        self,
        task: TaskName,
        bolt: int,
        rng: np.random.Generator,
        watch: Callable[[], None] | None,
    ) -> int:
        """Scripted: off the bolt, up, over to a start pose of the next task; returns its steps."""
        start = sample_start(task, rng)
        control = self.env.scene.control
        goal = start.tcp_position_m
        steps = 0
        if task == "pick":
            # The hand still holds out sideways beside the standing bolt.
            back = control.tcp_position_m - 0.045 * control.tcp_rotation[:, 2]
            steps += self._go(back, control.tcp_rotation, watch)
        above = np.array([*control.tcp_position_m[:2], max(goal[2], 0.11)])
        steps += self._go(above, DOWNWARD, watch)
        steps += self._go(goal, DOWNWARD, watch)
        if task == TASKS[0]:
            self._feed(bolt, start.bolt_position_m, start.bolt_rotation)
        return steps

    def _feed(
        self,
        bolt: int,
        position_m: Float64[np.ndarray, "3"],
        rotation: Float64[np.ndarray, "3 3"],
    ) -> None:
        scene = self.env.scene
        scene.place_bolt(
            bolt, scene.base_from_table(position_m), scene.base_rotation_from_table(rotation)
        )
        scene.active_bolt = bolt
        scene.control.hold()

    def _go(
        self,
        position_m: Float64[np.ndarray, "3"],
        rotation: Float64[np.ndarray, "3 3"],
        watch: Callable[[], None] | None,
    ) -> int:
        """Moves to a pose of the table frame, jaws as commanded; returns the steps taken."""
        scene, scale = self.env.scene, self.env.action_scale
        control = scene.control
        for step in range(_TRANSIT_LIMIT):
            move = position_m - control.tcp_position_m
            turn = vector_from_rotation(rotation @ control.tcp_rotation.T)
            if np.linalg.norm(move) < _NEAR_M and np.linalg.norm(turn) < _NEAR_RAD:
                return step
            back = scene.table_rotation_from_base(np.eye(3)).T
            action = np.empty(7)
            action[:3] = _GAIN * (back @ move) / scale.translation_m
            action[3:6] = _GAIN * (back @ turn) / scale.rotation_rad
            action[:6] /= max(1.0, float(np.abs(action[:6]).max()))
            action[6] = 1.0 if control.closed else -1.0
            control.apply(action)
            if watch is not None:
                watch()
        return _TRANSIT_LIMIT
