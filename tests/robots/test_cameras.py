"""What a crop keeps of a frame, and the line it gets where it does not fit."""

from dataclasses import replace

import numpy as np
import pytest
from test_serl_http import CONFIG, Server

from hildaft.config_files import read_arm
from hildaft.lerobot_bridge.config import CameraKey
from hildaft.robots.cameras import CameraConfig, square_view
from hildaft.robots.serl_client import SerlClient
from hildaft.robots.serl_http import SerlRobot
from hildaft.types import HilDaftError

ROWS, COLUMNS = np.mgrid[:480, :640]
FRAME = np.stack([ROWS // 2, COLUMNS // 3, 0 * ROWS], -1).astype(np.uint8)
"""480 high, 640 wide: red says which row, green which column."""


@pytest.mark.parametrize(
    ("kept", "red", "green"),
    [
        (None, (0, 239), (26, 186)),
        ((0, 0, 480, 480), (0, 239), (0, 159)),
        ((352, 512, 128, 128), (176, 239), (170, 213)),
    ],
)
def test_what_a_crop_keeps_reaches_the_frame_s_edges(kept, red, green):
    view = square_view(FRAME, kept, "head").astype(int)
    assert (view[0, 0, 0], view[-1, -1, 0]) == pytest.approx(red, abs=2)
    assert (view[0, 0, 1], view[-1, -1, 1]) == pytest.approx(green, abs=2)


@pytest.mark.parametrize(
    "kept",
    [
        (0, 700, 480, 480),
        (500, 0, 100, 100),
        (-10, 0, 100, 100),
        (0, 161, 480, 480),
        (1, 0, 480, 9),
    ],
)
def test_a_crop_that_leaves_the_frame_is_one_line(kept):
    with pytest.raises(HilDaftError, match=r"camera head crop=.* 480 high and 640 wide") as caught:
        square_view(FRAME, kept, "head")
    assert str(kept) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("crop", [(-10, 0, 100, 100), (0, -1, 9, 9), (0, 0, 0, 9), (0, 0, 9, -9)])
def test_a_crop_that_fits_no_frame_is_refused_with_its_file(crop):
    for make in (CameraConfig, lambda crop: CameraKey(key="front", crop=crop)):
        with pytest.raises(HilDaftError, match=r"crop=.*top and left from 0, height and width"):
            make(crop=crop)


def test_the_line_names_the_file(tmp_path):
    file = tmp_path / "arm.yaml"
    file.write_text(
        "kind: serl\nname: franka\nreset_pose: [0.5, 0, 0.3, 3.14, 0, 0]\n"
        "workspace: {low_m: [0.4, -0.1, 0.1], high_m: [0.6, 0.1, 0.4]}\n"
        "cameras: {head: {crop: [-10, 0, 100, 100]}}\n"
    )
    with pytest.raises(HilDaftError, match=r"arm\.yaml: cameras\.crop=\(-10, 0, 100, 100\)"):
        read_arm(file)


class Camera:
    def read(self):
        return FRAME

    def close(self):
        pass


def test_an_arm_whose_crop_does_not_fit_does_not_move():
    server = Server()
    try:
        crop = CameraConfig(crop=(0, 700, 480, 480))
        config = replace(CONFIG, cameras={"wrist": crop})
        client, cameras = SerlClient(server.url, 2.0), {"wrist": Camera()}
        robot = SerlRobot(config, client, cameras, lambda: "go on", sleep=lambda _: None)
        for _ in range(2):
            with pytest.raises(HilDaftError, match=r"camera wrist of franka crop=\(0, 700, "):
                robot.reset("pick", 0)
        assert server.journal("/pose") == []
        robot.close()
    finally:
        server.close()
