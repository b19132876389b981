"""An environment that differs from ours in every respect is driven, checked and trained on by its config alone."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hildaft.config_files import read_environment
from hildaft.robots.gym_check import check_environment
from hildaft.robots.gym_config import GymAction, GymCamera, GymSuccess, GymTask
from hildaft.robots.gym_env import GymRobot
from hildaft.robots.gym_images import to_view
from hildaft.teleop.law import load_law
from hildaft.teleop.person import OperatorConfig
from hildaft.teleop.scripted_operator import ScriptedOperator
from hildaft.types import HilDaftError, Robot

FILE = Path(__file__).parent / "odd_gym.yaml"
CONFIG = read_environment(FILE)
RENDER = GymCamera(source="render")


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FILE.parent))


@pytest.fixture
def robot():
    robot = GymRobot(CONFIG)
    yield robot
    robot.close()


def levels(config):
    return {(finding.level, finding.text) for finding in check_environment(config)}


def test_it_is_a_robot(robot):
    assert isinstance(robot, Robot)
    observation = robot.reset("reach", 0)
    assert {image.shape for image in observation.images.values()} == {(128, 128, 3)}
    assert observation.proprio.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("axis", "sign"), [(a, s) for a in range(3) for s in (1.0, -1.0)])
def test_each_axis_moves_the_way_and_the_metres_it_says(robot, axis, sign):
    robot.reset("reach", 3)
    before = robot.ee_position_m()
    action = np.zeros(7, np.float32)
    action[axis] = sign
    robot.step(action)
    moved = robot.ee_position_m() - before
    expected = np.zeros(3)
    expected[axis] = sign * robot.action_scale.translation_m
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_the_jaws_are_discrete_and_read_back(robot):
    robot.reset("reach", 0)
    action = np.zeros(7, np.float32)
    action[6] = 0.1
    closed = robot.step(action).observation.proprio
    assert robot.env.unwrapped.received[-1][0] == 0.0
    assert closed.tolist() == [0.0, 1.0]


@given(st.lists(st.floats(-1, 1, width=32), min_size=7, max_size=7))
def test_no_action_leaves_the_environment_s_bounds(values):
    robot = GymRobot(replace(CONFIG, action_scale=replace(CONFIG.action_scale, translation_m=5.0)))
    robot.reset("reach", 0)
    space = robot.env.action_space
    given_action = robot.env_action(np.array(values, np.float32))
    assert (given_action >= space.low).all()
    assert (given_action <= space.high).all()


def test_success_must_hold_and_the_step_limit_truncates(robot):
    law = load_law(CONFIG.operator)
    robot.reset("reach", 1)
    steps = 0
    terminated = False
    while not terminated:
        advice = law(robot.env, robot.raw_observation, robot.action_scale)
        result = robot.step(advice.action)
        terminated, steps = result.terminated or result.truncated, steps + 1
    assert result.reward == 1.0
    assert 2 < steps < 40
    robot.reset("reach", 1)
    still = np.zeros(7, np.float32)
    results = [robot.step(still) for _ in range(50)]
    assert [r.truncated for r in results] == [False] * 49 + [True]
    assert not any(r.terminated or r.reward for r in results)


def test_the_scripted_operator_solves_it_with_a_persons_faults_and_corrects_a_bad_policy(robot):
    law = load_law(CONFIG.operator)
    operator = ScriptedOperator(
        lambda: law(robot.env, robot.raw_observation, robot.action_scale),
        robot.action_scale,
        OperatorConfig(talk="right", max_share=0.2),
    )
    robot.reset("reach", 5)
    operator.begin("reach", 5)
    for _ in range(50):
        result = robot.step(operator.demonstrate())
        if result.terminated:
            break
    assert result.reward == 1.0
    robot.reset("reach", 5)
    operator.begin("reach", 5)
    away = np.array([1, 1, 1, 0, 0, 0, -1], np.float32)
    spoken, tweaks = [], 0
    for _ in range(50):
        spoken.append(operator.speak())
        tweak = operator.tweak(away)
        tweaks += tweak is not None
        robot.step(away if tweak is None else tweak.action)
    assert any(not command.is_null for command in spoken)
    assert 5 <= tweaks <= 10


def test_the_check_passes_and_measures_metres():
    found = levels(CONFIG)
    assert {level for level, _ in found} == {"ok"}
    assert any("75.0 mm of 75.0 mm declared" in text for _, text in found)


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"tasks": {"reach": GymTask(instruction="x", env_id="Nope-v9")}}, "fail", "Nope-v9"),
        ({"action": CONFIG.action[:3]}, "fail", "3 entries"),
        (
            {"cameras": {"head": GymCamera(source="observation", key="pixels/top"), "wrist": RENDER}},
            "fail",
            "found front",
        ),
        ({"cameras": {"head": RENDER, "wrist": RENDER}}, "warn", "same image"),
        ({"success": GymSuccess(source="info", key="done")}, "fail", "found metrics"),
        (
            {"action": (CONFIG.action[0], GymAction(means="dx", unit=0.02), GymAction(means="dy", unit=-0.02),
                        CONFIG.action[3])},
            "fail",
            "axes swapped",
        ),
        ({"action": (*CONFIG.action[:3], GymAction(means="dz", unit=0.05))}, "warn", "`unit` right"),
        (
            {"tasks": {"reach": GymTask(instruction="x", env_id="odd_gym:Odd/Reach-v0", kwargs={"seeded": False})}},
            "warn",
            "does not use its seed",
        ),
        (
            {"tasks": {"reach": GymTask(instruction="x", env_id="odd_gym:Odd/Reach-v0", kwargs={"fails": "step"})}},
            "fail",
            "the arm fell off",
        ),
        (
            {"tasks": {"reach": GymTask(instruction="x", env_id="odd_gym:Odd/Reach-v0", kwargs={"fails": "make"})}},
            "fail",
            "AssertionError, in odd_gym.py, line",
        ),
        ({"jaws": replace(CONFIG.jaws, source=replace(CONFIG.jaws.source, indices=(12,)))}, "fail", "index 12"),
    ],
)  # fmt: skip
def test_the_check_names_what_does_not_fit(change, level, words):
    found = levels(replace(CONFIG, **change))
    assert any(lv == level and words in text and "\n" not in text for lv, text in found), found


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 64, 64, 3), np.uint8), "not a stack"),
        (np.full((64, 64, 3), 200.0, np.float32), "floats"),
        (np.zeros((64, 64, 3), np.int32), "int32"),
        (None, "no image"),
    ],
)
def test_what_is_no_image_is_refused(image, words):
    with pytest.raises(HilDaftError, match=words):
        to_view(image, RENDER, "head")


def test_images_arrive_upright_square_and_whole():
    image = np.zeros((3, 64, 128), np.float32)
    image[0, :32] = 1.0
    view = to_view(image, RENDER, "head")
    assert view[:64, :, 0].min() == 255
    assert view[64:].max() == 0
    flipped = to_view(image, replace(RENDER, flip="vertical"), "head")
    np.testing.assert_array_equal(flipped, view[::-1])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "nobody demonstrates and corrects"),
        ("nowhere.py:f", "FileNotFound"),
        ("odd_gym:nope", "found OddReach"),
        ("no_such_mod:f", "no_such_mod"),
    ],
)
def test_an_operator_that_cannot_be_loaded_is_one_line(name, words):
    with pytest.raises(HilDaftError, match=words) as error:
        load_law(name)
    assert "\n" not in str(error.value)
    assert "nowhere" not in sys.modules


def test_a_unit_that_is_wrong_by_two_is_seen_even_where_actions_are_clipped():
    halved = tuple(replace(entry, unit=entry.unit / 2) for entry in CONFIG.action)
    found = levels(replace(CONFIG, action=halved))
    assert any(level == "warn" and "100.0 mm of 50.0 mm" in text for level, text in found)
