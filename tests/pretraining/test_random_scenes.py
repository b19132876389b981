"""Random scenes: reachable, free of overlaps, reproducible, and labelled as the cameras see them."""

import numpy as np
import pytest

from hildaft.robots.bolt_sim.model import BOLT_LENGTH_M, RAIL_LENGTH_M
from hildaft.robots.bolt_sim.random_scenes import LANDMARKS, landmarks, place_random_scene
from hildaft.robots.bolt_sim.scene import BoltScene


@pytest.fixture(scope="module")
def scene() -> BoltScene:
    return BoltScene("A")


def test_equal_generators_give_equal_scenes(scene):
    one = place_random_scene(scene, np.random.default_rng(3), jitter=True)
    camera = scene.model.cam_pos.copy()
    place_random_scene(scene, np.random.default_rng(4), jitter=True)
    two = place_random_scene(scene, np.random.default_rng(3), jitter=True)
    np.testing.assert_array_equal(landmarks(one), landmarks(two))
    np.testing.assert_array_equal(one.ee_rotation, two.ee_rotation)
    np.testing.assert_array_equal(scene.model.cam_pos, camera)


def test_scenes_are_valid_and_of_many_kinds(scene):
    held, near, upright = 0, 0, 0
    for seed in range(60):
        state = place_random_scene(scene, np.random.default_rng(seed), jitter=False)
        depth = scene.data.contact.dist
        assert not len(depth) or depth.min() > -0.0013
        points = landmarks(state)
        assert points[:, 2].min() > -1e-3
        held += state.bolt_held
        near += bool(np.linalg.norm(points - state.ee_position_m, axis=1).min() < 0.03)
        upright += bool(state.bolt_rotation[2, 2] > 0.98)
    assert 15 <= held <= 45
    assert near >= 25
    assert 8 <= upright <= 50


def test_landmarks_lie_on_bolt_and_rail(scene):
    state = place_random_scene(scene, np.random.default_rng(0), jitter=False)
    points = dict(zip(LANDMARKS, landmarks(state), strict=True))
    np.testing.assert_allclose(points["head"], state.bolt_position_m)
    np.testing.assert_allclose(2 * points["middle"], points["head"] + points["tail"])
    assert np.linalg.norm(points["tail"] - points["head"]) == pytest.approx(BOLT_LENGTH_M)
    assert np.linalg.norm(points["slot_end"] - points["slot_mouth"]) == pytest.approx(RAIL_LENGTH_M)


def test_labels_project_where_mujoco_has_them(scene):
    for seed in range(10):
        state = place_random_scene(scene, np.random.default_rng(seed), jitter=True)
        seen = scene.project(np.stack([*landmarks(state), state.ee_position_m]))
        # The TCP sits between the pads, which the wrist camera looks at.
        assert seen["wrist"].inside[-1]
        assert np.abs(seen["wrist"].uv[-1] - [0.5, 0.55]).max() < 0.1
        data, camera = scene.data, scene.model.camera("head").id
        spot = data.mocap_pos[scene.model.body("spot").mocapid[0]]
        local = data.cam_xmat[camera].reshape(3, 3).T @ (spot - data.cam_xpos[camera])
        tangent = np.tan(np.deg2rad(scene.model.cam_fovy[camera]) / 2)
        expected = 0.5 + 0.5 * np.array([local[0], -local[1]]) / (-local[2] * tangent)
        np.testing.assert_allclose(seen["head"].uv[LANDMARKS.index("spot")], expected, atol=1e-6)
