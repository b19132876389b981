import numpy as np
import pytest

from hildaft.robots.judged import (
    JudgedRobot,
    KeyJudge,
    ProbabilityJudge,
    RuleJudge,
    SuccessJudge,
)
from hildaft.types import HilDaftError, Robot
from point_robot import PointRobot

STILL = np.zeros(7, dtype=np.float32)


def test_a_key_ends_the_episode_with_reward_1_at_the_step_under_way() -> None:
    key = KeyJudge()
    robot = JudgedRobot(PointRobot(), key, step_limit=10)
    assert isinstance(robot, Robot)
    assert isinstance(key, SuccessJudge)
    key.press()
    robot.reset("reach", 0)
    first = robot.step(STILL)
    assert (first.reward, first.terminated, first.truncated) == (0.0, False, False)
    key.press()
    second = robot.step(STILL)
    assert (second.reward, second.terminated, second.truncated) == (1.0, True, False)


def test_the_step_limit_truncates_and_never_hides_a_success() -> None:
    key = KeyJudge()
    robot = JudgedRobot(PointRobot(), key, step_limit=2)
    robot.reset("reach", 0)
    robot.step(STILL)
    late = robot.step(STILL)
    assert (late.reward, late.terminated, late.truncated) == (0.0, False, True)
    robot.reset("reach", 0)
    robot.step(STILL)
    key.press()
    assert robot.step(STILL).terminated


def test_a_rule_sees_task_and_observation_and_the_robots_own_reward_is_not_used() -> None:
    point = PointRobot()
    seen = []
    robot = JudgedRobot(point, RuleJudge(lambda task, obs: bool(seen.append(task))), step_limit=5)
    robot.reset("reach", 0)
    point.goal_m = point.position_m.copy()
    result = robot.step(STILL)
    # The point says it has arrived; the rule does not, and an ended robot cannot go on.
    assert (result.reward, result.terminated, result.truncated) == (0.0, False, True)
    assert seen == ["reach"]


def test_a_classifier_must_be_sure_for_a_streak() -> None:
    values = iter([0.9, 0.1, 0.9, 0.9, 0.9])
    judge = ProbabilityJudge(lambda task, obs: next(values), lambda task: (0.5, 2))
    robot = JudgedRobot(PointRobot(), judge, step_limit=9)
    robot.reset("reach", 0)
    assert [robot.step(STILL).terminated for _ in range(4)] == [False, False, False, True]
    robot.reset("reach", 0)
    assert not robot.step(STILL).terminated


def test_a_limit_of_no_steps_is_refused() -> None:
    with pytest.raises(HilDaftError, match="step_limit=0"):
        JudgedRobot(PointRobot(), KeyJudge(), step_limit=0)
