"""Random benches for pretraining: other mountings, cameras and colours than robot A's, drawn anew each time."""

import math
from typing import Final

import numpy as np

from hildaft.robots.bolt_sim.model import Rgb, RobotLook

_TARGET_M: Final = (0.48, -0.02, 0.05)
_AZIMUTH_DEG: Final = (-30.0, 200.0)
"""Of the head camera seen from what it looks at, from +x towards +y: the rest is behind the arm."""


def draw_look(rng: np.random.Generator) -> RobotLook:
    """A robot's mounting, its cameras and all colours; bolts, spot and pads look alike on every bench."""
    base = (rng.uniform(-0.04, 0.04), rng.uniform(-0.40, -0.24), rng.uniform(0.0, 0.08))
    target = np.array(_TARGET_M) + rng.uniform(-0.03, 0.03, 3) * np.array([1.0, 1.0, 0.5])
    azimuth = math.radians(rng.uniform(*_AZIMUTH_DEG))
    elevation = math.radians(rng.uniform(36.0, 58.0))
    direction = np.array(
        [
            math.cos(elevation) * math.cos(azimuth),
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
        ]
    )
    distance = rng.uniform(0.66, 0.88)
    head = target + distance * direction
    # Farther cameras look through narrower lenses, so that the work fills the picture.
    fovy = math.degrees(2 * math.atan(rng.uniform(0.175, 0.235) / distance))
    table = _colour(rng)
    line = np.clip(np.array(table) + rng.uniform(-0.15, 0.15), 0.02, 1.0)
    return RobotLook(
        base_position_m=base,
        base_yaw_rad=math.radians(rng.uniform(10.0, 60.0)),
        head_position_m=_triple(head),
        head_target_m=_triple(target),
        head_fovy_deg=fovy,
        wrist_offset_m=_triple(rng.uniform(-0.010, 0.010, 3)),
        wall_side=float(rng.choice((-1.0, 1.0))),
        table=table,
        table_line=_triple(line),
        floor=_colour(rng),
        link=_colour(rng),
        joint=_colour(rng),
        hand=_colour(rng),
        rail=_colour(rng),
        wall=_colour(rng),
    )


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z


def _colour(rng: np.random.Generator) -> Rgb:
    """Greys half of the time, any colour otherwise."""
    grey = rng.uniform(0.08, 0.9)
    tint = 0.06 if rng.random() < 0.5 else 0.4
    return _triple(np.clip(grey + rng.uniform(-tint, tint, 3), 0.02, 1.0))
