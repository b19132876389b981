import numpy as np
import pytest

from hildaft.robots.judged import (
    JudgeConfig,
    JudgedRobot,
    PersonJudge,
    ProbabilityJudge,
    RuleJudge,
    SuccessJudge,
)
from hildaft.types import HilDaftError, Robot
from point_robot import PointRobot

STILL = np.zeros(7, dtype=np.float32)


def test_a_person_alone_judges_and_the_step_limit_truncates() -> None:
    point, person = PointRobot(), PersonJudge()
    robot = JudgedRobot(point, person, step_limit=2)
    assert isinstance(robot, Robot)
    assert isinstance(person, SuccessJudge)
    robot.reset("reach", 0)
    first = robot.step(STILL)
    assert (first.reward, first.terminated, first.truncated) == (0.0, False, False)
    late = robot.step(STILL)
    assert (late.reward, late.terminated, late.truncated) == (0.0, False, True)


def test_the_step_limit_never_hides_a_success() -> None:
    values = iter([False, True])
    robot = JudgedRobot(PointRobot(), RuleJudge(lambda task, obs: next(values)), step_limit=2)
    robot.reset("reach", 0)
    robot.step(STILL)
    last = robot.step(STILL)
    assert (last.reward, last.terminated, last.truncated) == (1.0, True, False)


def test_a_person_may_say_not_yet_and_the_judge_starts_anew() -> None:
    answers, asked = iter([False, True]), []
    judge = ProbabilityJudge(lambda task, obs: 0.9, lambda task: (0.5, 2))

    def confirm() -> bool:
        asked.append(len(asked))
        return next(answers)

    robot = JudgedRobot(PointRobot(), judge, step_limit=9, confirm=confirm)
    robot.reset("reach", 0)
    # Two in a row are needed, each time.
    assert [robot.step(STILL).terminated for _ in range(4)] == [False, False, False, True]
    assert len(asked) == 2


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
        JudgedRobot(PointRobot(), PersonJudge(), step_limit=0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"by": "rule"}, "judge.rule='': it needs a value"),
        ({"classifier": "runs/x"}, "judge.classifier='runs/x': it is allowed only"),
        ({"by": "person", "confirm_s": -1.0}, "judge.confirm_s=-1.0"),
    ],
)
def test_a_judge_that_makes_no_sense_is_one_line(wrong, says) -> None:
    with pytest.raises(HilDaftError, match=says):
        JudgeConfig(**wrong)
