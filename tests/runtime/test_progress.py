import io
import re

import numpy as np
import pytest
from rich.console import Console

from hildaft.runtime.interaction import Pacing, run_episode
from hildaft.runtime.progress import ProgressView
from point_robot import Helper, PixelPolicy, PointRobot


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def view(clock):
    console = Console(file=io.StringIO(), width=110, force_terminal=False)
    return ProgressView(["reach", "pick"], console=console, clock=clock)


def printed(view):
    return view._console.file.getvalue()


def shown(view):
    console = Console(file=io.StringIO(), width=110)
    console.print(view.render())
    return console.file.getvalue()


def episode(helped=0, *, success=True):
    robot = PointRobot()
    policy = PixelPolicy() if success else PixelPolicy(gain=0.0)
    operator = Helper(robot, first=0, count=helped)
    pacing = Pacing()
    return run_episode(robot, policy, operator, "reach", 3, "online", pacing=pacing)


def test_speed_and_time_left_follow_from_the_clock(view, clock):
    view.stage("online", 1000)
    for count in range(0, 301, 10):
        clock.now_s = count / 20
        view.advance(count, {})
    assert view.steps_per_second == pytest.approx(20.0)
    assert view.seconds_left == pytest.approx(35.0)
    assert "left 0:35" in view.plain_line()


def test_a_resumed_stage_does_not_count_the_past_as_speed(view, clock):
    view.stage("online", 10_000)
    clock.now_s = 1.0
    view.advance(9_000, {})
    clock.now_s = 11.0
    view.advance(9_100, {})
    assert view.steps_per_second == pytest.approx(100 / 11, rel=0.01)


def test_rollouts_show_success_and_help_of_the_last_twenty(view):
    view.stage("online", 1000)
    failure, helped = episode(success=False), episode(helped=2)
    for _ in range(30):
        view.episode(failure, 10)
    for _ in range(10):
        view.episode(helped, 20)
    text = shown(view)
    assert re.search(r"reach\s+○{10}●{10}\s+50 %", text)
    steps = 10 * 50 + 10 * len(helped)
    assert f"{100 * 20 / steps:.0f} %" in view.plain_line().split("intervention")[1]


def test_metrics_and_evaluations_find_their_place(view):
    view.stage("online", 1000)
    metrics = {"actor/qbar/pick": 0.625, "actor/eps/pick": 0.31, "refinement/obedience": 0.96}
    view.advance(1, {**metrics, "rollout/update_to_data": 0.99})
    view.evaluated("warmup", "pick", 1, 4)
    view.evaluated("online", "pick", 3, 4)
    text = shown(view)
    row = next(line for line in text.splitlines() if "pick" in line)
    assert re.search(r"25 %\s+75 %\s+0\.6[23]\s+0\.31", row)
    assert "0.96" in text
    assert "0.99" in text
    assert "evaluation warmup: pick 1 of 4" in printed(view)


def test_without_a_terminal_a_plain_line_comes_every_ten_seconds(view, clock):
    with view:
        view.stage("online", 1000)
        before = printed(view).count("\n")
        for tenth in range(350):
            clock.now_s = tenth / 10
            view.advance(tenth, {})
        assert printed(view).count("\n") - before == 3
        view.note("resumed at 3 [updates]")
    assert "resumed at 3 [updates]" in printed(view)
    assert "\x1b" not in printed(view)
    assert printed(view).splitlines()[-1].startswith("online 349/1000")


def test_on_a_terminal_the_view_is_live(clock):
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with ProgressView(["reach"], console=console, clock=clock) as view:
        view.stage("warm-up", 10)
        view.advance(10, {})
        view.note("all is well")
    text = console.file.getvalue()
    assert "\x1b[" in text
    assert "100 %" in text
    assert "all is well" in text


def test_stages_taken_up_again_are_listed_once(view):
    for name in ("warm-up", "online", "evaluate", "online", "evaluate", "online"):
        view.stage(name, 10)
    line = next(line for line in shown(view).splitlines() if "warm-up" in line)
    assert [line.count(name) for name in ("warm-up", "evaluate", "online")] == [1, 1, 1]


def test_an_empty_view_can_be_shown(view):
    assert "HiL-DAFT" in shown(view)
    assert view.plain_line() == "starting 0/1 | left -"
    assert np.isnan(view.seconds_left)
