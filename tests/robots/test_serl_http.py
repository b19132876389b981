"""The Franka adapter against a server process that fails in every way known: it says so in time, and the arm holds."""

import io
import json
import math
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hildaft.commands.robot import calibrate, check_robot
from hildaft.robots.guard import RobotError
from hildaft.robots.safety import SafeRobot
from hildaft.robots.serl_client import SerlClient
from hildaft.robots.serl_http import SerlConfig, SerlRobot
from hildaft.robots.serl_jaws import SerlJaws
from hildaft.robots.workspace import Workspace
from hildaft.types import HilDaftError, Robot, StoppedError
from link_peers import wait_until

BOX = Workspace(low_m=(0.4, -0.15, 0.1), high_m=(0.65, 0.15, 0.4))
CONFIG = SerlConfig(
    kind="serl",
    name="franka",
    workspace=BOX,
    reset_pose=(0.5, 0.0, 0.3, math.pi, 0.0, 0.0),
    # No request is late on a busy machine, where lateness is not what is tested.
    timeout_s=2.0,
)
IN_TIME_S = 0.25
"""For each request, where it is."""
READS = {"/getstate", "/getpos", "/getpos_euler"}
IMAGE = np.zeros((48, 64, 3), np.uint8)


class StillCamera:
    def read(self):
        return IMAGE

    def close(self):
        pass


CAMERAS = {"head": StillCamera(), "wrist": StillCamera()}


class Server:
    def __init__(self, *options):
        program = Path(__file__).with_name("fake_serl_server.py")
        self.process = subprocess.Popen(
            [sys.executable, str(program), *options], stdout=subprocess.PIPE, text=True
        )
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def control(self, route, payload=None):
        data = json.dumps(payload or {}).encode()
        with urllib.request.urlopen(self.url + route, data=data, timeout=60) as reply:
            return json.loads(reply.read())

    def fault(self, **kinds):
        self.control("/_fault", {k if k in ("jump", "reflex") else f"/{k}": v for k, v in kinds.items()})  # fmt: skip

    def journal(self, route=None):
        return [entry for entry in self.control("/_journal") if route in (None, entry[1])]

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def robot_on(server, config=CONFIG, verdict=lambda: "go on", sink=None):
    client = SerlClient(server.url, config.timeout_s, sink)
    return SerlRobot(config, client, CAMERAS, verdict, sleep=lambda _: None)


def act(*values, jaws=-1.0):
    action = np.zeros(7, np.float32)
    action[: len(values)], action[6] = values, jaws
    return action


def test_reset_and_steps_use_the_routes_as_hil_serl_does(server):
    robot = robot_on(server)
    assert isinstance(robot, Robot)
    safe = SafeRobot(robot)
    observation = safe.reset("pick", 0)
    assert observation.images["head"].shape == (128, 128, 3)
    routes = [entry[1] for entry in server.journal()]
    assert routes.index("/update_param") < routes.index("/pose")
    assert routes.count("/update_param") == 3
    assert "/clearerr" not in routes
    result = safe.step(act(1.0, 0.0, -0.5))
    assert not result.terminated
    x, y, z, *quaternion = server.journal("/pose")[-1][2]["arr"]
    assert (x, y, z) == pytest.approx((0.515, 0.0, 0.2925), abs=2e-3)
    assert np.abs(quaternion) == pytest.approx([1, 0, 0, 0], abs=1e-3)
    assert "/clearerr" not in [entry[1] for entry in server.journal()]
    robot.close()


def test_a_turn_is_about_base_axes_and_the_order_is_the_servers():
    for order in ("xyzw", "wxyz"):
        server = Server("--order", order)
        robot = robot_on(server, replace(CONFIG, quaternion=order))
        robot.reset("pick", 0)
        robot.step(act(0, 0, 0, 0, 0, 1.0))
        sent = np.array(server.journal("/pose")[-1][2]["arr"][3:])
        # Half a turn about x, then 0.15 rad about z: the quaternion's x and y hold the half angle.
        x, y = (sent[0], sent[1]) if order == "xyzw" else (sent[1], sent[2])
        assert abs(math.atan2(y, x)) == pytest.approx(0.075, abs=2e-3)
        robot.close()
        server.close()


def test_a_wrong_quaternion_order_is_found_before_anything_moves():
    server = Server("--order", "wxyz")
    with pytest.raises(RobotError, match="is it 'wxyz'"):
        robot_on(server).reset("pick", 0)
    assert server.journal("/pose") == []
    server.close()


@settings(max_examples=30)
@given(st.lists(st.floats(-1, 1, width=32), min_size=6, max_size=6), st.integers(2, 6))
def test_no_sequence_of_actions_leaves_the_workspace(shared, values, repeats):
    robot = robot_on(shared)
    robot.reset("pick", 0)
    for _ in range(repeats):
        robot.step(act(*values))
        pose = robot.commanded
        assert BOX.contains(pose.position_m, 1e-9)
        assert pose.angle_rad(robot._upright) <= BOX.max_turn_rad + 1e-6
    robot.close()


@pytest.fixture(scope="module")
def shared():
    server = Server()
    yield server
    server.close()


FAULTS = [
    ("getstate", "500", "HTTP 500"),
    ("getstate", "hang", "no answer within"),
    ("getstate", "drip", "no answer within"),
    ("getstate", "late", "no answer within"),
    ("getstate", "partial", "no whole JSON"),
    ("getstate", "garbage", "no whole JSON"),
    ("getstate", "closes", "getstate"),
    ("getstate", "list", "an object is expected"),
    ("getstate", "missing", "'pose' is missing"),
    ("getstate", "nan", "7 finite numbers"),
    ("getstate", "short", "7 finite numbers"),
    ("getstate", "unnormalised", "length 1"),
    ("getstate", "huge", "more than"),
    ("pose", "500", "HTTP 500"),
    ("pose", "hang", "no answer within"),
]


@pytest.mark.parametrize(("route", "kind", "words"), FAULTS)
def test_a_fault_is_said_in_time_and_the_arm_holds(server, route, kind, words):
    robot = robot_on(server)
    safe = SafeRobot(robot)
    safe.reset("pick", 0)
    safe.step(act(0.5))
    server.fault(**{route: kind})
    robot._client._timeout_s = IN_TIME_S
    begun = time.monotonic()
    with pytest.raises(HilDaftError, match=words) as error:
        safe.step(act(1.0))
    # Two tries of one read, then two more from stop; each ends by its deadline.
    assert time.monotonic() - begun < 6 * IN_TIME_S
    assert "\n" not in str(error.value)
    pose, drawn_to = server.control("/_arm")
    # What draws the arm is where it is, give or take the step under way.
    assert math.dist(drawn_to[:3], pose[:3]) < CONFIG.action_scale.translation_m + 0.001
    still = [entry[2] for entry in server.journal("/pose")]
    time.sleep(0.15)
    assert [entry[2] for entry in server.journal("/pose")] == still
    assert "/clearerr" not in [entry[1] for entry in server.journal()]


def test_a_server_that_dies_is_a_fault_within_the_deadline(server):
    robot = robot_on(server)
    safe = SafeRobot(robot)
    safe.reset("pick", 0)
    robot._client._timeout_s = IN_TIME_S
    server.process.kill()
    server.process.wait()
    begun = time.monotonic()
    with pytest.raises(RobotError, match="robot server"):
        safe.step(act(1.0))
    assert time.monotonic() - begun < 6 * IN_TIME_S


def test_a_pose_that_jumps_stops_the_episode(server):
    safe = SafeRobot(robot_on(server))
    safe.reset("pick", 0)
    server.fault(jump=[0.1, 0.0, 0.0])
    with pytest.raises(RobotError, match=r"jumped by 0\.1"):
        safe.step(act())
    # Nor is the arm drawn to where it is said to be.
    pose, drawn_to = server.control("/_arm")
    assert math.dist(drawn_to[:3], pose[:3]) < CONFIG.action_scale.translation_m + 0.001


def test_a_reflex_stop_is_not_cleared_and_not_pushed_against(server):
    safe = SafeRobot(robot_on(server))
    safe.reset("pick", 0)
    server.fault(reflex=True)
    for _ in range(12):
        safe.step(act(1.0))
    _, _, payload, measured = server.journal("/pose")[-1]
    ahead = math.dist(payload["arr"][:3], measured[:3])
    assert ahead <= CONFIG.leash_m + CONFIG.action_scale.translation_m + 1e-6
    assert server.journal("/clearerr") == []


def test_a_blocked_reset_ends(server):
    robot = robot_on(server, replace(CONFIG, reset_pose=(0.6, 0.1, 0.3, math.pi, 0.0, 0.0)))
    server.fault(reflex=True)
    with pytest.raises(RobotError, match="not getting nearer"):
        robot.reset("pick", 0)
    robot.close()


@pytest.mark.parametrize("pause", [1, 2, 4])
def test_a_reset_that_is_stopped_changes_nothing_more_at_the_server(server, pause):
    """The pauses of a reset: before the stiffness, before the joint reset, and from the third on between two poses."""
    config = replace(CONFIG, reset_pose=(0.6, 0.1, 0.3, math.pi, 0.0, 0.0), joint_reset_every=1)
    if pause > 2:
        config = replace(config, joint_reset_every=0)
    pauses, at_hold = [], []

    def sleep(_):
        pauses.append("")
        if len(pauses) == pause:
            robot.halted.set()
            robot.stop()
            at_hold.extend(entry for entry in server.journal() if entry[1] not in READS)

    client = SerlClient(server.url, config.timeout_s)
    robot = SerlRobot(config, client, CAMERAS, lambda: "go on", sleep=sleep)
    with pytest.raises(StoppedError, match="in the middle of a motion"):
        robot.reset("pick", 0)
    assert [entry for entry in server.journal() if entry[1] not in READS] == at_hold
    _, route, payload, measured = at_hold[-1]
    assert route == "/pose"
    assert payload["arr"][:3] == pytest.approx(measured[:3], abs=1e-6)
    robot.halted.clear()
    robot.reset("pick", 0)
    robot.close()


def test_clearing_at_a_reset_happens_at_rest_when_asked_for(server):
    robot = robot_on(server, replace(CONFIG, clear_errors_at_reset=True))
    server.fault(reflex=True)
    robot.reset("pick", 0)
    assert len(server.journal("/clearerr")) == 1
    robot.close()


def test_the_jaws_do_not_hold_up_the_loop(server):
    robot = robot_on(server)
    robot.reset("pick", 0)
    begun = time.monotonic()
    closed = [robot.step(act(jaws=1.0)).observation.proprio[1] for _ in range(3)]
    assert time.monotonic() - begun < 0.4
    assert closed == [1.0, 1.0, 1.0]
    deadline = time.monotonic() + 60
    while robot.step(act(jaws=1.0)).observation.proprio[0] > 0.5:
        assert time.monotonic() < deadline
    assert len(server.journal("/close_gripper")) == 1
    robot.close()


def test_a_reset_opens_jaws_that_its_last_step_began_to_close():
    server = Server("--gripper-s", "1.2")
    robot = robot_on(server)
    robot.reset("pick", 0)
    robot.step(act(jaws=1.0))
    assert robot.reset("pick", 1).proprio[1] == 0.0
    wait_until(lambda: server.journal("/open_gripper"))
    wait_until(lambda: robot.look().proprio[0] == 1.0)
    [closed], [opened] = server.journal("/close_gripper"), server.journal("/open_gripper")
    assert opened[0] - closed[0] >= 1.2
    robot.close()
    server.close()


def test_a_reset_opens_jaws_that_another_process_has_left_closed(server):
    SerlClient(server.url, CONFIG.timeout_s).command_gripper("close")
    robot = robot_on(server)
    robot.reset("pick", 0)
    wait_until(lambda: robot.look().proprio[0] == 1.0)
    robot.close()


def test_jaws_that_do_not_come_to_an_end_are_a_fault_and_a_halt_does_not_wait_for_them():
    gone, halted = threading.Event(), threading.Event()

    def require_going():
        if halted.is_set():
            raise StoppedError("stopped")

    jaws = SerlJaws("franka", lambda command: gone.wait(60) and None, require_going, 0.05)
    jaws.settle()
    jaws.move(close=True)
    with pytest.raises(RobotError, match="robot franka: its gripper has not ended") as caught:
        jaws.settle()
    assert "\n" not in str(caught.value)
    halted.set()
    with pytest.raises(StoppedError):
        jaws.settle()
    gone.set()
    halted.clear()
    jaws.close()


def test_a_failing_gripper_is_a_fault_of_the_next_step(server):
    safe = SafeRobot(robot_on(server))
    safe.reset("pick", 0)
    server.fault(close_gripper="500")

    def act_for_a_while():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            safe.step(act(jaws=1.0))

    with pytest.raises(RobotError, match="its gripper failed"):
        act_for_a_while()


def test_a_server_without_a_gripper_is_read_route_by_route():
    server = Server("--gripper", "none")
    robot = robot_on(server, replace(CONFIG, gripper="none"))
    assert any("gripper: none" in note for note in robot.connect())
    observation = robot.reset("pick", 0)
    assert observation.proprio.tolist() == [1.0, 0.0]
    robot.step(act(0.5, jaws=1.0))
    assert server.journal("/close_gripper") == []
    robot.close()
    server.close()


def test_success_and_failure_are_the_verdicts(server):
    words = iter(["go on", "success", "failure"])
    robot = robot_on(server, verdict=lambda: next(words))
    robot.reset("pick", 0)
    results = [robot.step(act()) for _ in range(3)]
    assert [(r.reward, r.terminated) for r in results] == [(0, False), (1, True), (0, True)]
    robot.close()


def test_a_dry_run_prints_and_sends_nothing_that_moves(server):
    lines = []
    robot = robot_on(server, sink=lines.append)
    robot.reset("pick", 0)
    robot.step(act(1.0, jaws=1.0))
    robot.close()
    sent = {entry[1] for entry in server.journal()}
    assert sent <= {"/getstate", "/getpos_euler", "/getpos"}
    assert any(line.startswith("POST /pose") for line in lines)
    assert any("close_gripper" in line for line in lines)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reset_pose": (0.9, 0.0, 0.3, 0.0, 0.0, 0.0)}, "workspace box"),
        ({"jump_m": 0.01}, "jump_m"),
        ({"timeout_s": 0.0}, "timeout_s"),
    ],
)
def test_a_bad_config_is_one_line(change, words):
    with pytest.raises(HilDaftError, match=words):
        replace(CONFIG, **change)


def test_every_other_route_and_what_the_server_would_clamp_in_silence():
    server = Server("--gripper-s", "0.01")
    client = SerlClient(server.url, CONFIG.timeout_s)
    with pytest.raises(HilDaftError, match=r"0 to 0\.1"):
        client.update_parameters({"translational_clip_x": 0.5})
    with pytest.raises(HilDaftError, match="one of"):
        client.update_parameters({"stifness": 1.0})
    client.set_load(0.5, (0.0, 0.0, 0.1), tuple(np.diag([0.01] * 3).reshape(-1).tolist()))
    client.start_impedance()
    client.stop_impedance()
    client.move_gripper(100)
    for command in ("open", "close", "close_slow", "activate", "reset"):
        client.command_gripper(command)
    assert client.gripper() == 1.0
    routes = [entry[1] for entry in server.journal()]
    assert routes[0] == "/set_load"
    assert routes[-2:] == ["/reset_gripper", "/get_gripper"]
    server.close()


def test_check_robot_and_calibrate_send_nothing(server, tmp_path, monkeypatch, capsys):
    example = Path(__file__).parents[2] / "examples" / "robots" / "franka_serl.yaml"
    file = tmp_path / "arm.yaml"
    file.write_text(example.read_text().replace("http://127.0.0.1:5000", server.url))
    assert check_robot([str(file), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "inside the workspace box" in printed
    assert "POST /pose" in printed
    monkeypatch.setattr("sys.stdin", io.StringIO("\nq\n"))
    with pytest.raises(HilDaftError, match="two opposite ones"):
        calibrate([str(file)])
    assert {entry[1] for entry in server.journal()} <= {"/getstate", "/getpos_euler"}


def test_the_published_table_is_made_by_its_command(tmp_path):
    suite = Path(__file__).parents[2] / "benchmarks" / "serl_faults.py"
    out = tmp_path / "table.json"
    words = ["--trials", "1", "--only", "NaN", "worker killed", "--out", str(out)]
    subprocess.run([sys.executable, str(suite), *words], check=True, timeout=600)
    rows = {row["fault"]: row for row in json.loads(out.read_text())["faults"]}
    assert all(row["said"] == 1 and row["poses_after"] == 0 for row in rows.values())
    assert rows["our worker killed"]["said_ms_max"] < 2000
    assert "7 finite numbers" in out.with_suffix(".md").read_text()
