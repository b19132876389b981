"""Why a task of the bolt bench was not done: one reason out of a short list, from the true states of its steps."""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import numpy as np

from hildaft.robots.bolt_sim.geometry import tilt_rad
from hildaft.robots.bolt_sim.model import BOLT_LENGTH_M
from hildaft.robots.bolt_sim.tasks import PICK_GRIP_M, UPRIGHT_GRIP_M, UPRIGHT_SPOT_M
from hildaft.types import SceneState

Reason: TypeAlias = Literal[
    "never gripped",
    "gripped outside the band",
    "dropped",
    "knocked over",
    "set down beside the goal",
    "still carrying",
    "done, not held long enough",
]
"""In words for a table. "still carrying": the bolt was in the hand when the steps ran out."""

FALLEN_RAD: Final = np.radians(20.0)
_NEAR_M: Final = {"upright": UPRIGHT_SPOT_M, "assemble": 0.006}


def explain_failure(states: Sequence[SceneState]) -> Reason:
    """The reason, from the states before each step and the one after the last.

    Args:
        states: at least one, all of one task that was not solved.
    """
    task, last = states[0].task, states[-1]
    held = [state for state in states if state.bolt_held and state.jaw_closed]
    fallen = tilt_rad(last.bolt_rotation) > FALLEN_RAD
    if not held:
        return "knocked over" if fallen and task == "pick" else "never gripped"
    if task != "assemble" and not _in_band(held[-1]):
        return "gripped outside the band"
    if last.bolt_held:
        return "still carrying"
    if fallen:
        return "dropped"
    if task == "pick":
        return "dropped"
    goal = last.spot_position_m if task == "upright" else last.slot_position_m
    offset = last.bolt_position_m - goal
    # Along the rail any depth past the mouth is good; beside it none is.
    across = last.slot_rotation[:, 0] @ offset if task == "assemble" else np.hypot(*offset[:2])
    if abs(float(across)) > _NEAR_M[task]:
        return "set down beside the goal"
    return "done, not held long enough" if _is_deep(last) else "set down beside the goal"


def _in_band(state: SceneState) -> bool:
    """Whether the grip is where the task wants it along the bolt's axis."""
    grip = float((state.ee_position_m - state.bolt_position_m) @ state.bolt_rotation[:, 2])
    if state.task == "pick":
        return PICK_GRIP_M[0] <= grip <= PICK_GRIP_M[1]
    return UPRIGHT_GRIP_M[0] <= BOLT_LENGTH_M - grip <= UPRIGHT_GRIP_M[1]


def _is_deep(state: SceneState) -> bool:
    if state.task != "assemble":
        return True
    along = float(state.slot_rotation[:, 1] @ (state.bolt_position_m - state.slot_position_m))
    return along > 0.015
