"""What every real arm has beyond the `Robot` protocol, whatever it is driven through. NumPy only."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float64

from hildaft.robots.workspace import Workspace
from hildaft.types import Observation, Robot

BaseAxis: TypeAlias = Literal["+x", "-x", "+y", "-y", "+z", "-z"]
Sink: TypeAlias = Callable[[str], None]
"""Takes a line about what would have been sent: a dry run."""


@dataclass(frozen=True, kw_only=True)
class ArmTask:
    """One task of a real arm."""

    instruction: str
    """l_task, in words: what the backbone is told."""


@runtime_checkable
class HaltableRobot(Robot, Protocol):
    """A robot whose motions, a reset's above all, can be ended from another thread."""

    @property
    def halted(self) -> threading.Event:
        """While it is set nothing that moves the robot is sent: what would raises StoppedError."""
        ...


@runtime_checkable
class RealArm(HaltableRobot, Protocol):
    """An arm that is checked, jogged and measured before it is trained on."""

    def connect(self) -> list[str]:
        """Reads everything once, moves nothing; what a person should know, line by line."""
        ...

    def look(self) -> Observation:
        """The observation of the state as it is, without a step."""
        ...

    def take_over(self) -> None:
        """Makes the measured pose the commanded one."""
        ...

    def nudge(self, move_m: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3"]:
        """One bounded step along base axes; the measured position after it, base frame."""
        ...

    def widen(self, workspace: Workspace) -> None:
        """Puts another box in the place of the one that is still to be measured."""
        ...

    def measure_position(self) -> Float64[np.ndarray, "3"]:
        """Where the end effector is, base frame."""
        ...

    def dry_run(self) -> None:
        """Asks for one step from where the arm is, and for closed jaws."""
        ...

    def close(self) -> None:
        """Stops and lets the arm go."""
        ...


def reach_around(position_m: Float64[np.ndarray, "3"], reach_m: float) -> Workspace:
    """A box about a position, for jogging before the workspace is known; orientations stay almost as they are."""
    low, high = position_m - reach_m, position_m + reach_m
    x0, y0, z0 = (float(v) for v in low)
    x1, y1, z1 = (float(v) for v in high)
    return Workspace(low_m=(x0, y0, z0), high_m=(x1, y1, z1), max_turn_rad=np.pi)
