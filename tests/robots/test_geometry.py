"""Rotations agree with each other, and the rest poses touch the table."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hildaft.robots.bolt_sim.geometry import (
    lying_bolt,
    quaternion_from_rotation,
    rotation_about,
    rotation_from_vector,
    tilt_rad,
    vector_from_rotation,
)

part = st.floats(-1.8, 1.8)


@given(part, part, part)
def test_rotation_vector_and_matrix_are_inverses(x: float, y: float, z: float) -> None:
    vector = np.array([x, y, z])
    assume(np.linalg.norm(vector) < 3.1)
    matrix = rotation_from_vector(vector)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(vector_from_rotation(matrix), vector, atol=1e-6)
    w, *xyz = quaternion_from_rotation(matrix)
    half = np.linalg.norm(vector) / 2
    assert abs(w) == pytest.approx(np.cos(half), abs=1e-9)
    assert np.linalg.norm(xyz) == pytest.approx(np.sin(half), abs=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotation_about_an_axis_is_its_rotation_vector(axis: int) -> None:
    np.testing.assert_allclose(
        rotation_about(axis, 0.7), rotation_from_vector(0.7 * np.eye(3)[axis]), atol=1e-12
    )


@given(st.floats(-3.1, 3.1))
def test_a_lying_bolt_rests_on_head_rim_and_tail(yaw: float) -> None:
    position, rotation = lying_bolt(np.array([0.4, -0.1]), yaw)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    rim = position + rotation @ np.array([-0.010, 0.0, 0.010])
    tail = position + rotation @ np.array([-0.005, 0.0, 0.055])
    assert rim[2] == pytest.approx(0.0, abs=1e-9)
    assert tail[2] == pytest.approx(0.0, abs=1e-9)
    assert tilt_rad(rotation) > np.pi / 2
