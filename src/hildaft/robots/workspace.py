"""Where an arm may go: a box in its base frame and a cone about its working orientation. NumPy only."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64

from hildaft.robots.pose import Pose
from hildaft.types import HilDaftError

_LEAST_M: Final = 0.005


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Bounds of the commanded pose; `hildaft calibrate` measures the box."""

    low_m: tuple[float, float, float]
    """Smallest x, y, z of the end effector, base frame."""
    high_m: tuple[float, float, float]
    """Largest x, y, z of the end effector, base frame."""
    max_turn_rad: float = 0.6
    """Largest angle from the reset orientation."""

    def __post_init__(self) -> None:
        for axis, low, high in zip("xyz", self.low_m, self.high_m, strict=True):
            if not _LEAST_M <= high - low <= 2.0:
                msg = (
                    f"workspace {axis} from {low} to {high} m: 5 mm to 2 m, low before high, is allowed;"
                    " measure it with `hildaft calibrate`"
                )
                raise HilDaftError(msg)
        if not 0.0 < self.max_turn_rad <= np.pi:
            msg = f"workspace.max_turn_rad={self.max_turn_rad}: above 0, at most pi is allowed"
            raise HilDaftError(msg)

    def contains(self, position_m: Float64[np.ndarray, "3"], margin_m: float = 0.0) -> bool:
        """Whether a position is inside the box, or outside by no more than the margin."""
        return bool(
            np.all(position_m >= np.array(self.low_m) - margin_m)
            and np.all(position_m <= np.array(self.high_m) + margin_m)
        )

    def clamp(self, pose: Pose, upright: Pose) -> Pose:
        """The nearest position in the box, and an orientation within the cone about that of `upright`."""
        position = np.clip(pose.position_m, self.low_m, self.high_m)
        turned = upright.towards(pose, 0.0, self.max_turn_rad)
        return Pose(position, turned.quaternion)

    @staticmethod
    def around(
        positions_m: Float64[np.ndarray, "n 3"], margin_m: float, max_turn_rad: float
    ) -> "Workspace":
        """The box around the corners that were visited, made smaller by the margin on each side.

        Raises:
            HilDaftError: fewer than two corners, or less than 5 mm is left of a side.
        """
        if len(positions_m) < 2:
            msg = f"workspace: {len(positions_m)} corners were visited, two opposite ones or more are needed"
            raise HilDaftError(msg)
        apart = positions_m.max(axis=0) - positions_m.min(axis=0)
        for axis, side in zip("xyz", apart, strict=True):
            if side - 2.0 * margin_m < _LEAST_M:
                msg = (
                    f"workspace {axis}: the corners are {1e3 * side:.0f} mm apart, of which the margins take"
                    f" {2e3 * margin_m:.0f}; {1e3 * _LEAST_M:.0f} mm must be left: corners further"
                    " apart, or a smaller --margin-m"
                )
                raise HilDaftError(msg)
        low, high = positions_m.min(axis=0) + margin_m, positions_m.max(axis=0) - margin_m
        x0, y0, z0 = (round(float(v), 4) for v in low)
        x1, y1, z1 = (round(float(v), 4) for v in high)
        return Workspace(low_m=(x0, y0, z0), high_m=(x1, y1, z1), max_turn_rad=max_turn_rad)
