"""End-effector poses with unit quaternions, whose order is said wherever they cross a wire. NumPy only.

Inside, a quaternion is (x, y, z, w), as scipy and the SERL server have it.
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float64

from hildaft.types import HilDaftError

QuaternionOrder: TypeAlias = Literal["xyzw", "wxyz"]
Quaternion = Float64[np.ndarray, "4"]
Vector = Float64[np.ndarray, "3"]


@dataclass(frozen=True, slots=True)
class Pose:
    """A pose in the robot's base frame: metres, and a unit quaternion (x, y, z, w)."""

    position_m: Vector
    quaternion: Quaternion

    @staticmethod
    def from_wire(values: Float64[np.ndarray, "7"], order: QuaternionOrder) -> "Pose":
        """Position and a quaternion in the order named.

        Raises:
            HilDaftError: not finite, or the quaternion's length is not 1 within 1 %.
        """
        quaternion = values[3:] if order == "xyzw" else np.roll(values[3:], -1)
        length = float(np.linalg.norm(quaternion))
        if not np.isfinite(values).all() or abs(length - 1.0) > 0.01:
            msg = f"pose {np.round(values, 4).tolist()}: 3 finite metres and a quaternion of length 1 are allowed"
            raise HilDaftError(msg)
        return Pose(values[:3].copy(), quaternion / length)

    def to_wire(self, order: QuaternionOrder) -> list[float]:
        """Position, then the quaternion in the order named."""
        quaternion = self.quaternion if order == "xyzw" else np.roll(self.quaternion, 1)
        return [*map(float, self.position_m), *map(float, quaternion)]

    def moved(self, move_m: Vector, turn_rad: Vector) -> "Pose":
        """Moved and turned about base axes by a rotation vector."""
        turned = multiply(from_vector(turn_rad), self.quaternion)
        return Pose(self.position_m + move_m, turned / np.linalg.norm(turned))

    def distance_m(self, other: "Pose") -> float:
        """Metres between the positions."""
        return float(np.linalg.norm(self.position_m - other.position_m))

    def angle_rad(self, other: "Pose") -> float:
        """Angle between the orientations, in [0, pi]."""
        return float(np.linalg.norm(turn_between(other.quaternion, self.quaternion)))

    def towards(self, goal: "Pose", step_m: float, step_rad: float) -> "Pose":
        """The pose at most so far from this one on the way to a goal."""
        move = goal.position_m - self.position_m
        turn = turn_between(self.quaternion, goal.quaternion)
        return self.moved(_shortened(move, step_m), _shortened(turn, step_rad))


def _shortened(vector: Vector, longest: float) -> Vector:
    length = float(np.linalg.norm(vector))
    return vector if length <= longest else vector * (longest / length)


def from_vector(vector: Vector) -> Quaternion:
    """The rotation of a rotation vector, rad."""
    half = float(np.linalg.norm(vector)) / 2.0
    share = 0.5 if half < 1e-9 else math.sin(half) / (2.0 * half)
    return np.array([*(share * vector), math.cos(half)])


def multiply(left: Quaternion, right: Quaternion) -> Quaternion:
    """The rotation that does `right` first, then `left`."""
    a, b = left[:3], right[:3]
    vector = left[3] * b + right[3] * a + np.cross(a, b)
    return np.array([*vector, left[3] * right[3] - float(a @ b)])


def matrix_of(quaternion: Quaternion) -> Float64[np.ndarray, "3 3"]:
    """The rotation as a matrix."""
    x, y, z, w = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def to_vector(quaternion: Quaternion) -> Vector:
    """The rotation vector of a rotation, rad; the inverse of `from_vector`."""
    return turn_between(np.array([0.0, 0.0, 0.0, 1.0]), quaternion)


def to_euler(quaternion: Quaternion) -> Vector:
    """Extrinsic x, y, z angles, the inverse of `from_euler`; roll is 0 where the pitch is +-90 degrees."""
    m = matrix_of(quaternion)
    pitch = math.asin(min(1.0, max(-1.0, -float(m[2, 0]))))
    if abs(m[2, 0]) > 1.0 - 1e-9:
        return np.array([0.0, pitch, math.atan2(-float(m[0, 1]), float(m[1, 1]))])
    roll, yaw = math.atan2(m[2, 1], m[2, 2]), math.atan2(m[1, 0], m[0, 0])
    return np.array([roll, pitch, yaw])


def turn_between(start: Quaternion, end: Quaternion) -> Vector:
    """Rotation vector about base axes that takes one orientation to another, the short way; rad."""
    inverse = start * np.array([-1.0, -1.0, -1.0, 1.0])
    turn = multiply(end, inverse)
    # A quaternion and its negative are the same rotation.
    if turn[3] < 0:
        turn = -turn
    sine = float(np.linalg.norm(turn[:3]))
    if sine < 1e-9:
        return 2.0 * turn[:3]
    return turn[:3] * (2.0 * math.atan2(sine, float(turn[3])) / sine)


def from_euler(angles_rad: Vector) -> Quaternion:
    """Extrinsic x, y, z (roll, pitch, yaw), as scipy's "xyz"."""
    roll, pitch, yaw = (
        from_vector(angle * axis) for angle, axis in zip(angles_rad, np.eye(3), strict=True)
    )
    return multiply(yaw, multiply(pitch, roll))
