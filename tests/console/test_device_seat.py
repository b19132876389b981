"""A SpaceMouse in the person's hand, in the whole loop: robot, seat and page, by the clock."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from live import DRIFT, EndlessRobot, live_console
from playwright.sync_api import expect

from fake_cap import FakeCap
from hildaft.config_files import read_environment
from hildaft.seating import SeatOptions, environment_sight, seat
from hildaft.teleop.spacemouse import SpaceMouse
from hildaft.teleop.talk import OperatorFrame
from hildaft.types import HilDaftError

PERIOD_S = 0.1


class Cap(FakeCap):
    """Reports every 8 ms from a thread of its own, until it is unplugged or falls silent."""

    name = "FakeMouse"

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.pushed = {}
        self.silent = False
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ended.wait(0.008):
            with self.lock:
                if not self.silent:
                    self.report(**self.pushed)

    def push(self, **axes):
        with self.lock:
            self.pushed = {"x": 0.0, "y": 0.0, "buttons": [0, 0], **axes}

    def read(self):
        with self.lock:
            return super().read()


@pytest.fixture
def cap():
    cap = Cap()
    yield cap
    cap.ended.set()
    cap.thread.join()


@pytest.fixture
def mouse(cap):
    def find():
        if cap.error is not None:
            msg = "spacemouse: none there"
            raise HilDaftError(msg)
        return cap

    mouse = SpaceMouse(find)
    yield mouse
    mouse.close()


def moved_after(live, at):
    """Motion of every step begun later than `at` (wall time)."""
    return [action[:6] for began, action in live.robot.steps if began > at]


def test_the_cap_drives_along_the_operators_axes_and_hands_back_without_a_jump(
    cap, mouse, open_page
):
    with live_console(device=mouse, frame=OperatorFrame(forward="-x", left="-y")) as live:
        page = open_page(live.address)
        cap.push(x=1.0)
        live.wait(lambda: live.robot.steps[-1][1][0] < -0.5, what="motion away from the operator")
        page.wait_for_selector("body[data-control=human]")
        expect(page.locator("#hint")).to_contain_text("FakeMouse")
        expect(page.locator("#device")).to_have_text("FakeMouse")
        cap.push()
        live.wait(lambda: live.station.operator.control == "policy")
        live.wait_steps(4)
        live.station.operator.mark("success")
        live.wait(lambda: live.episodes)
    episode = live.episodes[0]
    rows = np.flatnonzero(episode.is_intervention)
    # What is kept as a correction moves; standing still afterwards is executed, but teaches nothing.
    assert (episode.human_action[rows, 0] < -0.5).all()
    after = episode.executed_action[rows[-1] + 1 :, 0]
    still = np.flatnonzero(after == 0.0)
    # It stands for 0.3 s.
    at = [began for began, _ in live.robot.steps[: len(episode)]]
    assert 2 <= len(still) <= 5
    assert at[rows[-1] + 1 + len(still)] - at[rows[-1]] > 2.5 * PERIOD_S
    gathers = after[still[-1] + 1 :]
    assert 0.0 < gathers[0] < gathers[1] < DRIFT
    assert gathers[2] == np.float32(DRIFT)


def test_unplugged_in_mid_push_the_arm_stands_until_a_person_says_so(cap, mouse, open_page):
    with live_console(device=mouse) as live:
        page = open_page(live.address)
        cap.push(x=1.0)
        live.wait(lambda: live.robot.steps[-1][1][0] > 0.5)
        page.wait_for_selector("body[data-control=human]")
        cap.error = OSError("No such device")
        gone = time.time()
        page.wait_for_selector("body[data-control=hold]")
        expect(page.locator("#hint")).to_contain_text("FakeMouse is lost")
        live.wait(lambda: live.robot.stops > 0)
        live.wait(lambda: time.time() > gone + 0.6)
        # The step under way, and no other; the arm was told to hold, and time stands still.
        assert not np.any(moved_after(live, gone + PERIOD_S))
        page.keyboard.press("h")
        live.wait(lambda: live.station.operator.control == "policy")
        assert live.wait_steps(4)[-1][0] == np.float32(DRIFT)


def test_silent_for_250_ms_in_mid_push_nothing_moves_and_a_pushed_return_is_no_throw(cap, mouse):
    with live_console(device=mouse) as live:
        cap.push(x=1.0)
        live.wait(lambda: live.robot.steps[-1][1][0] > 0.5)
        cap.silent = True
        gone = time.time()
        live.wait(lambda: live.robot.stops > 0, what="the hold")
        live.wait(lambda: time.time() > gone + 0.7)
        assert not np.any(moved_after(live, gone + 0.25 + PERIOD_S))
        # It reports again, still pushed: rest comes first.
        cap.silent = False
        back = time.time()
        live.wait(lambda: time.time() > back + 0.4)
        assert not np.any(moved_after(live, back))
        cap.push()
        live.wait(lambda: live.station.operator.control == "policy")
        cap.push(x=1.0)
        live.wait(lambda: live.robot.steps[-1][1][0] > 0.5)


def test_the_page_drives_while_the_device_is_lost(cap, mouse, open_page):
    with live_console(device=mouse) as live:
        page = open_page(live.address)
        cap.error = OSError("No such device")
        page.wait_for_selector("body[data-control=hold]")
        page.keyboard.down("a")
        live.wait(lambda: live.robot.steps[-1][1][1] > 0.3, what="motion by key")
        page.keyboard.up("a")
        page.wait_for_selector("body[data-control=hold]")


def test_its_buttons_move_the_jaws_that_the_page_left_closed(cap, mouse):
    with live_console(device=mouse) as live:
        cap.push(buttons=[1, 0])
        live.wait(lambda: live.robot.closed)
        cap.push(x=1.0)
        live.wait(lambda: live.robot.steps[-1][1][0] > 0.5)
        assert live.robot.closed
        cap.push(buttons=[0, 1])
        live.wait(lambda: not live.robot.closed)


@pytest.mark.parametrize(
    ("file", "is_real"),
    [
        ("robots/franka_serl.yaml", True),
        ("robots/so101.yaml", True),
        ("robots/simulated.yaml", False),
        ("gymnasium/fetch_reach.yaml", False),
    ],
)
def test_a_real_arm_is_not_left_to_the_policy_by_a_page_that_is_lost(file, is_real):
    examples = Path(__file__).parents[2] / "examples"
    sight = environment_sight(read_environment(examples / file))
    seated = seat(EndlessRobot(), sight, "policy", SeatOptions(), threading.Event())
    assert seated.station.sit_down("somebody")
    seated.station.lose("somebody")
    assert not seated.station.is_taken
    assert seated.station.operator.paused is is_real
