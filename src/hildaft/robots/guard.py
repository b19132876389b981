"""What keeps a real arm's commanded pose in bounds, whatever the arm is driven through."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
from jaxtyping import Float64

from hildaft.robots.pose import Pose
from hildaft.robots.workspace import Workspace
from hildaft.types import (
    ACTION_DIM,
    CONTROL_HZ,
    Action,
    ActionScale,
    HilDaftError,
    StoppedError,
)

SHORTEST_PERIOD_S: Final = 0.9 / CONTROL_HZ
"""Commands come no faster than this: a loop that runs free must not drive the arm at its own speed."""
_NEAR_M: Final = 0.01
_NEAR_RAD: Final = 0.05
_UNDER_WAY_S: Final = 0.05
"""How long a hold waits for the command that is being sent; one that hangs must not keep it back."""


class RobotError(HilDaftError):
    """The arm or its driver did not do what was asked; the arm is left holding where it is."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How far a command may go."""

    workspace: Workspace
    upright: Pose
    """The reset pose: the cone of orientations is about its orientation."""
    scale: ActionScale
    leash_m: float
    """The commanded pose stays this near the measured one: a blocked arm is not pushed ever harder."""
    jump_m: float
    """A measured move of more than this within one step is a fault."""
    jump_rad: float
    """A measured turn of more than this within one step is a fault."""


@final
class PoseGuard:
    """Keeps the measured and the commanded pose of one arm, and the bounds between them."""

    def __init__(
        self,
        name: str,
        bounds: Bounds,
        *,
        sleep: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self.bounds = name, bounds
        self._sleep, self._clock = sleep, clock
        self._sent_s = -np.inf
        self._under_way = threading.Lock()
        self.halted: Final = threading.Event()
        """While it is set nothing that moves the arm is sent. Set and cleared from any thread."""
        self.measured: Pose | None = None
        """The newest pose read, None before the first."""
        self.commanded: Pose | None = None
        """The last pose sent, None before the first."""

    def widen(self, workspace: Workspace) -> None:
        """Puts another box in the place of the one that is still to be measured."""
        self.bounds = replace(self.bounds, workspace=workspace)

    def accept(self, pose: Pose, *, check_jump: bool) -> Pose:
        """Takes over a measured pose; raises RobotError where it jumped."""
        before, bounds = self.measured, self.bounds
        if check_jump and before is not None:
            moved, turned = pose.distance_m(before), pose.angle_rad(before)
            if moved > bounds.jump_m or turned > bounds.jump_rad:
                msg = (
                    f"robot {self._name}: its pose jumped by {moved:.3f} m and {turned:.2f} rad in one step;"
                    f" {bounds.jump_m} m and {bounds.jump_rad} rad are allowed. The arm holds; look at it"
                )
                raise RobotError(msg)
        self.measured = pose
        return pose

    def describe(self, pose: Pose) -> list[str]:
        """What a person should know of a pose before anything moves, line by line."""
        bounds = self.bounds
        inside = "inside" if bounds.workspace.contains(pose.position_m) else "OUTSIDE"
        position = ", ".join(f"{value:.3f}" for value in pose.position_m)
        turned, allowed = pose.angle_rad(bounds.upright), bounds.workspace.max_turn_rad
        return [
            f"end effector at {position} m, {inside} the workspace box",
            f"turned {turned:.2f} rad from the reset orientation, {allowed:.2f} allowed",
        ]

    def target(self, action: Action) -> Pose:
        """The pose that an action asks for from the commanded one, within the bounds.

        Raises:
            HilDaftError: the action is not 7 finite numbers, or nothing was commanded yet.
        """
        if action.shape != (ACTION_DIM,) or not np.isfinite(action).all():
            msg = f"robot {self._name} action={action!r}: {ACTION_DIM} finite numbers are allowed"
            raise HilDaftError(msg)
        scale, values = self.bounds.scale, np.clip(action.astype(np.float64), -1.0, 1.0)
        return self._moved(values[:3] * scale.translation_m, values[3:6] * scale.rotation_rad)

    def nudged(self, move_m: Float64[np.ndarray, "3"]) -> Pose:
        """The commanded pose moved along base axes, within the bounds; raises HilDaftError as `target`."""
        return self._moved(move_m, np.zeros(3))

    def _moved(self, move_m: Float64[np.ndarray, "3"], turn_rad: Float64[np.ndarray, "3"]) -> Pose:
        if self.commanded is None or self.measured is None:
            msg = f"robot {self._name}: call reset first"
            raise HilDaftError(msg)
        return self.leashed(self.commanded.moved(move_m, turn_rad))

    def leashed(self, wanted: Pose) -> Pose:
        """Inside the workspace, and no further from the measured pose than the leash."""
        assert self.measured is not None
        bounds = self.bounds
        inside = bounds.workspace.clamp(wanted, bounds.upright)
        return self.measured.towards(
            inside,
            bounds.leash_m + bounds.scale.translation_m,
            4.0 * bounds.scale.rotation_rad,
        )

    def require_near(self) -> None:
        """Raises RobotError where the arm is far outside its workspace: driving back blindly could hit anything."""
        assert self.measured is not None
        if not self.bounds.workspace.contains(self.measured.position_m, margin_m=0.05):
            position = np.round(self.measured.position_m, 3).tolist()
            msg = (
                f"robot {self._name} is at {position} m, far outside its workspace box; bring it back by hand,"
                " or measure the box again with `hildaft calibrate`"
            )
            raise RobotError(msg)

    def wait_turn(self) -> None:
        """Waits until a control period, less a little, has passed since the last command; raises StoppedError."""
        left_s = self._sent_s + SHORTEST_PERIOD_S - self._clock()
        if left_s > 0:
            self._sleep(left_s)
        self.require_going()
        self._sent_s = self._clock()

    def require_going(self) -> None:
        """Raises StoppedError while the arm is halted."""
        if self.halted.is_set():
            msg = f"robot {self._name}: stopped in the middle of a motion; it holds. Look at it, then start again"
            raise StoppedError(msg)

    @contextmanager
    def sending(self) -> Generator[None]:
        """A command that moves the arm is sent inside, if it is not halted: a hold never overtakes it.

        Raises:
            StoppedError: the arm is halted.
        """
        with self._under_way:
            self.require_going()
            yield

    @contextmanager
    def holding(self) -> Generator[None]:
        """A hold is sent inside, after the command that is being sent."""
        waited = self._under_way.acquire(timeout=_UNDER_WAY_S)
        try:
            yield
        finally:
            if waited:
                self._under_way.release()

    def start_pose(self, seed: int, spread_m: float) -> Pose:
        """The reset pose, moved about x and y by at most the spread."""
        offset = np.random.default_rng(seed).uniform(-spread_m, spread_m, 3) * [1.0, 1.0, 0.0]
        upright = self.bounds.upright
        return self.bounds.workspace.clamp(upright.moved(offset, np.zeros(3)), upright)

    def drive(self, goal: Pose, send: Callable[[Pose], None], look: Callable[[], Pose]) -> None:
        """Goes to a pose in steps no larger than an action's.

        Args:
            goal: in the workspace.
            send: makes a pose the commanded one.
            look: measures and accepts the pose.

        Raises:
            RobotError: the arm gets no nearer, or a fault.
            StoppedError: it was halted on its way.
        """
        scale = self.bounds.scale
        assert self.measured is not None
        way = max(
            self.measured.distance_m(goal) / scale.translation_m,
            self.measured.angle_rad(goal) / scale.rotation_rad,
        )
        here = self.measured
        # Three times the way, and time to settle: an arm that is blocked does not push on for ever.
        for _ in range(int(3 * way) + 20):
            assert self.commanded is not None
            self.require_going()
            following = self.commanded.towards(goal, scale.translation_m, scale.rotation_rad)
            send(self.leashed(following))
            self._sleep(1.0 / CONTROL_HZ)
            here = look()
            if here.distance_m(goal) < _NEAR_M and here.angle_rad(goal) < _NEAR_RAD:
                return
        left = here.distance_m(goal)
        msg = f"robot {self._name}: {left:.3f} m from its start pose and not getting nearer; is it blocked? It holds"
        raise RobotError(msg)
