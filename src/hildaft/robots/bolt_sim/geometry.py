"""Small rigid-body geometry in NumPy: rotations, and the poses a bolt rests in."""

import math
from typing import Final

import numpy as np
from jaxtyping import Float64

from hildaft.robots.bolt_sim.model import (
    BOLT_LENGTH_M,
    HEAD_HALF_FLATS_M,
    HEAD_HEIGHT_M,
    SHAFT_RADIUS_M,
)

DOWNWARD: Final[Float64[np.ndarray, "3 3"]] = np.diag([1.0, -1.0, -1.0])
"""End effector rotation in the table frame at home: jaws close along +x, pointing down."""

LYING_TILT_RAD: Final = math.atan2(
    HEAD_HALF_FLATS_M - SHAFT_RADIUS_M, BOLT_LENGTH_M - HEAD_HEIGHT_M
)
"""Slope of a lying bolt's axis: it rests on the head's inner rim and on the tail."""


def rotation_about(axis: int, angle_rad: float) -> Float64[np.ndarray, "3 3"]:
    """Rotation matrix about a coordinate axis (0 x, 1 y, 2 z)."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def rotation_from_vector(vector: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3 3"]:
    """Rotation matrix of a rotation vector (Rodrigues), rad."""
    angle = float(np.linalg.norm(vector))
    x, y, z = vector
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    if angle < 1e-9:
        return np.eye(3) + cross
    return (
        np.eye(3)
        + (math.sin(angle) / angle) * cross
        + ((1.0 - math.cos(angle)) / angle**2) * cross @ cross
    )


def vector_from_rotation(matrix: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3"]:
    """Rotation vector of a rotation matrix, rad; its length is in [0, pi]."""
    w, x, y, z = quaternion_from_rotation(matrix)
    vector = np.array([x, y, z]) * (1.0 if w >= 0 else -1.0)
    sine = float(np.linalg.norm(vector))
    if sine < 1e-9:
        return 2.0 * vector
    return vector * (2.0 * math.atan2(sine, abs(w)) / sine)


def quaternion_from_rotation(matrix: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "4"]:
    """Unit quaternion (w, x, y, z) of a rotation matrix."""
    diagonal = np.diag(matrix)
    candidates = np.array([1 + diagonal.sum(), *(1 + 2 * diagonal - diagonal.sum())])
    best = int(np.argmax(candidates))
    m = matrix
    rows = (
        (candidates[0], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]),
        (m[2, 1] - m[1, 2], candidates[1], m[1, 0] + m[0, 1], m[0, 2] + m[2, 0]),
        (m[0, 2] - m[2, 0], m[1, 0] + m[0, 1], candidates[2], m[2, 1] + m[1, 2]),
        (m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[2, 1] + m[1, 2], candidates[3]),
    )
    quaternion = np.array(rows[best], dtype=np.float64)
    return quaternion / np.linalg.norm(quaternion)


def lying_bolt(
    head_xy_m: Float64[np.ndarray, "2"], yaw_rad: float
) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3 3"]]:
    """Rest pose (table frame) of a lying bolt: its tail points along +y turned by `yaw_rad`."""
    sine, cosine = math.sin(LYING_TILT_RAD), math.cos(LYING_TILT_RAD)
    height = HEAD_HALF_FLATS_M * cosine + HEAD_HEIGHT_M * sine
    axis = np.array([-math.sin(yaw_rad) * cosine, math.cos(yaw_rad) * cosine, -sine])
    # One of the hexagon's flats (normal along the bolt's x) faces down.
    up = np.array([0.0, 0.0, 1.0]) - axis * axis[2]
    up /= np.linalg.norm(up)
    rotation = np.stack([up, np.cross(axis, up), axis], axis=1)
    return np.array([*head_xy_m, height]), rotation


def standing_bolt(
    head_xy_m: Float64[np.ndarray, "2"], yaw_rad: float
) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3 3"]]:
    """Rest pose (table frame) of a bolt standing on its head."""
    return np.array([*head_xy_m, 0.0]), rotation_about(2, yaw_rad)


def tilt_rad(rotation: Float64[np.ndarray, "3 3"]) -> float:
    """Angle between a body's +z axis and the vertical."""
    return math.acos(float(np.clip(rotation[2, 2], -1.0, 1.0)))
