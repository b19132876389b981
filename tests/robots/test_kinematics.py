"""Serial arms: what the joints say and where the tip is agree, both ways."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desk_arm import JOINTS, URDF
from hildaft.robots.kinematics import Chain
from hildaft.robots.pose import (
    from_euler,
    from_vector,
    matrix_of,
    multiply,
    to_euler,
    to_vector,
    turn_between,
)
from hildaft.types import HilDaftError

angles = st.lists(st.floats(-1.2, 1.2), min_size=6, max_size=6).map(np.array)
vectors = st.lists(st.floats(-1.5, 1.5), min_size=3, max_size=3).map(np.array)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    path = tmp_path_factory.mktemp("urdf") / "desk.urdf"
    path.write_text(URDF)
    return Chain.read(path, "tip", JOINTS)


def test_the_tip_is_where_the_drawing_says(chain):
    assert chain.pose(np.zeros(6)).position_m == pytest.approx([0, 0, 0.1 + 0.25 + 0.25 + 0.08])
    forward = chain.pose(np.array([0, np.pi / 2, 0, 0, 0, 0]))
    assert forward.position_m == pytest.approx([0.58, 0, 0.1])
    left = chain.pose(np.array([np.pi / 2, np.pi / 2, 0, 0, 0, 0]))
    assert left.position_m == pytest.approx([0, 0.58, 0.1])


@settings(max_examples=15)
@given(angles)
def test_the_jacobian_is_the_derivative(chain, joints):
    jacobian, here, step = chain.jacobian(joints), chain.pose(joints), 1e-6
    for index in range(6):
        moved = chain.pose(joints + step * np.eye(6)[index])
        assert jacobian[:3, index] == pytest.approx(
            (moved.position_m - here.position_m) / step, abs=1e-4
        )
        turned = turn_between(here.quaternion, moved.quaternion) / step
        assert jacobian[3:, index] == pytest.approx(turned, abs=1e-4)


@settings(max_examples=25)
@given(angles, st.lists(st.floats(-0.08, 0.08), min_size=6, max_size=6).map(np.array))
def test_a_pose_the_arm_can_have_is_found_again_and_limits_are_kept(chain, joints, offset):
    joints[2] = 1.0 + abs(joints[2])  # away from the stretched arm
    goal = chain.pose(np.clip(joints + offset, chain.low, chain.high))
    found = chain.towards(joints, goal, 0.1)
    assert np.all((found >= chain.low) & (found <= chain.high))
    reached = chain.pose(found)
    before = chain.pose(np.clip(joints, chain.low, chain.high))
    assert reached.distance_m(goal) < max(2e-3, 0.6 * before.distance_m(goal))


@settings(max_examples=40)
@given(vectors)
def test_rotations_are_written_and_read_back(vector):
    quaternion = from_vector(vector)
    assert to_vector(quaternion) == pytest.approx(vector, abs=1e-6)
    again = from_euler(to_euler(quaternion))
    assert np.linalg.norm(turn_between(quaternion, again)) < 1e-5
    other = from_vector(np.array([0.3, -0.2, 0.9]))
    product = matrix_of(multiply(quaternion, other))
    assert product == pytest.approx(matrix_of(quaternion) @ matrix_of(other))


@pytest.mark.parametrize(
    ("text", "tip", "names", "words"),
    [
        (URDF, "hand", JOINTS, "joints from the base to it are none"),
        (URDF, "tip", JOINTS[:5], "name each of them once"),
        (URDF, "jaw", JOINTS, "finger"),
        ("<robot><joint", "tip", JOINTS, "no XML"),
        (URDF.replace('xyz="0 0 0.1"', 'xyz="0 0 a"'), "tip", JOINTS, "3 finite numbers"),
        (URDF.replace('"continuous"', '"planar"'), "tip", JOINTS, "type='planar'"),
    ],
)
def test_a_urdf_that_does_not_fit_is_one_line(tmp_path, text, tip, names, words):
    path = tmp_path / "arm.urdf"
    path.write_text(text)
    with pytest.raises(HilDaftError, match=words) as error:
        Chain.read(path, tip, names)
    assert "\n" not in str(error.value)
    with pytest.raises(HilDaftError, match="relative to the YAML file"):
        Chain.read(tmp_path / "none.urdf", tip, names)
