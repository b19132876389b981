"""A Franka behind HIL-SERL's robot server, as the project's `Robot`.

What differs from HIL-SERL's own adapter, and why: every request has a deadline (theirs block for ever); errors are
never cleared while the arm moves (theirs clear a collision stop at 10 Hz); jaws run beside the loop; a pose that
jumps stops the episode; and the quaternion's order is checked against the server's Euler angles, not assumed.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, TypeAlias, final

import numpy as np
from jaxtyping import Float64

from hildaft.robots.cameras import Camera, CameraConfig, square_view
from hildaft.robots.guard import Bounds, PoseGuard, RobotError
from hildaft.robots.pose import Pose, QuaternionOrder, from_euler, turn_between
from hildaft.robots.real_arm import ArmTask, BaseAxis
from hildaft.robots.serl_client import SerlClient, ServerState
from hildaft.robots.serl_jaws import SerlJaws
from hildaft.robots.workspace import Workspace
from hildaft.types import (
    CONTROL_HZ,
    Action,
    ActionScale,
    HilDaftError,
    Observation,
    StepResult,
)

Verdict: TypeAlias = Callable[[], Literal["go on", "success", "failure"]]
"""Who says whether the task is done: a key, a classifier, a person at the console."""

_STILL_M_S: Final = 0.01
"""Below this speed the arm counts as at rest."""
_ORDER_ERROR_RAD: Final = 0.05
_JAWS_S: Final = 8.0
"""How long a reset waits for a gripper command under way, whose route ends within 5 s."""

COMPLIANT: Final[dict[str, float]] = {
    "translational_stiffness": 2000.0,
    "translational_damping": 89.0,
    "rotational_stiffness": 150.0,
    "rotational_damping": 7.0,
    "translational_Ki": 0.0,
    "rotational_Ki": 0.0,
    **{f"translational_clip_{sign}{axis}": 0.0075 for sign in ("", "neg_") for axis in "xyz"},
    **{f"rotational_clip_{sign}{axis}": 0.05 for sign in ("", "neg_") for axis in "xyz"},
}
"""During episodes: at most 2000 N/m x 7.5 mm = 15 N."""
PRECISE: Final[dict[str, float]] = {
    **COMPLIANT,
    "translational_Ki": 30.0,
    "rotational_Ki": 5.0,
    **{f"translational_clip_{sign}{axis}": 0.01 for sign in ("", "neg_") for axis in "xyz"},
    **{f"rotational_clip_{sign}{axis}": 0.1 for sign in ("", "neg_") for axis in "xyz"},
}
"""While driving to the reset pose."""


@dataclass(frozen=True, kw_only=True)
class SerlConfig:
    """One arm behind a SERL server."""

    kind: Literal["serl"]
    """Says which kind of file this is."""
    name: str
    """Identity recorded with every episode."""
    tasks: dict[str, ArmTask] = field(default_factory=dict[str, ArmTask])
    """What the arm is trained on, by name; not needed for `check-robot` and `calibrate`."""
    url: str = "http://127.0.0.1:5000"
    """Of the robot server."""
    workspace: Workspace
    """Where the arm may go; `hildaft calibrate` measures it."""
    reset_pose: tuple[float, float, float, float, float, float]
    """x, y, z (m) and roll, pitch, yaw (rad, extrinsic x, y, z) that episodes start from."""
    reset_spread_m: float = 0.0
    """The start is drawn uniformly this far about x and y of the reset pose."""
    joint_reset_every: int = 0
    """Episodes between joint resets (they undo the drift of a redundant arm); 0 for never."""
    cameras: dict[str, CameraConfig] = field(default_factory=dict[str, CameraConfig])
    """`head` and `wrist`."""
    quaternion: QuaternionOrder = "xyzw"
    """Order on the wire; the original server has x, y, z, w."""
    gripper: Literal["server", "none"] = "server"
    """Whether the server moves a gripper."""
    action_scale: ActionScale = field(default_factory=ActionScale)
    """Metres and radians an action of 1 stands for, per control step."""
    leash_m: float = 0.03
    """The commanded pose stays this near the measured one: a blocked arm is not pushed ever harder."""
    jump_m: float = 0.06
    """A measured move of more than this within one step is a fault."""
    jump_rad: float = 0.5
    """A measured turn of more than this within one step is a fault."""
    timeout_s: float = 0.2
    """For each request of the control loop."""
    step_limit: int = 50
    """Control steps of an episode (Sec. V-A)."""
    forward_left_up: tuple[BaseAxis, BaseAxis, BaseAxis] = ("+x", "+y", "+z")
    """Base axes that are forward, left and up for a person in front of the robot."""
    clear_errors_at_reset: bool = False
    """Send /clearerr at the start of a reset, arm at rest; off: a person clears a reflex stop, having looked."""
    compliant: dict[str, float] = field(default_factory=lambda: dict(COMPLIANT))
    """Impedance during episodes."""
    precise: dict[str, float] = field(default_factory=lambda: dict(PRECISE))
    """Impedance while driving to the reset pose."""

    def __post_init__(self) -> None:
        if not self.workspace.contains(np.array(self.reset_pose[:3])):
            msg = f"{self.name} reset_pose={self.reset_pose}: its position must lie in the workspace box"
            raise HilDaftError(msg)
        for name in ("leash_m", "jump_m", "jump_rad", "timeout_s", "step_limit"):
            if not getattr(self, name) > 0:
                msg = f"{self.name} {name}={getattr(self, name)}: a positive number is allowed"
                raise HilDaftError(msg)
        if self.jump_m <= self.action_scale.translation_m:
            msg = (
                f"{self.name} jump_m={self.jump_m}: more than action_scale.translation_m is allowed"
            )
            raise HilDaftError(msg)


@final
class SerlRobot:
    """Implements `types.Robot`; wrap it in `SafeRobot`. Any fault leaves the arm holding and raises `RobotError`.

    Args:
        config: the arm.
        client: its server.
        cameras: `head` and `wrist`.
        verdict: asked after every step.
        sleep: seconds to wait, replaceable in tests.
    """

    def __init__(
        self,
        config: SerlConfig,
        client: SerlClient,
        cameras: Mapping[str, Camera],
        verdict: Verdict,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.config: Final = config
        self._client, self._cameras = client, dict(cameras)
        self._verdict, self._sleep = verdict, sleep
        self._by_parts = config.gripper == "none"
        roll_pitch_yaw = np.array(config.reset_pose[3:])
        self._upright: Final = Pose(np.array(config.reset_pose[:3]), from_euler(roll_pitch_yaw))
        bounds = Bounds(
            workspace=config.workspace,
            upright=self._upright,
            scale=config.action_scale,
            leash_m=config.leash_m,
            jump_m=config.jump_m,
            jump_rad=config.jump_rad,
        )
        self._guard: Final = PoseGuard(config.name, bounds, sleep=sleep)
        going = self._guard.require_going
        patience_s = config.timeout_s + _JAWS_S
        self._jaws: Final = SerlJaws(config.name, client.command_gripper, going, patience_s)
        self._steps = self._episodes = 0

    @property
    def name(self) -> str:
        """As configured."""
        return self.config.name

    @property
    def action_scale(self) -> ActionScale:
        """Metres and radians an action of 1 stands for."""
        return self.config.action_scale

    @property
    def commanded(self) -> Pose | None:
        """The last pose sent, None before the first."""
        return self._guard.commanded

    @property
    def halted(self) -> threading.Event:
        """While it is set nothing that moves the arm is sent; a joint reset is the server's own and runs on."""
        return self._guard.halted

    def connect(self) -> list[str]:
        """Reads everything once, moves nothing; what a person should know, line by line.

        Raises:
            RobotError: the server does not answer, or its quaternion has another order than configured.
        """
        notes = [f"robot {self.name} at {self._client.url}"]
        try:
            state = self._state()
        except RobotError:
            # The original server answers 500 when it was started without a gripper.
            self._by_parts = True
            state = self._state()
            notes.append("/getstate fails; reading the single routes (the server has no gripper?)")
        pose = Pose.from_wire(state.pose, self.config.quaternion)
        euler = self._client.pose_euler()
        off = float(np.linalg.norm(turn_between(from_euler(euler[3:]), pose.quaternion)))
        if off > _ORDER_ERROR_RAD:
            other: QuaternionOrder = "wxyz" if self.config.quaternion == "xyzw" else "xyzw"
            msg = (
                f"robot {self.name} quaternion={self.config.quaternion!r}: differs by {off:.2f} rad from the server's"
                f" own Euler angles; is it {other!r}? Nothing was moved"
            )
            raise RobotError(msg)
        # A crop that does not fit is said before the arm moves.
        self._views()
        self._guard.measured = pose
        notes += self._guard.describe(pose)
        jaws = "none" if self._by_parts else f"{state.gripper:.2f} open"
        notes.append(
            f"gripper: {jaws}; quaternion order {self.config.quaternion} agrees with the Euler angles"
        )
        return notes

    def reset(self, task: str, seed: int) -> Observation:
        """Drives to the start pose, in steps no larger than an action's, and opens the jaws.

        Raises:
            RobotError: a fault, or the start pose was not reached.
            StoppedError: the arm was halted on its way.
        """
        del task
        config, client, guard = self.config, self._client, self._guard
        if guard.measured is None:
            self.connect()
        self._wait_until_still()
        here = self._look(check_jump=False)
        guard.require_near()
        client.update_parameters(config.compliant)
        if config.clear_errors_at_reset:
            guard.require_going()
            client.clear_errors()
        self._send(here)
        self._sleep(0.3)
        guard.require_going()
        client.update_parameters(config.precise)
        self._sleep(0.5)
        if config.joint_reset_every and self._episodes % config.joint_reset_every == 0:
            # No route of the server ends it: what has begun runs to its end, up to 30 s.
            guard.require_going()
            client.reset_joints()
            self._look(check_jump=False)
        self._episodes += 1
        # What an episode's last step began must end first, or the jaws would not open.
        self._jaws.settle()
        if self._state().gripper < 0.5:
            # Closed, whoever closed them: a process before this one, perhaps.
            self._jaws.closed = True
        self._move_jaws(close=False)
        goal = guard.start_pose(seed, config.reset_spread_m)
        guard.drive(goal, self._send, partial(self._look, check_jump=True))
        client.update_parameters(config.compliant)
        self._steps = 0
        return self._observe(self._state())

    def step(self, action: Action) -> StepResult:
        """Sends one pose, waits for nothing but the reply, and reads the state.

        Raises:
            HilDaftError: the action is not 7 finite numbers.
            RobotError: the server or the arm failed; the arm holds its last pose.
        """
        pose = self._guard.target(action)
        self._guard.wait_turn()
        self._move_jaws(close=bool(action[6] > 0))
        self._send(pose)
        state = self._state()
        self._accept(state, check_jump=True)
        observation = self._observe(state)
        self._steps += 1
        verdict = self._verdict()
        truncated = verdict == "go on" and self._steps >= self.config.step_limit
        return StepResult(
            observation=observation,
            reward=float(verdict == "success"),
            terminated=verdict != "go on",
            truncated=truncated,
        )

    def stop(self) -> None:
        """Makes the measured pose the commanded one.

        Where the server is away, or says that the arm has jumped, the last command stands: a measurement that cannot
        be true must not draw the arm.
        """
        if self._guard.commanded is None:
            return
        try:
            pose = self._look(check_jump=True)
            with self._guard.holding():
                self._client.send_pose(pose.to_wire(self.config.quaternion))
            self._guard.commanded = pose
        except HilDaftError:
            return

    def close(self) -> None:
        """Stops, lets the cameras go."""
        self.stop()
        self._jaws.close()
        for camera in self._cameras.values():
            camera.close()

    def measure_position(self) -> Float64[np.ndarray, "3"]:
        """Where the end effector is, base frame; raises RobotError."""
        return Pose.from_wire(self._state().pose, self.config.quaternion).position_m

    def look(self) -> Observation:
        """The observation of the state as it is; raises RobotError."""
        return self._observe(self._state())

    def take_over(self) -> None:
        """Connects where needed, and makes the measured pose the commanded one; raises RobotError."""
        if self._guard.measured is None:
            self.connect()
        here = self._look(check_jump=False)
        self._client.update_parameters(self.config.compliant)
        self._send(here)

    def widen(self, workspace: Workspace) -> None:
        """Puts another box in the place of the one that is still to be measured."""
        self._guard.widen(workspace)

    def nudge(self, move_m: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3"]:
        """One step of a person who jogs the arm; the position it then has. Raises RobotError."""
        pose = self._guard.nudged(move_m)
        self._guard.wait_turn()
        self._send(pose)
        self._sleep(1.0 / CONTROL_HZ)
        return self._look(check_jump=True).position_m

    def dry_run(self) -> None:
        """Asks for one step from where the arm is; with a client that only prints, nothing moves."""
        self.take_over()
        ahead = np.array([self.config.action_scale.translation_m, 0.0, 0.0])
        self._send(self._guard.nudged(ahead))
        self._move_jaws(close=True)

    # Moving.

    def _send(self, pose: Pose) -> None:
        with self._guard.sending():
            self._client.send_pose(pose.to_wire(self.config.quaternion))
            self._guard.commanded = pose

    def _move_jaws(self, *, close: bool) -> None:
        if self.config.gripper != "none":
            self._jaws.move(close=close)

    # Reading.

    def _state(self) -> ServerState:
        """One state; a read that fails is tried once more, for it moves nothing."""
        read = self._client.state_by_parts if self._by_parts else self._client.state
        try:
            return read()
        except RobotError:
            return read()

    def _look(self, *, check_jump: bool) -> Pose:
        return self._accept(self._state(), check_jump=check_jump)

    def _accept(self, state: ServerState, *, check_jump: bool) -> Pose:
        pose = Pose.from_wire(state.pose, self.config.quaternion)
        return self._guard.accept(pose, check_jump=check_jump)

    def _wait_until_still(self) -> None:
        for _ in range(50):
            if float(np.linalg.norm(self._state().velocity[:3])) < _STILL_M_S:
                return
            self._sleep(0.1)
        msg = f"robot {self.name}: still moving after 5 s; a reset starts from rest"
        raise RobotError(msg)

    def _observe(self, state: ServerState) -> Observation:
        closed = float(self._jaws.closed)
        opening = 1.0 - closed if np.isnan(state.gripper) else float(np.clip(state.gripper, 0, 1))
        proprio = np.array([opening, closed], dtype=np.float32)
        return Observation(images=self._views(), proprio=proprio)

    def _views(self) -> dict[str, np.ndarray]:
        known = self.config.cameras
        crops = {name: known[name].crop if name in known else None for name in self._cameras}
        return {
            name: square_view(camera.read(), crops[name], f"{name} of {self.name}")
            for name, camera in self._cameras.items()
        }
