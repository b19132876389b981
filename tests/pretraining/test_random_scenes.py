"""Random scenes: reachable, free of overlaps, reproducible, and labelled as the cameras see them."""

import numpy as np
import pytest

from hildaft.robots.bolt_sim.model import BOLT_LENGTH_M, RAIL_LENGTH_M
from hildaft.robots.bolt_sim.random_benches import draw_look
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


def test_assembled_bolts_stand_in_the_rail_behind_the_active_one():
    scene = BoltScene("A", 4)
    counts = set()
    for seed in range(60):
        state = place_random_scene(scene, np.random.default_rng(seed), jitter=False)
        depth = scene.data.contact.dist
        assert not len(depth) or depth.min() > -0.0013
        mouth = scene.slot_position_table_m
        places = [scene.bolt_pose_table(index)[0] - mouth for index in range(4)]
        rail = [place for place in places[1:] if np.abs(place).max() < 0.2]
        counts.add(len(rail))
        for across, along, height in rail:
            assert abs(across) < 0.003
            assert 0.010 < along < RAIL_LENGTH_M
            assert abs(height) < 1e-6
        active = places[0]
        if rail and abs(active[0]) < 0.005 and active[2] < 0.005 and active[1] > 0:
            assert active[1] < min(place[1] for place in rail)
        np.testing.assert_allclose(
            state.bolt_position_m, scene.base_from_table(active + mouth), atol=1e-9
        )
    scene.close()
    assert counts == {0, 1, 2, 3}


def test_other_benches_see_the_work_and_differ():
    seen, positions = 0, []
    for seed in range(8):
        scene = BoltScene(draw_look(np.random.default_rng(seed)), 4)
        state = place_random_scene(scene, np.random.default_rng(seed), jitter=False)
        view = scene.project(np.stack([*landmarks(state), state.ee_position_m]))["head"]
        assert (view.depth_m > 0.3).all()
        seen += int(view.inside.sum())
        positions.append(scene.data.cam_xpos[scene.model.camera("head").id].copy())
        scene.close()
    # Seven points on each of eight benches; some lie beside the picture, as on A.
    assert seen > 0.7 * 7 * 8
    assert np.ptp(np.stack(positions), axis=0).min() > 0.1
