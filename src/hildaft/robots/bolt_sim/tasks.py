"""The three tasks of the bolt bench: where an episode starts, and when it has succeeded.

All poses here are in the table frame. Each task is tight on purpose: a few millimetres of error fail it
(docs/bench.md has the measured tolerances).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, final, get_args

import numpy as np
from jaxtyping import Float64

from hildaft.robots.bolt_sim.geometry import (
    DOWNWARD,
    lying_bolt,
    rotation_about,
    standing_bolt,
    tilt_rad,
)
from hildaft.robots.bolt_sim.model import BOLT_LENGTH_M, JAW_OPEN_M, RAIL_LENGTH_M, SHAFT_RADIUS_M
from hildaft.robots.bolt_sim.scene import BoltScene
from hildaft.types import HilDaftError

TaskName: TypeAlias = Literal["upright", "pick", "assemble"]
TASKS: Final[tuple[TaskName, ...]] = get_args(TaskName)

START_RANGE_M: Final = 0.05
"""Uniform range, either way, of the TCP's and the object's start in x and y (Sec. V-A)."""
FIXTURE_RANGE_M: Final = 0.03
RAIL_MOUTH_M: Final = np.array([0.50, 0.10, 0.0])

UPRIGHT_GRIP_M: Final = (0.005, 0.015)
"""`upright`: where along the shaft, from the tail's end, the bolt must have been gripped."""
UPRIGHT_SPOT_M: Final = 0.010
"""`upright`: how far from the marked spot's centre the bolt may stand."""
PICK_GRIP_M: Final = (0.0355, 0.0445)
"""`pick`: height of the grip above the head's bottom face."""
PICK_LIFT_M: Final = 0.050
SLOT_DEPTH_M: Final = (0.015, RAIL_LENGTH_M)
"""`assemble`: how far past the slot's mouth the bolt must stand."""
_FIRST_M: Final = (0.016, 0.045)
"""How far past the mouth the first of the bolts that are in the rail already stands."""
SPACING_M: Final = (0.0235, 0.0285)
"""From one bolt in the rail to the next; heads that touch are 22 mm apart."""


def check_task(task: str) -> TaskName:
    """Returns the task's name, typed; raises HilDaftError for an unknown one."""
    if task not in TASKS:
        msg = f"bolt bench task={task!r}: {', '.join(TASKS)} is allowed"
        raise HilDaftError(msg)
    return task


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where everything is when an episode begins (table frame)."""

    tcp_position_m: Float64[np.ndarray, "3"]
    jaw_opening_m: float
    jaw_closed: bool
    bolt_position_m: Float64[np.ndarray, "3"]
    bolt_rotation: Float64[np.ndarray, "3 3"]
    slot_position_m: Float64[np.ndarray, "3"]
    spot_position_m: Float64[np.ndarray, "3"]
    assembled: tuple[tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3 3"]], ...]
    """Poses of the bolts that stand in the rail already, as later in a chain."""


def sample_start(
    task: TaskName, rng: np.random.Generator, spare: int = 0, assembled: int | None = None
) -> Start:
    """Draws a start state of a task.

    Args:
        task: which.
        rng: what it is drawn from.
        spare: bolts beside the one that the task is about.
        assembled: how many of them stand in the rail; any number, all as likely, where it is None.
    """

    def around(centre: tuple[float, float], reach: float) -> Float64[np.ndarray, "2"]:
        return np.array(centre) + rng.uniform(-reach, reach, 2)

    slot = RAIL_MOUTH_M + np.array([*rng.uniform(-FIXTURE_RANGE_M, FIXTURE_RANGE_M, 2), 0.0])
    jaw, closed = JAW_OPEN_M, False
    spot = around((0.53, -0.09), 0.015)
    tcp = np.array([*around((0.46, -0.09), START_RANGE_M), 0.13 + rng.uniform(-0.02, 0.02)])
    if task == "upright":
        head = around((0.44, -0.12), START_RANGE_M)
        position, rotation = lying_bolt(head, float(rng.uniform(-0.3, 0.3)))
    elif task == "pick":
        head = around((0.50, -0.09), START_RANGE_M)
        tcp = np.array([*around((0.50, -0.09), START_RANGE_M), 0.15 + rng.uniform(-0.02, 0.02)])
        # The bolt stands where `upright` would have left it: near the spot's centre.
        spot = head + rng.uniform(-0.004, 0.004, 2)
        position, rotation = standing_bolt(head, float(rng.uniform(-np.pi, np.pi)))
    else:
        jaw, closed = 2 * SHAFT_RADIUS_M, True
        offset = around((0.0, -0.085), START_RANGE_M)
        tcp = RAIL_MOUTH_M + np.array([*offset, 0.11 + rng.uniform(-0.015, 0.015)])
        position = tcp - np.array([0.0, 0.0, 0.040 + rng.uniform(-0.003, 0.003)])
        rotation = rotation_about(2, float(rng.uniform(-np.pi, np.pi)))
    return Start(
        tcp_position_m=tcp,
        jaw_opening_m=jaw,
        jaw_closed=closed,
        bolt_position_m=position,
        bolt_rotation=rotation,
        slot_position_m=slot,
        spot_position_m=np.array([*spot, 0.0]),
        assembled=tuple(_sample_assembled(rng, slot, spare, assembled)),
    )


def _sample_assembled(
    rng: np.random.Generator, slot: Float64[np.ndarray, "3"], spare: int, count: int | None
) -> Iterator[tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3 3"]]]:
    wanted = int(rng.integers(spare + 1)) if count is None else count
    depth_m = rng.uniform(*_FIRST_M)
    for _ in range(wanted):
        xy = slot[:2] + np.array([rng.normal(0.0, 0.0005), depth_m])
        yield standing_bolt(xy, rng.uniform(-np.pi, np.pi))
        depth_m += rng.uniform(*SPACING_M)


def place_start(scene: BoltScene, start: Start) -> float:
    """Puts a start state into the scene and lets it settle; returns the arm's residual."""
    to_base = scene.base_from_table
    residual = scene.place(
        to_base(start.tcp_position_m),
        scene.base_rotation_from_table(DOWNWARD),
        start.jaw_opening_m,
        to_base(start.bolt_position_m),
        scene.base_rotation_from_table(start.bolt_rotation),
        to_base(start.slot_position_m),
        -scene.base_yaw_rad,
        to_base(start.spot_position_m),
        start.jaw_closed,
    )
    for index, (position, rotation) in enumerate(start.assembled, 1):
        scene.place_bolt(index, to_base(position), scene.base_rotation_from_table(rotation))
    scene.settle()
    scene.control.hold()
    return residual


@final
class Judge:
    """Decides success from the true state, step by step; one per episode and task."""

    def __init__(self, scene: BoltScene, task: TaskName) -> None:
        self._scene = scene
        self._task: TaskName = task
        self._bolt = scene.active_bolt
        self.grip_m: float | None = None
        """TCP along the bolt's axis, from the head's bottom face, when last held off the floor."""

    def holds(self) -> bool:
        """Whether the task's goal holds now; call it once after every control step."""
        scene = self._scene
        position, rotation = scene.bolt_pose_table(self._bolt)
        right, left, other = scene.touching(self._bolt)
        tcp = scene.control.tcp_position_m
        if right and left and scene.control.closed:
            self.grip_m = float((tcp - position) @ rotation[:, 2])
        tilt = tilt_rad(rotation)
        if self._task == "pick":
            return (
                right
                and left
                and scene.control.closed
                and not other
                and float(position[2]) > PICK_LIFT_M
                and tilt < math.radians(20)
                and PICK_GRIP_M[0] <= (self.grip_m or 0.0) <= PICK_GRIP_M[1]
            )
        linear, angular = scene.bolt_speed(self._bolt)
        at_rest = linear < 0.02 and angular < 0.3
        released = not right and not left and other and at_rest
        if self._task == "upright":
            from_tail = BOLT_LENGTH_M - self.grip_m if self.grip_m is not None else 0.0
            off = float(np.linalg.norm(position[:2] - scene.spot_position_table_m[:2]))
            return (
                released
                and tilt < math.radians(5)
                and abs(float(position[2])) < 0.002
                and UPRIGHT_GRIP_M[0] <= from_tail <= UPRIGHT_GRIP_M[1]
                and off < UPRIGHT_SPOT_M
            )
        across, along, height = position - scene.slot_position_table_m
        return (
            released
            and tilt < math.radians(10)
            and abs(float(across)) < 0.006
            and SLOT_DEPTH_M[0] < float(along) < SLOT_DEPTH_M[1]
            and float(height) < 0.004
        )
