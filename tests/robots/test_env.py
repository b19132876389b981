"""The Gymnasium environments keep their contract, and cannot be won by accident."""

from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import hildaft.robots.bolt_sim  # noqa: F401 - registers the environments
from hildaft.robots.bolt_sim.env import STEP_LIMIT, BoltEnv
from hildaft.robots.bolt_sim.geometry import DOWNWARD, standing_bolt
from hildaft.robots.bolt_sim.model import BOLT_LENGTH_M
from hildaft.robots.bolt_sim.robot import BoltRobot
from hildaft.robots.bolt_sim.tasks import (
    PICK_GRIP_M,
    TASKS,
    UPRIGHT_GRIP_M,
    UPRIGHT_SPOT_M,
    Judge,
    sample_start,
)
from hildaft.teleop.oracle import oracle_action
from hildaft.types import HilDaftError

UPRIGHT_MIDDLE_M = BOLT_LENGTH_M - sum(UPRIGHT_GRIP_M) / 2


@pytest.fixture(scope="module")
def env() -> Iterator[BoltEnv]:
    bench = BoltEnv("A")
    yield bench
    bench.close()


@pytest.mark.parametrize("name", ["Upright", "Pick", "Assemble"])
def test_registered_environments_pass_the_checker(name: str) -> None:
    made = gymnasium.make(f"hildaft/Bolt{name}-v0", render_mode="rgb_array")
    check_env(made.unwrapped, skip_close_check=True)
    made.close()


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_episode_bit_for_bit(env: BoltEnv, task: str) -> None:
    other = BoltEnv("A")
    actions = np.random.default_rng(3).uniform(-1, 1, (6, 7)).astype(np.float32)
    env.reset(seed=99, options={"task": "upright"})
    env.step(actions[0])
    runs = []
    for bench in (env, other):
        observation, _ = bench.reset(seed=7, options={"task": task})
        trace = [observation, *(bench.step(action)[0] for action in actions)]
        runs.append(trace)
    other.close()
    for first, second in zip(*runs, strict=True):
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])


@pytest.mark.parametrize("task", TASKS)
def test_the_oracle_succeeds_is_rewarded_once_and_terminates(env: BoltEnv, task: str) -> None:
    env.reset(seed=11, options={"task": task})
    rewards = []
    terminated = truncated = False
    while not (terminated or truncated):
        action = oracle_action(env.scene_state(), env.action_scale)
        _, reward, terminated, truncated, _ = env.step(action)
        rewards.append(reward)
    assert terminated
    assert not truncated
    assert rewards[-1] == 1.0
    assert sum(rewards) == 1.0
    assert env.scene_state().success


@pytest.mark.parametrize("task", TASKS)
def test_standing_still_is_truncated_without_reward(env: BoltEnv, task: str) -> None:
    env.reset(seed=5, options={"task": task})
    still = np.zeros(7, dtype=np.float32)
    still[6] = 1.0 if env.scene_state().jaw_closed else -1.0
    env.scene.render = lambda *_: {"wrist": None, "head": None}
    try:
        for step in range(1, STEP_LIMIT + 1):
            _, reward, terminated, truncated, _ = env.step(still)
            assert reward == 0.0
            assert not terminated
            assert truncated == (step == STEP_LIMIT)
    finally:
        del env.scene.render


def test_starts_cover_the_ranges_the_paper_names() -> None:
    rng = np.random.default_rng(0)
    for task in TASKS:
        starts = [sample_start(task, rng) for _ in range(400)]
        tcp = np.array([start.tcp_position_m[:2] for start in starts])
        assert np.ptp(tcp, axis=0) == pytest.approx([0.10, 0.10], abs=0.003)
        rail = np.array([start.slot_position_m[:2] for start in starts])
        assert np.ptp(rail, axis=0) == pytest.approx([0.06, 0.06], abs=0.002)
        if task != "assemble":
            bolt = np.array([start.bolt_position_m[:2] for start in starts])
            assert np.ptp(bolt, axis=0) == pytest.approx([0.10, 0.10], abs=0.003)


def test_any_number_of_bolts_stands_in_the_rail_at_the_start(env: BoltEnv) -> None:
    rng = np.random.default_rng(0)
    counts = [len(sample_start("pick", rng, 3).assembled) for _ in range(400)]
    assert np.bincount(counts) == pytest.approx([100] * 4, abs=30)
    assert not any(sample_start("pick", rng).assembled for _ in range(20))
    for wanted in (0, 2, 3):
        env.reset(seed=2, options={"task": "pick", "assembled": wanted})
        for _ in range(3):
            env.step(np.array([0, 0, 0, 0, 0, 0, -1], np.float32))
        offsets = [env.scene.bolt_pose_table(i)[0] for i in (1, 2, 3)]
        offsets = np.array(offsets) - env.scene.slot_position_table_m
        inside = (np.abs(offsets[:, 0]) < 0.003) & (np.abs(offsets[:, 2]) < 0.004)
        assert inside.sum() == wanted
        assert all(0.010 < along < 0.125 for along in offsets[inside, 1])
    with pytest.raises(HilDaftError, match="assembled=4: 0 to 3 is allowed"):
        env.reset(options={"assembled": 4})


@pytest.mark.parametrize("task", TASKS)
def test_the_oracle_succeeds_beside_a_full_rail(env: BoltEnv, task: str) -> None:
    env.scene.render = lambda *_: {"wrist": None, "head": None}
    try:
        env.reset(seed=12, options={"task": task, "assembled": 3})
        terminated = truncated = False
        while not (terminated or truncated):
            action = oracle_action(env.scene_state(), env.action_scale)
            _, _, terminated, truncated, _ = env.step(action)
    finally:
        del env.scene.render
    assert terminated


def stand_on_the_spot(env: BoltEnv, offset_m: float) -> None:
    scene = env.scene
    env.reset(seed=1, options={"task": "upright"})
    spot = scene.spot_position_table_m
    position, rotation = standing_bolt(spot[:2] + np.array([offset_m, 0.0]), 0.0)
    scene.place_bolt(0, scene.base_from_table(position), scene.base_rotation_from_table(rotation))
    scene.control.hold()


@pytest.mark.parametrize(
    ("grip_m", "offset_m", "expected"),
    [
        (UPRIGHT_MIDDLE_M, UPRIGHT_SPOT_M - 0.002, True),
        (None, 0.0, False),
        (BOLT_LENGTH_M - UPRIGHT_GRIP_M[1] - 0.001, 0.0, False),
        (BOLT_LENGTH_M - UPRIGHT_GRIP_M[0] + 0.001, 0.0, False),
        (UPRIGHT_MIDDLE_M, UPRIGHT_SPOT_M + 0.002, False),
    ],
)
def test_upright_wants_the_right_grip_and_the_right_place(
    env: BoltEnv, grip_m: float | None, offset_m: float, expected: bool
) -> None:
    stand_on_the_spot(env, offset_m)
    judge = Judge(env.scene, "upright")
    judge.grip_m = grip_m
    assert judge.holds() is expected


@pytest.mark.parametrize(
    ("grip_m", "expected"),
    [
        (sum(PICK_GRIP_M) / 2, True),
        (PICK_GRIP_M[1] + 0.002, False),
        (PICK_GRIP_M[0] - 0.002, False),
    ],
)
def test_pick_wants_the_grip_in_its_height_band(
    env: BoltEnv, grip_m: float, expected: bool
) -> None:
    scene = env.scene
    tcp = np.array([0.48, -0.10, 0.11])
    scene.place(
        scene.base_from_table(tcp),
        scene.base_rotation_from_table(DOWNWARD),
        0.010,
        scene.base_from_table(tcp - np.array([0.0, 0.0, grip_m])),
        scene.base_rotation_from_table(np.eye(3)),
        scene.base_from_table(np.array([0.5, 0.1, 0.0])),
        -scene.base_yaw_rad,
        scene.base_from_table(np.array([0.53, -0.08, 0.0])),
        True,
    )
    scene.control.hold()
    assert Judge(scene, "pick").holds() is expected


def test_a_bolt_on_top_of_the_rail_is_not_assembled(env: BoltEnv) -> None:
    scene = env.scene
    env.reset(seed=2, options={"task": "assemble"})
    for height, expected in ((0.021, False), (0.0, True)):
        mouth = scene.slot_position_table_m
        position = mouth + np.array([0.0, 0.04, height])
        tcp = np.array([0.46, -0.09, 0.13])
        scene.place(
            scene.base_from_table(tcp),
            scene.base_rotation_from_table(DOWNWARD),
            0.03,
            scene.base_from_table(position),
            scene.base_rotation_from_table(np.eye(3)),
            scene.base_from_table(mouth),
            -scene.base_yaw_rad,
            scene.base_from_table(np.array([0.53, -0.08, 0.0])),
        )
        scene.control.hold()
        assert Judge(scene, "assemble").holds() is expected


@pytest.mark.parametrize(
    "action", [np.zeros(6), np.full(7, np.nan), np.array([0, 0, np.inf, 0, 0, 0, 0])]
)
def test_a_bad_action_is_one_clear_line(env: BoltEnv, action: np.ndarray) -> None:
    env.reset(seed=0, options={"task": "pick"})
    with pytest.raises(HilDaftError, match="7 finite numbers"):
        env.step(action)


def test_an_unknown_task_is_one_clear_line(env: BoltEnv) -> None:
    with pytest.raises(HilDaftError, match=r"task='fly'.*upright, pick, assemble"):
        env.reset(seed=0, options={"task": "fly"})


def test_the_robot_speaks_the_project_s_types() -> None:
    robot = BoltRobot("B")
    observation = robot.reset("assemble", 4)
    assert robot.name == "B"
    assert observation.proprio.tolist() == pytest.approx([1 / 3, 1.0], abs=0.05)
    result = robot.step(np.array([0, 0, 0, 0, 0, 0, 1], dtype=np.float32))
    assert result.observation.images["wrist"].shape == (128, 128, 3)
    assert (result.reward, result.terminated, result.truncated) == (0.0, False, False)
    robot.stop()
    robot.stop()
    assert robot.scene_state().bolt_held
    robot.close()
