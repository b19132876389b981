"""Random still scenes of the bolt bench, for pretraining: no task, no episode, no physics.

The bolt lies, stands, leans, hangs in the air or is held; the gripper is somewhere around some landmark. Rail and
spot are anywhere near their usual places. Sampling happens in the table frame; what comes out is in base axes.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64

from hildaft.robots.bolt_sim.control import HOME_JOINTS
from hildaft.robots.bolt_sim.geometry import (
    DOWNWARD,
    lying_bolt,
    rotation_about,
    rotation_from_vector,
    standing_bolt,
)
from hildaft.robots.bolt_sim.model import (
    BOLT_LENGTH_M,
    HEAD_HALF_FLATS_M,
    JAW_OPEN_M,
    RAIL_LENGTH_M,
    SHAFT_RADIUS_M,
)
from hildaft.robots.bolt_sim.scene import BoltScene
from hildaft.robots.bolt_sim.tasks import SPACING_M
from hildaft.types import SceneState

LANDMARKS: Final = ("head", "tail", "middle", "slot_mouth", "slot_end", "spot")
"""Points that gripper and held bolt are placed around, in the order of `landmarks`."""

SITUATIONS: Final = {
    "near_head": 0.05,
    "near_tail": 0.06,
    "near_middle": 0.05,
    "near_slot_mouth": 0.05,
    "near_slot_end": 0.02,
    "near_spot": 0.06,
    "grasp_lying": 0.14,
    "grasp_standing": 0.13,
    "grasp_in_slot": 0.04,
    "held_at_mouth": 0.08,
    "held_in_slot": 0.08,
    "held_at_spot": 0.06,
    "held_anywhere": 0.05,
    "erect_at_spot": 0.09,
    "erect_anywhere": 0.04,
}
"""Share of each kind of scene: free gripper near a landmark; jaws about to grasp, or just let go; bolt in the jaws, its
head near a landmark; the same with the bolt upright or being turned up."""

_NEAR_SHARE: Final = 0.6
_NEAR_M: Final = (0.002, 0.030)
_FAR_M: Final = (0.030, 0.150)
_RAIL_CENTRE_M: Final = np.array([0.50, 0.10])
_RAIL_SPREAD_M: Final = 0.06
_BOLT_LOW_M: Final = np.array([0.37, -0.23])
_BOLT_HIGH_M: Final = np.array([0.61, 0.08])
_SPOT_LOW_M: Final = np.array([0.40, -0.20])
_SPOT_HIGH_M: Final = np.array([0.63, 0.06])
_TCP_LOW_M: Final = np.array([0.30, -0.27, 0.008])
_TCP_HIGH_M: Final = np.array([0.65, 0.33, 0.26])
_MAX_RESIDUAL: Final = 1e-3
_SOLVER_ITERATIONS: Final = 10
_MAX_PENETRATION_M: Final = 0.0012
_GRIP_SQUEEZE_M: Final = 0.0002
_MAX_DRAWS: Final = 200
_ASSEMBLED_SHARE: Final = 0.4
"""Share of the scenes with bolts in the rail already, where there are bolts for it."""
_IN_RAIL_M: Final = 0.030
_UP: Final = np.array([0.0, 0.0, 1.0])

Vector = Float64[np.ndarray, "3"]
Matrix = Float64[np.ndarray, "3 3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where everything is put, in the table frame."""

    tcp_position_m: Vector
    tcp_rotation: Matrix
    jaw_opening_m: float
    jaw_closed: bool
    bolt_position_m: Vector
    bolt_rotation: Matrix
    slot_position_m: Vector
    spot_position_m: Vector


def landmarks(state: SceneState) -> Float64[np.ndarray, "6 3"]:
    """The `LANDMARKS` of a scene, in base axes (m)."""
    return _landmark_points(
        state.bolt_position_m,
        state.bolt_rotation,
        state.slot_position_m,
        state.slot_rotation[:, 1],
        state.spot_position_m,
    )


def place_random_scene(scene: BoltScene, rng: np.random.Generator, *, jitter: bool) -> SceneState:
    """Draws placements until the arm reaches one and nothing penetrates, and sets the scene to it.

    With `jitter` cameras, colours and light are disturbed too. Bolts beyond the scene's first stand assembled in the
    rail, as later in a chain, or are out of sight. Equal generators give equal scenes.
    """
    if jitter:
        scene.randomise_look(rng)
    else:
        scene.reset_look()
    # Fixed before the first draw: what is rejected often (close to the rail) would be rare otherwise.
    situation = str(rng.choice(list(SITUATIONS), p=list(SITUATIONS.values())))
    some = scene.bolts > 1 and rng.random() < _ASSEMBLED_SHARE
    assembled = int(rng.integers(1, scene.bolts)) if some else 0
    for _ in range(_MAX_DRAWS):
        placement = draw_placement(rng, situation)
        _place_assembled(scene, rng, placement, assembled)
        if _accept(scene, placement):
            break
    else:
        msg = f"no valid scene in {_MAX_DRAWS} draws"
        raise RuntimeError(msg)
    return scene.scene_state("", success=False)


def draw_placement(rng: np.random.Generator, situation: str) -> Placement:
    """One placement of a situation (a key of `SITUATIONS`), unchecked."""
    slot = np.append(_RAIL_CENTRE_M + rng.uniform(-_RAIL_SPREAD_M, _RAIL_SPREAD_M, 2), 0.0)
    spot = np.append(rng.uniform(_SPOT_LOW_M, _SPOT_HIGH_M), 0.0005)
    kind, _, place = situation.partition("_")
    if kind == "grasp":
        return _draw_grasp(rng, place, slot, spot)
    if kind in ("held", "erect"):
        return _draw_held(rng, situation, slot, spot)
    return _draw_free(rng, place, slot, spot)


def _place_assembled(
    scene: BoltScene, rng: np.random.Generator, placement: Placement, count: int
) -> None:
    """Up to `count` bolts stand in the rail in a row; a new one pushes them on, so it comes before them."""
    slot = placement.slot_position_m
    across, depth, height = placement.bolt_position_m - slot
    depth_m = rng.uniform(0.013, 0.050)
    if abs(across) < _IN_RAIL_M and height < _IN_RAIL_M and depth > -_IN_RAIL_M:
        depth_m = max(depth_m, depth + rng.uniform(*SPACING_M))
    for index in range(1, scene.bolts):
        if index > count or depth_m > RAIL_LENGTH_M - HEAD_HALF_FLATS_M:
            scene.park_bolt(index)
            continue
        xy = slot[:2] + np.array([rng.normal(0.0, 0.0005), depth_m])
        position, rotation = standing_bolt(xy, rng.uniform(-math.pi, math.pi))
        scene.place_bolt(
            index, scene.base_from_table(position), scene.base_rotation_from_table(rotation)
        )
        depth_m += rng.uniform(*SPACING_M)


def _draw_free(rng: np.random.Generator, landmark: str, slot: Vector, spot: Vector) -> Placement:
    position, rotation = _draw_bolt(rng, slot)
    points = _landmark_points(position, rotation, slot, np.array([0.0, 1.0, 0.0]), spot)
    closed = bool(rng.random() < 0.35)
    opening = JAW_OPEN_M if rng.random() < 0.6 else rng.uniform(0.0, JAW_OPEN_M)
    if closed:
        opening = 0.0 if rng.random() < 0.6 else rng.uniform(0.0, JAW_OPEN_M)
    return Placement(
        tcp_position_m=points[LANDMARKS.index(landmark)] + _draw_offset(rng),
        tcp_rotation=_draw_gripper_rotation(rng),
        jaw_opening_m=float(opening),
        jaw_closed=closed,
        bolt_position_m=position,
        bolt_rotation=rotation,
        slot_position_m=slot,
        spot_position_m=spot,
    )


def _draw_grasp(rng: np.random.Generator, bolt: str, slot: Vector, spot: Vector) -> Placement:
    """Jaws about to close on a resting bolt, or just opened: aligned with it and off by a little or some way."""
    xy, side = rng.uniform(_BOLT_LOW_M, _BOLT_HIGH_M), 0.0
    if bolt == "lying":
        turn = rng.uniform(-0.4, 0.4)
        position, rotation = lying_bolt(xy, turn)
    else:
        if bolt == "in_slot":
            xy = slot[:2] + np.array(
                [rng.normal(0.0, 0.0008), rng.uniform(0.0, RAIL_LENGTH_M - 0.01)]
            )
        turn = rng.normal(0.0, 0.08)
        side = math.pi / 2 if rng.random() < 0.4 else 0.0
        position, rotation = standing_bolt(xy, rng.uniform(-math.pi, math.pi))
    if bolt == "standing" and rng.random() < 0.7:
        spot = position + _draw_near(rng, 0.001, 0.030) * np.array([1.0, 1.0, 0.0]) + spot[2] * _UP
    gripper = rotation_about(2, turn + rng.normal(0.0, 0.05)) @ rotation_about(0, side) @ DOWNWARD
    gripper = rotation_from_vector(rng.normal(0.0, 0.04, 3)) @ gripper
    low, high = (0.0005, 0.008) if rng.random() < 0.5 else (0.008, 0.060)
    offset = _draw_near(rng, low, high)
    if float(offset @ gripper[:, 2]) > 0.0 and rng.random() < 0.8:
        offset = -offset
    opening = JAW_OPEN_M if rng.random() < 0.75 else rng.uniform(2 * SHAFT_RADIUS_M, JAW_OPEN_M)
    return Placement(
        tcp_position_m=position + rng.uniform(0.022, 0.054) * rotation[:, 2] + offset,
        tcp_rotation=gripper,
        jaw_opening_m=float(opening),
        jaw_closed=bool(rng.random() < 0.25),
        bolt_position_m=position,
        bolt_rotation=rotation,
        slot_position_m=slot,
        spot_position_m=spot,
    )


def _draw_direction(rng: np.random.Generator) -> Vector:
    direction = rng.normal(size=3)
    return direction / np.linalg.norm(direction)


def _draw_near(rng: np.random.Generator, low: float, high: float) -> Vector:
    """Any direction, log-uniform length."""
    return _draw_direction(rng) * math.exp(rng.uniform(math.log(low), math.log(high)))


def _draw_hold(rng: np.random.Generator, situation: str) -> tuple[Matrix, float]:
    """Rotation of the gripper, and the shaft's swing from lying back along the approach; minus the tilt is upright."""
    if situation.startswith("erect"):
        tilt = rng.uniform(0.0, math.radians(95))
        kind = rng.random()
        if kind < 0.35:
            tilt = math.pi / 2 + rng.normal(0.0, 0.08)
        elif kind < 0.5:
            tilt = rng.normal(0.0, 0.06)
        # A lying bolt is gripped across the shaft and turned up by the hand; some slip in between.
        turning = rng.random() < 0.5
        swing = -math.pi / 2 if turning else -tilt + rng.normal(0.0, 0.12)
        swing += rng.normal(0.0, 0.06)
        gripper = rotation_about(2, rng.normal(0.0, 0.15)) @ rotation_about(0, tilt) @ DOWNWARD
        return rotation_from_vector(rng.normal(0.0, 0.04, 3)) @ gripper, swing
    if situation == "held_in_slot" or (situation == "held_at_mouth" and rng.random() < 0.6):
        # Nothing but an upright bolt fits: from above mostly, from the side sometimes.
        side = math.pi / 2 if rng.random() < 0.15 else 0.0
        gripper = rotation_from_vector(rng.normal(0.0, 0.03, 3)) @ rotation_about(0, side)
        return gripper @ DOWNWARD, -side + rng.normal(0.0, 0.03)
    swing = rng.uniform(-math.pi / 2, math.pi / 2)
    aligned = rng.random()
    if aligned < 0.45:
        swing = rng.normal(0.0, 0.04)
    elif aligned < 0.65:
        swing = -math.pi / 2 + rng.normal(0.0, 0.06)
    return _draw_gripper_rotation(rng), swing


def _draw_held(rng: np.random.Generator, situation: str, slot: Vector, spot: Vector) -> Placement:
    gripper, swing = _draw_hold(rng, situation)
    # The shaft passes between the pads: its axis is perpendicular to the closing direction.
    grip_axis = np.array([0.0, math.sin(swing), -math.cos(swing)])
    bolt = gripper @ _rotation_to(grip_axis, rng.uniform(-math.pi, math.pi))
    bolt = rotation_from_vector(rng.normal(0.0, 0.02, 3)) @ bolt
    along = rng.uniform(0.024, 0.052)
    slip = gripper @ np.array([0.0, rng.normal(0.0, 0.0015), rng.normal(0.0, 0.002)])
    head = _draw_held_head(rng, situation, slot, spot)
    return Placement(
        tcp_position_m=head + along * bolt[:, 2] + slip,
        tcp_rotation=gripper,
        jaw_opening_m=2 * SHAFT_RADIUS_M - _GRIP_SQUEEZE_M,
        jaw_closed=bool(rng.random() < 0.9),
        bolt_position_m=head,
        bolt_rotation=bolt,
        slot_position_m=slot,
        spot_position_m=spot,
    )


def _draw_held_head(rng: np.random.Generator, situation: str, slot: Vector, spot: Vector) -> Vector:
    """Where the head of a held bolt is."""
    offset = _draw_offset(rng)
    if situation == "held_at_mouth":
        offset[1] = -abs(offset[1]) if rng.random() < 0.8 else offset[1]
        return slot + offset * np.array([1.0, 1.0, rng.choice((0.2, 1.0))])
    if situation == "held_in_slot":
        depth = rng.uniform(0.0, RAIL_LENGTH_M - 0.01)
        return slot + np.array([rng.normal(0.0, 0.001), depth, rng.uniform(0.0, 0.004)])
    if situation == "held_at_spot":
        return spot + offset
    if situation == "erect_at_spot":
        return spot + _draw_near(rng, 0.001, 0.060) * np.array([1.0, 1.0, rng.choice((0.1, 1.0))])
    return np.append(rng.uniform(_BOLT_LOW_M, _BOLT_HIGH_M), rng.uniform(0.0, 0.15))


def _draw_bolt(rng: np.random.Generator, slot: Vector) -> tuple[Vector, Matrix]:
    """A bolt that nobody holds."""
    xy = rng.uniform(_BOLT_LOW_M, _BOLT_HIGH_M)
    kind = rng.random()
    if kind < 0.45:
        yaw = rng.uniform(-0.35, 0.35) if rng.random() < 0.6 else rng.uniform(-math.pi, math.pi)
        return lying_bolt(xy, yaw)
    yaw = rng.uniform(-math.pi, math.pi)
    if kind < 0.70:
        return standing_bolt(xy, yaw)
    if kind < 0.77:
        depth = np.array([rng.normal(0.0, 0.0008), rng.uniform(0.0, RAIL_LENGTH_M - 0.01)])
        return standing_bolt(slot[:2] + depth, yaw)
    heading = rng.uniform(-math.pi, math.pi)
    lean = rotation_from_vector(
        rng.uniform(0.0, math.pi * 0.6) * np.array([math.cos(heading), math.sin(heading), 0.0])
    )
    # High enough that the rim of the leaning head just touches the table.
    height = HEAD_HALF_FLATS_M * math.sqrt(max(0.0, 1.0 - lean[2, 2] ** 2))
    height += max(0.0, -lean[2, 2]) * BOLT_LENGTH_M
    height += rng.uniform(0.0, 0.15) if rng.random() < 0.4 else 0.0
    return np.append(xy, height), lean @ rotation_about(2, yaw)


def _draw_gripper_rotation(rng: np.random.Generator) -> Matrix:
    """Pointing down, or tilted about the table's x up to 95 degrees towards +y, and a little turned."""
    kind = rng.random()
    tilt = rng.uniform(0.0, math.radians(95))
    if kind < 0.5:
        tilt = rng.normal(0.0, 0.04)
    elif kind < 0.65:
        tilt = math.pi / 2 + rng.normal(0.0, 0.05)
    yaw = rng.normal(0.0, 0.08) if rng.random() < 0.6 else rng.uniform(-0.45, 0.45)
    small = rotation_from_vector(rng.normal(0.0, 0.05, 3))
    return small @ rotation_about(2, yaw) @ rotation_about(0, tilt) @ DOWNWARD


def _draw_offset(rng: np.random.Generator) -> Vector:
    """Log-uniform 2 to 150 mm in any direction, 60 % of them within 30 mm."""
    low, high = _NEAR_M if rng.random() < _NEAR_SHARE else _FAR_M
    direction = _draw_direction(rng)
    if rng.random() < 0.7:
        direction[2] = abs(direction[2])
    return direction * math.exp(rng.uniform(math.log(low), math.log(high)))


def _rotation_to(axis: Vector, spin: float) -> Matrix:
    """A rotation whose third column is `axis`, spun about it."""
    side = np.array([1.0, 0.0, 0.0])
    frame = np.stack([side, np.cross(axis, side), axis], axis=1)
    return frame @ rotation_about(2, spin)


def _landmark_points(
    bolt: Vector, rotation: Matrix, slot: Vector, into_slot: Vector, spot: Vector
) -> Float64[np.ndarray, "6 3"]:
    axis = rotation[:, 2] * BOLT_LENGTH_M
    return np.stack(
        [bolt, bolt + axis, bolt + axis / 2, slot, slot + into_slot * RAIL_LENGTH_M, spot]
    )


def _accept(scene: BoltScene, placement: Placement) -> bool:
    """Sets the scene; False where the arm does not reach it or things overlap by more than 1.2 mm."""
    tcp = placement.tcp_position_m
    if (tcp < _TCP_LOW_M).any() or (tcp > _TCP_HIGH_M).any():
        return False
    tail = placement.bolt_position_m + BOLT_LENGTH_M * placement.bolt_rotation[:, 2]
    if min(tail[2], placement.bolt_position_m[2]) < -1e-4:
        return False
    scene.place_bolt(
        0,
        scene.base_from_table(placement.bolt_position_m),
        scene.base_rotation_from_table(placement.bolt_rotation),
    )
    scene.place_fixture(scene.base_from_table(placement.slot_position_m), -scene.base_yaw_rad)
    scene.place_spot(scene.base_from_table(placement.spot_position_m))
    # `BoltScene.place` solves to the last micrometre; a label needs what was reached, not what was asked.
    joints, residual = scene.control.solve(
        tcp, placement.tcp_rotation, HOME_JOINTS, _SOLVER_ITERATIONS
    )
    if residual > _MAX_RESIDUAL:
        return False
    scene.data.qpos[:7] = joints
    scene.data.qpos[7:9] = placement.jaw_opening_m / 2
    scene.control.closed = placement.jaw_closed
    scene.settle()
    depth = scene.data.contact.dist
    return not (len(depth) and float(depth.min()) < -_MAX_PENETRATION_M)
