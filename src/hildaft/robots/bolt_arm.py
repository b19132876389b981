"""The bolt bench's arm behind what a real arm has: its file, its box, its leash. To rehearse on, without hardware.

MuJoCo is loaded when an arm is made: whoever only reads the file needs none.
"""

import math
import threading
from dataclasses import dataclass, field
from typing import Final, Literal, final

import numpy as np
from jaxtyping import Float64

from hildaft.robots.guard import Bounds, PoseGuard
from hildaft.robots.pose import Pose, turn_between
from hildaft.robots.real_arm import ArmTask, BaseAxis, Sink
from hildaft.robots.workspace import Workspace
from hildaft.types import (
    Action,
    ActionScale,
    HilDaftError,
    Observation,
    SceneState,
    StepResult,
)

TASKS: Final = ("upright", "pick", "assemble")
"""The bolt bench's tasks, in the order of Fig. 2."""

SEEN_FROM: Final[dict[str, tuple[BaseAxis, BaseAxis, BaseAxis]]] = {
    "A": ("+x", "+y", "+z"),
    "B": ("-x", "-y", "+z"),
}
"""Base axes that come nearest to forward, left and up as the head camera of each robot sees them."""

_LEASH_M: Final = 0.03
_JUMP_M: Final = 0.06
_JUMP_RAD: Final = 0.5
_SETTLE_PERIODS: Final = 3


@dataclass(frozen=True, kw_only=True)
class BoltArmConfig:
    """The simulated arm of the bolt bench, configured as a real one."""

    kind: Literal["bolt_sim"]
    """Says which kind of file this is."""
    name: str
    """Identity recorded with every episode."""
    robot: Literal["A", "B"] = "A"
    """Variant of the bench: mounting, cameras and colours differ."""
    tasks: dict[str, ArmTask] = field(default_factory=dict[str, ArmTask])
    """What the arm is trained on, out of upright, pick and assemble; not needed for `check-robot` and `calibrate`."""
    workspace: Workspace
    """Where the arm may go; `hildaft calibrate` measures it."""
    action_scale: ActionScale = field(default_factory=ActionScale)
    """Metres and radians an action of 1 stands for, per control step."""

    def __post_init__(self) -> None:
        for task in self.tasks:
            if task not in TASKS:
                msg = f"{self.name} tasks={task!r}: {', '.join(TASKS)} are allowed"
                raise HilDaftError(msg)

    @property
    def forward_left_up(self) -> tuple[BaseAxis, BaseAxis, BaseAxis]:
        """Base axes that are forward, left and up for a person in front of the robot."""
        return SEEN_FROM[self.robot]

    @property
    def step_limit(self) -> int:
        """Control steps of an episode (Sec. V-A), as the bench counts them."""
        return 50


@final
class BoltArm:
    """Implements `RealArm`, and knows the true state of its scene, for the simulated operator.

    Args:
        config: the arm.
        sink: where given, nothing moves but is described to it.

    Raises:
        HilDaftError: MuJoCo is not installed.
    """

    def __init__(self, config: BoltArmConfig, sink: Sink | None = None) -> None:
        from hildaft.robots.bolt_sim.geometry import DOWNWARD, quaternion_from_rotation
        from hildaft.robots.bolt_sim.robot import BoltRobot

        self.config: Final = config
        self._bolt: Final = BoltRobot(config.robot, config.action_scale)
        self._scene: Final = self._bolt.env.scene
        self._sink = sink
        self._wxyz: Final = quaternion_from_rotation
        low, high = np.array(config.workspace.low_m), np.array(config.workspace.high_m)
        down = self._scene.base_rotation_from_table(DOWNWARD)
        bounds = Bounds(
            workspace=config.workspace,
            upright=self._pose((low + high) / 2.0, down),
            scale=config.action_scale,
            leash_m=_LEASH_M,
            jump_m=_JUMP_M,
            jump_rad=_JUMP_RAD,
        )
        # Simulated time stands still between commands: nothing is waited for.
        self._guard: Final = PoseGuard(config.name, bounds, sleep=lambda _: None)

    @property
    def name(self) -> str:
        """As configured."""
        return self.config.name

    @property
    def action_scale(self) -> ActionScale:
        """Metres and radians an action of 1 stands for."""
        return self.config.action_scale

    @property
    def halted(self) -> threading.Event:
        """While it is set a reset goes no further."""
        return self._guard.halted

    def connect(self) -> list[str]:
        """Puts the arm where an episode begins, unless one has begun; what a person should know, line by line."""
        if self._guard.measured is None:
            self._bolt.reset(next(iter(self.config.tasks), TASKS[0]), 0)
        pose = self._look(check_jump=False)
        return [
            f"robot {self.name}: arm {self.config.robot} of the bolt bench, simulated",
            *self._guard.describe(pose),
        ]

    def reset(self, task: str, seed: int) -> Observation:
        """Starts an episode of a task, and brings the arm into its box where the task starts outside.

        Raises:
            HilDaftError: no such task.
            RobotError: the box cannot be reached.
        """
        observation = self._bolt.reset(task, seed)
        here = self._look(check_jump=False)
        self._guard.commanded = self._commanded()
        inside = self._guard.bounds.workspace.clamp(here, self._guard.bounds.upright)
        if here.distance_m(inside) < 1e-3 and here.angle_rad(inside) < 1e-3:
            return observation
        self._guard.require_near()
        self._guard.drive(inside, self._send, lambda: self._look(check_jump=True))
        return self._bolt.look()

    def step(self, action: Action) -> StepResult:
        """Runs one control period towards a pose inside the bounds.

        Raises:
            HilDaftError: the action is not 7 finite numbers, or `reset` was not called.
            RobotError: the arm jumped.
        """
        asked = self._actions_to(self._guard.target(action), closed=bool(action[6] > 0))
        result = self._bolt.step(np.clip(asked, -1.0, 1.0).astype(np.float32))
        self._look(check_jump=True)
        self._guard.commanded = self._commanded()
        return result

    def stop(self) -> None:
        """Does nothing: simulated time stands still between steps."""

    def close(self) -> None:
        """Frees the GL context."""
        self._bolt.close()

    def look(self) -> Observation:
        """The observation of the state as it is."""
        return self._bolt.look()

    def take_over(self) -> None:
        """Puts the arm where an episode begins, unless one has begun; it stays as it was commanded."""
        self.connect()
        self._guard.commanded = self._commanded()

    def nudge(self, move_m: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3"]:
        """One step of a person who jogs the arm, and the time it takes to come to rest; the position it then has."""
        self._send(self._guard.nudged(move_m))
        if self._sink is None:
            for _ in range(_SETTLE_PERIODS):
                self._scene.control.hold()
        return self._look(check_jump=True).position_m

    def widen(self, workspace: Workspace) -> None:
        """Puts another box in the place of the one that is still to be measured."""
        self._guard.widen(workspace)

    def measure_position(self) -> Float64[np.ndarray, "3"]:
        """Where the end effector is, base frame."""
        return self._look(check_jump=False).position_m

    def dry_run(self) -> None:
        """Asks for one step from where the arm is, and for closed jaws."""
        self.take_over()
        self._send(self._guard.nudged(np.array([self.config.action_scale.translation_m, 0.0, 0.0])))
        if self._sink is not None:
            self._sink("would close the jaws")

    def scene_state(self) -> SceneState:
        """The true state, for the simulated operator."""
        return self._bolt.scene_state()

    def project(
        self, points_m: Float64[np.ndarray, "k 3"]
    ) -> dict[str, Float64[np.ndarray, "k 3"]]:
        """Where points (base axes) appear in each camera's image: u and v in image widths, depth in metres."""
        return self._bolt.project(points_m)

    def _send(self, pose: Pose) -> None:
        """Moves the commanded pose, over as many control periods as an action's size asks for."""
        if self._sink is not None:
            values = ", ".join(f"{value:.4f}" for value in pose.to_wire("xyzw"))
            self._sink(f"would send pose [{values}] (m, quaternion xyzw)")
            self._guard.commanded = pose
            return
        control = self._scene.control
        asked = self._actions_to(pose, closed=control.closed)
        periods = max(1, math.ceil(float(np.abs(asked[:6]).max()) - 1e-6))
        asked[:6] /= periods
        for _ in range(periods):
            control.apply(asked)
        self._guard.commanded = self._commanded()

    def _actions_to(self, pose: Pose, *, closed: bool) -> Float64[np.ndarray, "7"]:
        """What takes the commanded pose to another, in actions; more than 1 needs several periods."""
        commanded, scale = self._guard.commanded, self.config.action_scale
        assert commanded is not None
        move = (pose.position_m - commanded.position_m) / scale.translation_m
        turn = turn_between(commanded.quaternion, pose.quaternion) / scale.rotation_rad
        return np.array([*move, *turn, 1.0 if closed else -1.0])

    def _commanded(self) -> Pose:
        """What the bench was really commanded: it has a leash and a box of its own."""
        position_m, rotation = self._scene.control.commanded
        return self._from_table(position_m, rotation)

    def _look(self, *, check_jump: bool) -> Pose:
        control = self._scene.control
        measured = self._from_table(control.tcp_position_m, control.tcp_rotation)
        return self._guard.accept(measured, check_jump=check_jump)

    def _from_table(
        self, position_m: Float64[np.ndarray, "3"], rotation: Float64[np.ndarray, "3 3"]
    ) -> Pose:
        scene = self._scene
        return self._pose(
            scene.base_from_table(position_m), scene.base_rotation_from_table(rotation)
        )

    def _pose(
        self, position_m: Float64[np.ndarray, "3"], rotation: Float64[np.ndarray, "3 3"]
    ) -> Pose:
        return Pose(position_m, np.roll(self._wxyz(rotation), -1))
