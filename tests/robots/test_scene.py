"""The scene puts things where it is told, sees them, and says what is missing."""

import gc
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from hildaft.robots.bolt_sim.geometry import DOWNWARD, lying_bolt, rotation_about, standing_bolt
from hildaft.robots.bolt_sim.model import RobotName
from hildaft.robots.bolt_sim.scene import BoltScene
from hildaft.types import HilDaftError


@pytest.fixture(scope="module", params=["A", "B"])
def scene(request: pytest.FixtureRequest) -> Iterator[BoltScene]:
    robot: RobotName = request.param
    bench = BoltScene(robot)
    yield bench
    bench.close()


def put(scene: BoltScene, tcp=(0.46, -0.09, 0.13), tilt=0.0, bolt=None, jaw=0.03) -> float:
    position, rotation = bolt or standing_bolt(np.array([0.48, -0.10]), 0.4)
    return scene.place(
        scene.base_from_table(np.array(tcp)),
        scene.base_rotation_from_table(rotation_about(0, tilt) @ DOWNWARD),
        jaw,
        scene.base_from_table(position),
        scene.base_rotation_from_table(rotation),
        scene.base_from_table(np.array([0.51, 0.11, 0.0])),
        -scene.base_yaw_rad,
        scene.base_from_table(np.array([0.53, -0.08, 0.0])),
        jaw < 0.02,
    )


@pytest.mark.parametrize("tilt", [0.0, 0.8, np.pi / 2])
def test_what_is_placed_is_read_back_in_base_axes(scene: BoltScene, tilt: float) -> None:
    tcp = (0.50, -0.09, 0.08)
    assert put(scene, tcp, tilt) < 1e-3
    state = scene.scene_state("pick", success=False)
    np.testing.assert_allclose(scene.table_from_base(state.ee_position_m), tcp, atol=1e-3)
    hand = scene.table_rotation_from_base(state.ee_rotation)
    np.testing.assert_allclose(hand, rotation_about(0, tilt) @ DOWNWARD, atol=2e-3)
    np.testing.assert_allclose(
        scene.table_from_base(state.bolt_position_m), [0.48, -0.10, 0.0], atol=1e-9
    )
    np.testing.assert_allclose(
        scene.table_rotation_from_base(state.slot_rotation), np.eye(3), atol=1e-9
    )
    np.testing.assert_allclose(
        scene.table_from_base(state.spot_position_m), [0.53, -0.08, 0.0], atol=1e-9
    )
    assert state.jaw_opening_m == pytest.approx(0.03)
    assert not state.jaw_closed
    assert not state.bolt_held


def test_an_unreachable_pose_is_told_by_the_residual(scene: BoltScene) -> None:
    assert put(scene, (1.5, 0.0, 0.2)) > 0.1


def test_a_bolt_between_closed_jaws_is_held(scene: BoltScene) -> None:
    put(scene, (0.48, -0.10, 0.040), bolt=standing_bolt(np.array([0.48, -0.10]), 0.0), jaw=0.010)
    scene.control.hold()
    assert scene.scene_state("pick", success=False).bolt_held


def test_projection_finds_the_spot_where_it_is_drawn(scene: BoltScene) -> None:
    put(scene, (0.40, -0.15, 0.20), bolt=lying_bolt(np.array([0.42, -0.16]), 0.0))
    image = scene.render()["head"].astype(int)
    magenta = (image[..., 0] - image[..., 1] > 60) & (image[..., 2] - image[..., 1] > 40)
    rows, columns = np.nonzero(magenta)
    spot = scene.scene_state("upright", success=False).spot_position_m
    seen = scene.project(spot[None])["head"]
    assert seen.inside[0]
    # Robot B's wall is purple too; the spot is the patch around the projected point.
    distance = np.hypot(columns / 256 - seen.uv[0, 0], rows / 256 - seen.uv[0, 1])
    near = distance < 0.06
    assert near.sum() > 20
    centre = np.array([columns[near].mean(), rows[near].mean()]) / 256
    np.testing.assert_allclose(centre, seen.uv[0], atol=0.01)


def test_images_have_the_promised_sizes(scene: BoltScene) -> None:
    put(scene)
    full = scene.render()
    assert full["wrist"].shape == (128, 128, 3)
    assert full["head"].shape == (256, 256, 3)


def test_a_scene_dropped_without_close_leaves_the_others_drawing(scene: BoltScene) -> None:
    put(scene)
    before = scene.render()["head"]
    other = BoltScene("B")
    other.render()
    del other
    gc.collect()
    np.testing.assert_array_equal(scene.render()["head"], before)


def test_the_look_is_jittered_by_the_seed_and_comes_back(scene: BoltScene) -> None:
    put(scene)
    plain = scene.render()["head"]
    looks = []
    for seed in (1, 1, 2):
        scene.randomise_look(np.random.default_rng(seed))
        looks.append(scene.render()["head"])
    scene.reset_look()
    np.testing.assert_array_equal(looks[0], looks[1])
    assert (looks[0] != looks[2]).any()
    assert (looks[0] != plain).any()
    np.testing.assert_array_equal(scene.render()["head"], plain)


def test_the_two_robots_look_at_the_bench_from_different_sides() -> None:
    views = []
    for robot in ("A", "B"):
        bench = BoltScene(robot)
        put(bench)
        views.append(bench.render()["head"].astype(int))
        bench.close()
    assert np.abs(views[0] - views[1]).mean() > 30


@pytest.mark.usefixtures("unchecked_calls")
@pytest.mark.parametrize(("arguments", "match"), [(("C",), "robot='C'"), (("A", 5), "bolts=5")])
def test_bad_arguments_are_one_clear_line(arguments: tuple, match: str) -> None:
    with pytest.raises(HilDaftError, match=match):
        BoltScene(*arguments)


def test_missing_gl_is_one_clear_line() -> None:
    code = """
import ctypes
def refuse(name, *_, **__):
    raise OSError(name)
real = ctypes.CDLL
def load(name, *rest, **named):
    hidden = "GL" in str(name) or "Mesa" in str(name)
    return refuse(name) if hidden else real(name, *rest, **named)
ctypes.CDLL = load
from hildaft.robots.bolt_sim import gl
try:
    gl.choose_gl()
except gl.HilDaftError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=_environment(),
    )
    (line,) = run.stdout.strip().splitlines()
    assert "libegl1 libopengl0 libgl1-mesa-dri" in line


def _environment() -> dict[str, str]:
    import os

    return {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
