"""What the networks must read off the images: metric geometry at three scales, and its way back to metres."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from jaxtyping import Float, Float32

VECTORS: Final = (
    "tcp_to_head",
    "tcp_to_tail",
    "tcp_to_slot_mouth",
    "tcp_to_slot_end",
    "tcp_to_spot",
    "slot_mouth_to_head",
    "spot_to_head",
)
"""Differences of positions, base axes; each is three numbers."""

LENGTHS: Final = 3 * len(VECTORS) + 1
"""Metric numbers: the vectors, then the height of the TCP over the table (over the spot, which lies on it: a robot's
base may stand higher, and no camera tells by how much)."""

SCALES_M: Final = (0.100, 0.030, 0.008)
"""The first is linear, the others go through tanh: coarse everywhere, fine near contact."""

TARGET_DIM: Final = LENGTHS * len(SCALES_M) + 11
"""Metric numbers at each scale, bolt axis (3), gripper axes (6), jaw opening, bolt held."""

_JAW_OPEN_M: Final = 0.030
_TRUSTED: Final = 0.8


def lengths(labels: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "n 22"]:
    """The metric numbers of each frame (m)."""
    tcp = labels["ee_position"]
    head, tail, _, mouth, end, spot = np.moveaxis(labels["landmarks"], 1, 0)
    vectors = [
        head - tcp,
        tail - tcp,
        mouth - tcp,
        end - tcp,
        spot - tcp,
        head - mouth,
        head - spot,
    ]
    return np.concatenate([*vectors, (tcp - spot)[:, 2:3]], 1).astype(np.float32)


def geometry_targets(labels: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "n 77"]:
    """Regression targets of each frame, each of order 1."""
    metric = lengths(labels)
    coarse, middle, fine = SCALES_M
    parts = [
        metric / coarse,
        np.tanh(metric / middle),
        np.tanh(metric / fine),
        labels["bolt_rotation"][:, :, 2],
        labels["ee_rotation"][:, :, 0],
        labels["ee_rotation"][:, :, 2],
        labels["jaw_opening"][:, None] / _JAW_OPEN_M,
        labels["held"][:, None],
    ]
    return np.concatenate(parts, 1).astype(np.float32)


def lengths_from_targets(
    predicted: Float[np.ndarray, "n 77"],
) -> Float[np.ndarray, "n 22"]:
    """Metric numbers (m) that a prediction stands for, from the finest scale that is not saturated."""
    coarse, middle, fine = (predicted[:, i * LENGTHS : (i + 1) * LENGTHS] for i in range(3))
    from_fine = np.arctanh(np.clip(fine, -_TRUSTED, _TRUSTED)) * SCALES_M[2]
    from_middle = np.arctanh(np.clip(middle, -_TRUSTED, _TRUSTED)) * SCALES_M[1]
    rough = np.where(np.abs(middle) < _TRUSTED, from_middle, coarse * SCALES_M[0])
    return np.where(np.abs(fine) < _TRUSTED, from_fine, rough)
