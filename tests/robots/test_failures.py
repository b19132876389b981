"""Each reason from a scene that was made to have it."""

from dataclasses import replace

import numpy as np
import pytest

from hildaft.robots.bolt_sim.failures import explain_failure
from hildaft.robots.bolt_sim.model import BOLT_LENGTH_M
from hildaft.types import SceneState

UP = np.eye(3)
LYING = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
GOOD_GRIP = {"upright": BOLT_LENGTH_M - 0.010, "pick": 0.040, "assemble": 0.040}


def state(
    task: str, *, held: bool = False, grip_m: float | None = None, **changes: object
) -> SceneState:
    bolt = np.array([0.4, 0.0, 0.0])
    grip = GOOD_GRIP[task] if grip_m is None else grip_m
    made = SceneState(
        task=task,
        ee_position_m=bolt + np.array([0.0, 0.0, grip]),
        ee_rotation=np.eye(3),
        jaw_opening_m=0.008 if held else 0.05,
        jaw_closed=held,
        bolt_position_m=bolt,
        bolt_rotation=UP,
        bolt_held=held,
        slot_position_m=np.array([0.4, -0.02, 0.0]),
        slot_rotation=np.eye(3),
        spot_position_m=bolt,
        success=False,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ([state("upright", bolt_rotation=LYING)] * 2, "never gripped"),
        ([state("pick")], "never gripped"),
        ([state("pick"), state("pick", bolt_rotation=LYING)], "knocked over"),
        ([state("pick", held=True, grip_m=0.030)], "gripped outside the band"),
        ([state("upright", held=True, grip_m=BOLT_LENGTH_M - 0.02)], "gripped outside the band"),
        ([state("pick", held=True)], "still carrying"),
        ([state("pick", held=True), state("pick")], "dropped"),
        ([state("upright", held=True)] * 3, "still carrying"),
        ([state("upright", held=True), state("upright", bolt_rotation=LYING)], "dropped"),
        (
            [
                state("upright", held=True),
                state("upright", spot_position_m=np.array([0.42, 0.0, 0.0])),
            ],
            "set down beside the goal",
        ),
        ([state("upright", held=True), state("upright")], "done, not held long enough"),
        ([state("assemble", held=True), state("assemble")], "done, not held long enough"),
        (
            [
                state("assemble", held=True),
                state("assemble", slot_position_m=np.array([0.41, -0.02, 0.0])),
            ],
            "set down beside the goal",
        ),
        (
            [
                state("assemble", held=True),
                state("assemble", slot_position_m=np.array([0.4, -0.01, 0.0])),
            ],
            "set down beside the goal",
        ),
        ([state("assemble", held=True), state("assemble", bolt_rotation=LYING)], "dropped"),
    ],
)
def test_reason(states: list[SceneState], reason: str) -> None:
    assert explain_failure(states) == reason


def test_a_grip_is_judged_when_last_held() -> None:
    bad, good = state("pick", held=True, grip_m=0.030), state("pick", held=True)
    assert explain_failure([bad, good]) == "still carrying"
    assert explain_failure([good, bad]) == "gripped outside the band"
