"""Poses, the workspace box, and its calibration."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hildaft.commands.robot import visit_corners
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


def test_the_box_is_what_lies_between_the_corners_less_the_margin():
    places = iter([np.array([0.4, -0.1, 0.1]), np.array([0.6, 0.1, 0.3])])
    lines = iter(["\n", "\n", "q\n"])
    corners = visit_corners(lambda: next(places), lambda: next(lines))
    box = Workspace.around(corners, 0.01, 0.6)
    assert box.low_m == (0.41, -0.09, 0.11)
    assert box.high_m == (0.59, 0.09, 0.29)


def test_one_corner_is_not_a_box():
    with pytest.raises(HilDaftError, match="two opposite ones"):
        Workspace.around(np.zeros((1, 3)), 0.01, 0.6)
    with pytest.raises(HilDaftError, match="5 mm to 2 m"):
        Workspace.around(np.zeros((2, 3)), 0.0, 0.6)
