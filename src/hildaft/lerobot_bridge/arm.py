"""A LeRobot arm as the project's `Robot`: whatever implements LeRobot's abstract protocol, by poses or by joints.

It is bounded as every real arm is here: a box and a cone for the commanded pose, a leash to the measured one, a largest
step per joint, a shortest time between commands, and a fault where the measured pose jumps.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, final

import numpy as np
from jaxtyping import Float64

from hildaft.lerobot_bridge.config import LeRobotConfig
from hildaft.lerobot_bridge.library import Arm, theirs
from hildaft.lerobot_bridge.motion import motion_of
from hildaft.robots.cameras import square_view
from hildaft.robots.guard import Bounds, PoseGuard, RobotError
from hildaft.robots.pose import Pose
from hildaft.robots.workspace import Workspace
from hildaft.types import (
    CONTROL_HZ,
    Action,
    ActionScale,
    HilDaftError,
    Observation,
    StepResult,
)

_OUTSIDE_M: Final = 0.005
"""How far joints may carry the end effector out of the box: they turn on circles, the box is straight."""
_LOCK_S: Final = 0.05
_CURE: Final = (
    "the arm holds its last command. Look at the arm, its cable and its power, then start again"
)


@final
class LeRobotRobot:
    """Implements `types.Robot`; wrap it in `SafeRobot`. Any fault leaves the arm holding and raises `RobotError`.

    It gives no reward: wrap it in `JudgedRobot`, or end episodes by keys.

    Args:
        config: the arm.
        arm: implements LeRobot's abstract `Robot`; not yet connected.
        sleep: seconds to wait, replaceable in tests.

    Raises:
        HilDaftError: the URDF does not fit, or the reset position is outside the workspace.
    """

    def __init__(
        self, config: LeRobotConfig, arm: Arm, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.config: Final = config
        self._arm, self._sleep = arm, sleep
        self._motion: Final = motion_of(config)
        upright = self._motion.pose(config.reset)
        if not config.workspace.contains(upright.position_m):
            position = np.round(upright.position_m, 3).tolist()
            msg = f"{config.name} reset: its end effector is at {position} m, outside the workspace box; mend either"
            raise HilDaftError(msg)
        bounds = Bounds(
            workspace=config.workspace,
            upright=upright,
            scale=config.action_scale,
            leash_m=config.leash_m,
            jump_m=config.jump_m,
            jump_rad=config.jump_rad,
        )
        self._guard: Final = PoseGuard(config.name, bounds, sleep=sleep)
        # A driver's bus takes one caller at a time, and `stop` comes from the watchdog's thread.
        self._bus: Final = threading.Lock()
        self._sent: dict[str, float] = {}
        self._closed = self._connected = False
        self._steps = 0
        self.refused = 0
        """Commands kept back so far because they led out of the box."""

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
        """While it is set nothing that moves the arm is sent."""
        return self._guard.halted

    def connect(self) -> list[str]:
        """Connects, reads once, moves nothing; what a person should know, line by line.

        Raises:
            HilDaftError: the keys or images of the config are not the arm's.
            RobotError: the driver fails.
        """
        if not self._connected:
            self._require_keys()
            with self._theirs("connect"):
                # Calibrating moves motors or asks questions: that is LeRobot's own command.
                self._arm.connect(calibrate=False)
            self._connected = True
        notes = [f"robot {self.name}: LeRobot {self.config.arm['type']}"]
        if getattr(self._arm, "is_calibrated", True) is False:
            msg = f"robot {self.name}: it is not calibrated; run `lerobot-calibrate` for it first"
            raise RobotError(msg)
        observation = self._read()
        values = self._values(observation)
        pose = self._guard.accept(self._motion.pose(values), check_jump=False)
        self._look_at(observation)
        notes += self._guard.describe(pose)
        here = {key: round(values[key], 3) for key in self.config.motion_keys}
        notes.append(f"as it stands, reset would be: {here}")
        return notes

    def reset(self, task: str, seed: int) -> Observation:
        """Drives to the start pose, in steps no larger than an action's, and opens the jaws.

        Raises:
            RobotError: a fault, or the start pose was not reached.
            StoppedError: the arm was halted on its way.
        """
        del task
        self.take_over()
        self._guard.require_near()
        self._closed = False
        goal = self._guard.start_pose(seed, self.config.reset_spread_m)
        self._guard.drive(goal, self._send_pose, lambda: self._measure(check_jump=True))
        self._open_jaws()
        self._steps = 0
        observation = self._read()
        self._accept(observation)
        return self._observe(observation)

    def step(self, action: Action) -> StepResult:
        """Sends one command and reads the state.

        Raises:
            HilDaftError: the action is not 7 finite numbers, or `reset` was not called.
            RobotError: the driver or the arm failed; the arm holds its last command.
        """
        pose = self._guard.target(action)
        self._closed = bool(action[6] > 0)
        self._guard.wait_turn()
        self._send_pose(pose)
        observation = self._read()
        self._accept(observation)
        self._steps += 1
        return StepResult(
            observation=self._observe(observation),
            reward=0.0,
            terminated=False,
            truncated=self._steps >= self.config.step_limit,
        )

    def stop(self) -> None:
        """Repeats the last command, which the arm's own controller holds; from any thread, also while a step hangs."""
        if not self._sent or not self._bus.acquire(timeout=_LOCK_S):
            # The driver hangs: no more commands get through, and the last one stands.
            return
        try:
            with self._theirs("stop"):
                self._arm.send_action(dict(self._sent))
        except HilDaftError:
            return
        finally:
            self._bus.release()

    def close(self) -> None:
        """Stops and lets the arm go; many arms then fall limp, so it should lie somewhere."""
        self.stop()
        if self._connected:
            self._connected = False
            with self._theirs("disconnect"):
                self._arm.disconnect()

    def measure_position(self) -> Float64[np.ndarray, "3"]:
        """Where the end effector is, base frame; raises RobotError."""
        return self._motion.pose(self._values(self._read())).position_m

    def look(self) -> Observation:
        """The observation of the state as it is; raises RobotError."""
        return self._observe(self._read())

    def take_over(self) -> None:
        """Connects where needed, and makes the measured pose the commanded one; raises RobotError."""
        if not self._connected:
            self.connect()
        values = self._values(self._read())
        self._guard.accept(self._motion.pose(values), check_jump=False)
        self._sent = {**values, **self.config.fixed}
        self._guard.commanded = self._guard.measured

    def widen(self, workspace: Workspace) -> None:
        """Puts another box in the place of the one that is still to be measured."""
        self._guard.widen(workspace)

    def nudge(self, move_m: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3"]:
        """One step of a person who jogs the arm; the position it then has. Raises RobotError."""
        pose = self._guard.nudged(move_m)
        self._guard.wait_turn()
        self._send_pose(pose)
        self._sleep(1.0 / CONTROL_HZ)
        return self._measure(check_jump=True).position_m

    def dry_run(self) -> None:
        """Asks for one step from where the arm is, and for closed jaws."""
        self.take_over()
        self._closed = True
        ahead = np.array([self.config.action_scale.translation_m, 0.0, 0.0])
        self._send_pose(self._guard.nudged(ahead))

    # Moving.

    def _send_pose(self, pose: Pose) -> None:
        values = self._motion.values(pose, self._sent)
        self._send({**values, **self._jaws(), **self.config.fixed})

    def _jaws(self) -> dict[str, float]:
        jaws = self.config.gripper
        if jaws is None:
            return {}
        goal = jaws.closed if self._closed else jaws.open
        here = self._sent.get(jaws.key, goal)
        return {jaws.key: here + float(np.clip(goal - here, -jaws.max_step, jaws.max_step))}

    def _open_jaws(self) -> None:
        jaws = self.config.gripper
        while jaws is not None and abs(self._sent[jaws.key] - jaws.open) > 1e-6:
            before = self._sent[jaws.key]
            self._guard.wait_turn()
            self._send({**self._sent, **self._jaws()})
            self._sleep(1.0 / CONTROL_HZ)
            if self._sent[jaws.key] == before:
                return

    def _send(self, values: dict[str, float]) -> None:
        pose, before = self._motion.pose(values), self._guard.commanded
        if before is not None and self._leaves(pose) > max(_OUTSIDE_M, self._leaves(before)):
            self.refused += 1
            values = {**values, **{key: self._sent[key] for key in self.config.motion_keys}}
        # A hold that waits for the bus repeats what was sent here, and nothing is sent after it.
        with self._bus, self._theirs("send_action"):
            self._guard.require_going()
            sent = self._arm.send_action(dict(values))
            # Many drivers clip; what they say they sent is where the arm goes.
            self._sent = {key: _number(self.name, sent, key, v) for key, v in values.items()}
        self._guard.commanded = self._motion.pose(self._sent)

    def _leaves(self, pose: Pose) -> float:
        box = self._guard.bounds.workspace
        inside = np.clip(pose.position_m, box.low_m, box.high_m)
        return float(np.linalg.norm(pose.position_m - inside))

    # Reading.

    def _read(self) -> Mapping[str, Any]:
        with self._bus, self._theirs("get_observation"):
            return self._arm.get_observation()

    def _values(self, observation: Mapping[str, Any]) -> dict[str, float]:
        jaws = self.config.gripper
        keys = (*self.config.motion_keys, *((jaws.key,) if jaws is not None else ()))
        return {key: _number(self.name, observation, key, None) for key in keys}

    def _accept(self, observation: Mapping[str, Any]) -> None:
        pose = self._motion.pose(self._values(observation))
        self._guard.accept(pose, check_jump=True)

    def _measure(self, *, check_jump: bool) -> Pose:
        pose = self._motion.pose(self._values(self._read()))
        return self._guard.accept(pose, check_jump=check_jump)

    def _look_at(self, observation: Mapping[str, Any]) -> dict[str, np.ndarray]:
        images: dict[str, np.ndarray] = {}
        for name, camera in self.config.cameras.items():
            frame = np.asarray(observation.get(camera.key))
            if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
                msg = (
                    f"robot {self.name} camera {name}: {camera.key!r} is no RGB image of bytes"
                    f" ({frame.dtype} {frame.shape}); {_CURE}"
                )
                raise RobotError(msg)
            images[name] = square_view(frame, camera.crop, f"{name} of {self.name}")
        return images

    def _observe(self, observation: Mapping[str, Any]) -> Observation:
        jaws, closed = self.config.gripper, float(self._closed)
        opening = 1.0 - closed
        if jaws is not None:
            measured = _number(self.name, observation, jaws.key, None)
            opening = float(np.clip((measured - jaws.closed) / (jaws.open - jaws.closed), 0, 1))
        return Observation(
            images=self._look_at(observation),
            proprio=np.array([opening, closed], dtype=np.float32),
        )

    def _require_keys(self) -> None:
        config, jaws = self.config, self.config.gripper
        ours = {*config.motion_keys, *config.fixed, *((jaws.key,) if jaws is not None else ())}
        with self._theirs("features"):
            takes, gives = set(self._arm.action_features), set(self._arm.observation_features)
        read = ours - set(config.fixed) | {camera.key for camera in config.cameras.values()}
        for what, wanted, there in (("action", ours, takes), ("observation", read, gives)):
            if missing := sorted(wanted - there):
                msg = f"robot {self.name}: its {what} has no {', '.join(missing)}; it has {', '.join(sorted(there))}"
                raise HilDaftError(msg)
        if unnamed := sorted(takes - ours):
            msg = (
                f"robot {self.name}: its action has {', '.join(unnamed)} too; give each a value under `fixed`,"
                " or name the gripper"
            )
            raise HilDaftError(msg)

    def _theirs(self, what: str):  # noqa: ANN202 - a context manager
        return theirs(f"robot {self.name}: its {what} failed", RobotError, _CURE)


def _number(name: str, values: Mapping[str, Any], key: str, otherwise: float | None) -> float:
    """A finite number from a driver; `otherwise` where the key is missing and a value is given for that."""
    value = values.get(key, otherwise)
    try:
        number = float("nan") if value is None else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        msg = f"robot {name}: {key!r} is {value!r}, a finite number is needed; {_CURE}"
        raise RobotError(msg)
    return number
