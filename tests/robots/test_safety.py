"""What passes through SafeRobot is finite and bounded, and the robot is stopped whatever happens."""

from typing import final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hildaft.robots.safety import SafeRobot, SafetyLimits
from hildaft.types import Action, ActionScale, HilDaftError, Observation, StepResult


@final
class RecordingRobot:
    """A robot of arithmetic alone: remembers the actions it was given."""

    def __init__(self, closed: bool = False, breaks: bool = False) -> None:
        self.actions: list[Action] = []
        self.stops = 0
        self._closed = closed
        self._breaks = breaks

    name = "recording"
    action_scale = ActionScale()

    def _observation(self) -> Observation:
        return Observation(
            images={}, proprio=np.array([0.3, float(self._closed)], dtype=np.float32)
        )

    def reset(self, task: str, seed: int) -> Observation:
        return self._observation()

    def step(self, action: Action) -> StepResult:
        if self._breaks:
            raise ConnectionError("lost")
        self.actions.append(action)
        return StepResult(self._observation(), 0.0, terminated=False, truncated=False)

    def stop(self) -> None:
        self.stops += 1


any_float = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(arrays(np.float32, 7, elements=any_float))
def test_only_finite_bounded_actions_reach_the_robot(action: Action) -> None:
    robot = RecordingRobot()
    safe = SafeRobot(robot, SafetyLimits(translation=0.5, rotation=0.25))
    safe.reset("pick", 0)
    safe.step(action)
    (sent,) = robot.actions
    assert np.isfinite(sent).all()
    assert np.abs(sent[:3]).max() <= 0.5
    assert np.abs(sent[3:6]).max() <= 0.25
    assert abs(sent[6]) <= 1.0
    assert safe.refused == int(not np.isfinite(action).all())
    if np.isfinite(action).all() and np.abs(action).max() <= 0.25:
        np.testing.assert_array_equal(sent, action)
        assert safe.clipped == 0


@pytest.mark.parametrize(("closed", "expected"), [(True, 1.0), (False, -1.0)])
def test_a_refused_action_keeps_the_jaws_as_they_were(closed: bool, expected: float) -> None:
    robot = RecordingRobot(closed=closed)
    safe = SafeRobot(robot)
    safe.reset("assemble", 0)
    safe.step(np.full(7, np.nan, dtype=np.float32))
    np.testing.assert_array_equal(robot.actions[0], [0, 0, 0, 0, 0, 0, expected])


def test_leaving_the_block_stops_the_robot_also_after_an_error() -> None:
    robot = RecordingRobot()
    with pytest.raises(KeyError), SafeRobot(robot):
        raise KeyError
    assert robot.stops == 1


def test_a_failing_step_stops_the_robot_and_is_reported() -> None:
    robot = RecordingRobot(breaks=True)
    safe = SafeRobot(robot)
    safe.reset("pick", 0)
    with pytest.raises(ConnectionError):
        safe.step(np.zeros(7, dtype=np.float32))
    assert robot.stops == 1


@pytest.mark.parametrize("value", [0.0, -1.0, 1.5, float("nan")])
def test_limits_out_of_range_are_one_clear_line(value: float) -> None:
    with pytest.raises(HilDaftError, match=r"SafetyLimits\.rotation=.* is allowed"):
        SafetyLimits(rotation=value)
