"""Poses, the workspace box, and its calibration."""

import io
import math

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from desk_arm import DESK_FILE, URDF, DeskArm, DeskArmConfig
from hildaft.commands.robot import calibrate, check_robot, parse_move
from hildaft.robots.pose import Pose, from_euler, from_vector, multiply, turn_between
from hildaft.robots.workspace import Workspace
from hildaft.types import HilDaftError

vectors = st.lists(st.floats(-1.5, 1.5), min_size=3, max_size=3).map(np.array)


@given(vectors, vectors)
def test_a_turn_is_found_again(start, turn):
    before = from_vector(start)
    after = multiply(from_vector(turn), before)
    np.testing.assert_allclose(turn_between(before, after), turn, atol=1e-6)


@given(vectors, st.sampled_from(["xyzw", "wxyz"]))
def test_a_pose_survives_the_wire_in_either_order(turn, order):
    pose = Pose(np.array([0.1, 0.2, 0.3]), from_vector(turn))
    back = Pose.from_wire(np.array(pose.to_wire(order)), order)
    assert back.angle_rad(pose) < 1e-6
    assert back.distance_m(pose) < 1e-12


def test_euler_angles_are_extrinsic():
    turned = from_euler(np.array([math.pi / 2, 0.0, math.pi / 2]))
    quarter = math.pi / 2
    about_x, about_z = (from_vector(quarter * axis) for axis in np.eye(3)[[0, 2]])
    about_x_then_z = multiply(about_z, about_x)
    np.testing.assert_allclose(np.abs(turned), np.abs(about_x_then_z), atol=1e-9)


@pytest.fixture
def arm(tmp_path, monkeypatch):
    """A desk arm whose file and urdf lie together; nothing of LeRobot is needed."""
    (tmp_path / "desk.urdf").write_text(URDF)
    (tmp_path / "desk.yaml").write_text(DESK_FILE)
    made = DeskArm(DeskArmConfig())
    monkeypatch.setattr("hildaft.arms.make_arm", lambda options: made)
    return made, tmp_path / "desk.yaml"


def test_the_box_is_what_lies_between_the_corners_less_the_margin(arm, monkeypatch, capsys):
    made, file = arm
    words = ["", "+z 20", "up", "-z 999", *["-x 20"] * 5, *["+y 20"] * 6, *["+z 20"] * 5, "", "q"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(words) + "\n"))
    assert calibrate([str(file), "--jog", "--reach-m", "0.15"]) == 0
    said = capsys.readouterr().out
    assert "'up': not understood" in said
    assert "'-z 999': not understood" in said
    box = yaml.safe_load(said[said.index("workspace:") :])["workspace"]
    start = np.array([0.327, 0.0, 0.19])
    moved = np.array([-0.1, 0.12, 0.12])
    assert box["low_m"] == pytest.approx(np.minimum(start, start + moved) + 0.01, abs=0.012)
    assert box["high_m"] == pytest.approx(np.maximum(start, start + moved) - 0.01, abs=0.012)
    assert not made.is_connected


def test_jogging_goes_no_further_than_the_reach(arm, monkeypatch, capsys):
    _, file = arm
    monkeypatch.setattr("sys.stdin", io.StringIO("\n" + "+y 20\n" * 8 + "\nq\n"))
    with pytest.raises(HilDaftError, match=r"x: the corners are \d mm apart"):
        calibrate([str(file), "--jog", "--reach-m", "0.04"])
    last, told = capsys.readouterr().out.strip().splitlines()[-2:]
    assert "5 mm must be left" in told
    assert told.endswith("go on, or Ctrl-C")
    assert abs(float(last.split(",")[1]) - 0.04) < 0.01


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--reach-m", "0"], r"calibrate reach_m=0\.0: 0\.015 to 1\.0 is allowed; .* --reach-m"),
        (["--reach-m", "0.03", "--margin-m", "0.03"], r"reach_m=0\.03: 0\.035 to 1\.0 is allowed"),
        (["--reach-m", "nan"], r"reach_m=nan: 0\.015 to 1\.0"),
        (["--margin-m", "0.2"], r"margin_m=0\.2: 0\.0 to 0\.1 is allowed; .* --margin-m"),
    ],
)
def test_a_reach_in_which_there_is_no_box_is_refused_before_anything_connects(arm, words, said):
    made, file = arm
    with pytest.raises(HilDaftError, match=said):
        calibrate([str(file), "--jog", *words])
    assert not made.is_connected
    assert made.sent == []


@pytest.mark.parametrize(
    "words", [["--reach-m", "0.015"], ["--reach-m", "0.01", "--margin-m", "0.005"]]
)
def test_the_least_reach_that_is_allowed_makes_a_box(arm, monkeypatch, capsys, words):
    _, file = arm
    moves = ["-x 20", "+y 20", "+z 20", "", *["+x 20"] * 2, *["-y 20"] * 2, *["-z 20"] * 2, "", "q"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(moves) + "\n"))
    assert calibrate([str(file), "--jog", *words]) == 0
    assert "put this into" in capsys.readouterr().out


def test_without_jog_nothing_is_sent(arm, monkeypatch, capsys):
    made, file = arm
    monkeypatch.setattr("sys.stdin", io.StringIO("+x\n\nq\n"))
    with pytest.raises(HilDaftError, match="two opposite ones"):
        calibrate([str(file)])
    assert "--jog" in capsys.readouterr().out
    assert made.sent == []
    assert check_robot([str(file), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "inside the workspace box" in said
    assert "send_action pan.pos=" in said
    assert made.sent == []


@given(st.text(max_size=8))
def test_a_move_is_short_and_along_one_axis(words):
    move = parse_move(words)
    assert move is None or (np.count_nonzero(move) == 1 and np.abs(move).max() <= 0.02)


def test_one_corner_is_not_a_box():
    with pytest.raises(HilDaftError, match="two opposite ones"):
        Workspace.around(np.zeros((1, 3)), 0.01, 0.6)
    with pytest.raises(
        HilDaftError, match="0 mm apart, of which the margins take 20; 5 mm must be left"
    ):
        Workspace.around(np.zeros((2, 3)), 0.01, 0.6)


def test_a_box_too_flat_is_mended_by_a_further_corner(arm, monkeypatch, capsys):
    _, file = arm
    words = ["", *["-x 20"] * 3, *["+y 20"] * 3, "", "q", *["+z 20"] * 3, "", "q"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(words) + "\n"))
    assert calibrate([str(file), "--jog"]) == 0
    said = capsys.readouterr().out
    assert "workspace z: the corners are" in said
    assert "put this into" in said
