"""LeRobot arms by joints and by poses: they go where our actions say, stay in bounds, and hold at every fault."""

import json
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desk_arm import DEGREE, DESK_FILE, HOME, JOINTS, URDF, DeskArm, DeskArmConfig
from hildaft.arms import open_arm
from hildaft.lerobot_bridge.arm import LeRobotRobot
from hildaft.lerobot_bridge.config import (
    CameraKey,
    JawKey,
    JointKey,
    JointKeys,
    LeRobotConfig,
    PoseKeys,
)
from hildaft.robots.guard import Bounds, PoseGuard, RobotError
from hildaft.robots.pose import Pose
from hildaft.robots.real_arm import HaltableRobot
from hildaft.robots.safety import SafeRobot
from hildaft.robots.watchdog import WatchedRobot
from hildaft.robots.workspace import Workspace
from hildaft.types import ActionScale, HilDaftError, Robot, StoppedError
from link_peers import wait_until

EXAMPLES = Path(__file__).parents[2] / "examples" / "robots"
BOX = Workspace(low_m=(0.22, -0.12, 0.12), high_m=(0.4, 0.12, 0.3), max_turn_rad=0.6)
CAMERAS = {"head": CameraKey(key="front"), "wrist": CameraKey(key="hand", crop=(0, 0, 40, 40))}


@pytest.fixture(scope="module")
def urdf(tmp_path_factory):
    path = tmp_path_factory.mktemp("urdf") / "desk.urdf"
    path.write_text(URDF)
    return path


def config_by(kind, urdf):
    keys = PoseKeys() if kind == "pose" else None
    joints = tuple(JointKey(key=f"{name}.pos", joint=name) for name in JOINTS)
    chain = JointKeys(urdf=str(urdf), tip="tip", joints=joints) if kind == "joints" else None
    pose = dict(zip(PoseKeys().position + PoseKeys().rotation, (0.3, 0.0, 0.2, np.pi, 0, 0), strict=True))  # fmt: skip
    return LeRobotConfig(
        kind="lerobot",
        name="desk",
        arm={"type": "desk_arm", "by": kind},
        pose_keys=keys,
        joint_keys=chain,
        gripper=JawKey(),
        cameras=CAMERAS,
        workspace=BOX,
        reset=pose if kind == "pose" else {f"{name}.pos": HOME[name] for name in JOINTS},
        # The servos follow at some 25 mm per step at most.
        jump_m=0.12,
    )


def robot_by(kind, urdf, sleep=lambda _: None, **changes):
    arm = DeskArm(DeskArmConfig(by=kind))
    return LeRobotRobot(replace(config_by(kind, urdf), **changes), arm, sleep=sleep), arm


def act(*values, jaws=-1.0):
    action = np.zeros(7, np.float32)
    action[: len(values)], action[6] = values, jaws
    return action


KINDS = pytest.mark.parametrize("kind", ["joints", "pose"])


@KINDS
def test_actions_move_the_tip_along_base_axes(kind, urdf):
    robot, arm = robot_by(kind, urdf)
    assert isinstance(robot, Robot)
    assert any("inside the workspace box" in note for note in robot.connect())
    assert arm.sent == []
    safe = SafeRobot(robot)
    observation = safe.reset("pick", 0)
    assert {name: image.shape for name, image in observation.images.items()} == {
        "head": (128, 128, 3),
        "wrist": (128, 128, 3),
    }
    assert observation.proprio.tolist() == [1.0, 0.0]
    before = robot.commanded
    safe.step(act(1.0, -0.5, 0.4))
    moved = robot.commanded.position_m - before.position_m
    assert moved == pytest.approx([0.015, -0.0075, 0.006], abs=2e-4)
    assert robot.commanded.angle_rad(before) < 0.02
    before = robot.commanded
    safe.step(act(0, 0, 0, 0, 0, 1.0))
    turned = robot.commanded
    assert turned.angle_rad(before) == pytest.approx(0.15, abs=0.02)
    assert turned.distance_m(before) < 2e-3
    closed = [safe.step(act(jaws=1.0)).observation.proprio for _ in range(4)]
    assert [float(p[1]) for p in closed] == [1.0] * 4
    assert closed[-1][0] == 0.0
    jaws = [sent["gripper.pos"] for sent in arm.sent[-4:]]
    assert jaws == [70.0, 40.0, 10.0, 0.0]
    robot.close()
    assert not arm.is_connected


@KINDS
def test_a_reset_comes_back_from_elsewhere_and_is_spread_by_the_seed(kind, urdf):
    robot, _ = robot_by(kind, urdf, reset_spread_m=0.02)
    starts = []
    for seed in (1, 2, 1):
        robot.reset("pick", seed)
        starts.append(robot.commanded.position_m)
        for _ in range(6):
            robot.step(act(-1.0, 1.0, 1.0, 0.5))
    assert np.linalg.norm(starts[0] - starts[1]) > 0.01
    assert np.linalg.norm(starts[0] - starts[2]) < 0.006
    steps = [robot.step(act()) for _ in range(44)]
    assert [s.truncated for s in steps] == [False] * 43 + [True]


@settings(max_examples=8)
@given(st.lists(st.floats(-1, 1, width=32), min_size=6, max_size=6), st.sampled_from(["joints", "pose"]))  # fmt: skip
def test_no_sequence_of_actions_leaves_the_box_or_turns_a_joint_too_far(urdf, values, kind):
    robot, arm = robot_by(kind, urdf)
    robot.reset("pick", 0)
    arm.sent.clear()
    for _ in range(12):
        robot.step(act(*values))
        assert BOX.contains(robot.commanded.position_m, 0.006)
    if kind == "joints":
        limit = robot.config.joint_keys.max_step_rad / DEGREE
        for before, after in zip(arm.sent, arm.sent[1:], strict=False):
            assert max(abs(after[k] - before[k]) for k in robot.config.reset) <= limit + 1e-6


@KINDS
def test_a_blocked_arm_is_not_pushed_ever_harder(kind, urdf):
    robot, arm = robot_by(kind, urdf)
    robot.reset("pick", 0)
    arm.fault = "blocked"
    measured = robot.measure_position()
    for _ in range(12):
        robot.step(act(0.0, 1.0))
    ahead = np.linalg.norm(robot.commanded.position_m - measured)
    assert ahead <= robot.config.leash_m + robot.action_scale.translation_m + 1e-3
    with pytest.raises(RobotError, match="not getting nearer"):
        LeRobotRobot(replace(robot.config, reset_spread_m=0.1), arm, sleep=lambda _: None).reset("pick", 3)  # fmt: skip


@KINDS
def test_a_reset_that_is_stopped_sends_the_last_command_once_more_and_nothing_after(kind, urdf):
    sent_at_hold = []

    def sleep(_):
        if len(arm.sent) == 3 and not sent_at_hold:
            robot.halted.set()
            robot.stop()
            sent_at_hold.append(len(arm.sent))

    robot, arm = robot_by(kind, urdf, sleep, reset_spread_m=0.1)
    assert isinstance(robot, HaltableRobot)
    with pytest.raises(StoppedError, match="in the middle of a motion"):
        robot.reset("pick", 3)
    assert sent_at_hold == [len(arm.sent)] == [4]
    assert arm.sent[-1] == arm.sent[-2]
    with pytest.raises(StoppedError):
        robot.step(act(1.0))
    assert len(arm.sent) == 4


def test_commands_come_no_faster_than_the_control_rate():
    now, here = [100.0], Pose(np.array([0.3, 0.0, 0.2]), np.array([1.0, 0.0, 0.0, 0.0]))
    bounds = Bounds(
        workspace=BOX, upright=here, scale=ActionScale(), leash_m=0.05, jump_m=0.1, jump_rad=1.0
    )

    def sleep(seconds):
        now[0] += seconds

    guard = PoseGuard("desk", bounds, sleep=sleep, clock=lambda: now[0])
    turns = []
    for pause in (0.0, 0.0, 0.03, 0.5):
        now[0] += pause
        guard.wait_turn()
        turns.append(now[0])
    assert np.diff(turns) == pytest.approx([0.09, 0.09, 0.5])


FAULTS = [
    ("raises", "get_observation failed"),
    ("nan", "a finite number is needed"),
    ("missing", "is None"),
    ("text", r"12\.5 deg"),
    ("jump", "its pose jumped"),
    ("float image", "no RGB image of bytes"),
    ("deaf", "send_action failed"),
]


@KINDS
@pytest.mark.parametrize(("fault", "words"), FAULTS)
def test_a_fault_is_one_line_and_the_arm_holds_its_last_command(kind, urdf, fault, words):
    robot, arm = robot_by(kind, urdf)
    safe = SafeRobot(robot)
    safe.reset("pick", 0)
    safe.step(act(0.5))
    held = arm.sent[-1]
    arm.fault = fault
    with pytest.raises(RobotError, match=words) as error:
        safe.step(act(1.0))
    assert "\n" not in str(error.value)
    # The step under way may have been sent before the reading failed; whatever came last is repeated.
    last = arm.sent[-1] if fault != "deaf" else held
    count = len(arm.sent)
    arm.fault = None
    safe.stop()
    assert arm.sent[count:] == [last]


def test_what_a_driver_clipped_is_where_the_next_step_starts(urdf):
    robot, arm = robot_by("joints", urdf)
    robot.reset("pick", 0)
    real = arm.send_action
    arm.send_action = lambda action: real({**action, "pan.pos": 0.0})
    for _ in range(5):
        robot.step(act(0.0, 1.0))
    assert robot.commanded.position_m[1] < 0.03


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gripper": None}, "gripper.pos too"),
        ({"gripper": JawKey(key="claw.pos")}, "action has no claw.pos"),
        ({"cameras": {"head": CameraKey(key="top")}}, "observation has no top"),
        ({"fixed": {"base.vel": 0.0}}, "no base.vel"),
    ],
)
def test_keys_that_do_not_fit_are_named_before_anything_moves(urdf, change, words):
    robot, arm = robot_by("joints", urdf, **change)
    with pytest.raises(HilDaftError, match=words):
        robot.connect()
    assert arm.sent == []
    assert not arm.is_connected


def test_a_crop_that_does_not_fit_is_named_before_anything_moves(urdf):
    cameras = {"head": CameraKey(key="front", crop=(0, 20, 48, 48))}
    robot, arm = robot_by("joints", urdf, cameras=cameras)
    with pytest.raises(
        HilDaftError, match=r"head of desk crop=\(0, 20, 48, 48\).* 48 high and 64 "
    ):
        robot.reset("pick", 0)
    assert arm.sent == []


@pytest.mark.parametrize("fault", ["absent", "uncalibrated"])
def test_an_arm_that_is_not_ready_says_so(urdf, fault):
    robot, arm = robot_by("joints", urdf)
    arm.fault = fault
    with pytest.raises(RobotError, match=r"connect failed|lerobot-calibrate"):
        robot.reset("pick", 0)
    assert arm.sent == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"joint_keys": None}, "exactly one"),
        ({"arm": {"port": "/dev/ttyACM0"}}, "`type` is needed"),
        ({"reset": {"pan.pos": 0.0}}, "a value of each of pan.pos"),
        ({"jump_m": 0.01}, "jump_m"),
        ({"leash_m": -1.0}, "leash_m"),
    ],
)
def test_a_bad_config_is_one_line(urdf, change, words):
    with pytest.raises(HilDaftError, match=words):
        replace(config_by("joints", urdf), **change)
    with pytest.raises(HilDaftError, match="outside the workspace"):
        robot_by("joints", urdf, workspace=Workspace(low_m=(0.5, 0.0, 0.0), high_m=(0.6, 0.1, 0.1)))


def test_without_the_library_or_the_type_the_line_says_what_to_install(urdf):
    try:
        import lerobot  # noqa: F401
    except ImportError:
        with pytest.raises(HilDaftError, match="LeRobot cannot be imported"):
            open_arm(config_by("joints", urdf))
        return
    robot = open_arm(config_by("joints", urdf))
    robot.reset("pick", 0)
    robot.close()
    with pytest.raises(HilDaftError, match=r"LeRobot knows .*so101_follower"):
        open_arm(replace(config_by("joints", urdf), arm={"type": "so102"}))


def make_watched(config, journal, hangs):
    arm = DeskArm(DeskArmConfig(by="joints", journal=str(journal), hangs=str(hangs)))
    return LeRobotRobot(config, arm)


def test_the_watch_holds_it_while_its_camera_hangs_and_while_nobody_commands(urdf, tmp_path):
    journal, hangs = tmp_path / "journal", tmp_path / "hangs"

    def sends():
        return [at for what, at in map(json.loads, journal.read_text().splitlines()) if what == "send"]  # fmt: skip

    with WatchedRobot(partial(make_watched, config_by("joints", urdf), journal, hangs)) as robot:
        robot.reset("pick", 0)
        before = len(sends())
        robot.step(act(1.0))
        # The step's command, and the hold's: it may have come already.
        wait_until(lambda: len(sends()) >= before + 2)
        assert sends()[-1] - sends()[-2] < 0.4
        assert robot.holds == 1
        hangs.touch()
        step = threading.Thread(target=lambda: robot.step(act(1.0)), daemon=True)
        step.start()
        # The bus is taken by the reading that hangs: the last command stands, and the watch goes on.
        time.sleep(0.3)
        hangs.unlink()
        step.join(60.0)
        assert not step.is_alive()
        wait_until(lambda: robot.holds == 2)


def test_an_arm_is_named_as_an_environment_and_comes_back_from_a_run_folder(tmp_path):
    from hildaft.config import RunConfig, read_config, with_environment, write_config

    (tmp_path / "desk.yaml").write_text(DESK_FILE)
    config = with_environment(RunConfig(), tmp_path / "desk.yaml")
    assert config.instructions == {"reach": "reach for the bolt"}
    assert config.encoders.image == "keypoints-unread"
    assert config.environment.joint_keys.urdf == str(tmp_path / "desk.urdf")
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config
    for example in ("franka_serl.yaml", "so101.yaml"):
        named = with_environment(RunConfig(), EXAMPLES / example)
        write_config(named, tmp_path / "config.yaml")
        assert read_config(tmp_path / "config.yaml") == named
    (tmp_path / "desk.yaml").write_text(DESK_FILE.replace("kind: lerobot", "kind: lerobto"))
    with pytest.raises(HilDaftError, match="did you mean 'lerobot'"):
        with_environment(RunConfig(), tmp_path / "desk.yaml")
    (tmp_path / "desk.yaml").write_text(DESK_FILE.replace("reset:", "rest:"))
    with pytest.raises(HilDaftError, match="rest"):
        with_environment(RunConfig(), tmp_path / "desk.yaml")
