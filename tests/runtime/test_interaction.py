import math
import subprocess
import sys

import numpy as np
import pytest

from hildaft.runtime.interaction import Pacing, record_demonstration, run_episode
from hildaft.types import NULL_COMMAND, HilDaftError, RefinementCommand, Tweak
from point_robot import LIMIT, Helper, PixelPolicy, PointRobot


class Time:
    """A clock that moves when waited for, and by a cost per reading if there is one."""

    def __init__(self, cost_s=0.0):
        self.now_s, self.cost_s, self.waits_s = 0.0, cost_s, []

    def clock(self):
        self.now_s += self.cost_s
        return self.now_s

    def wait(self, seconds):
        assert seconds >= 0
        self.waits_s.append(seconds)
        self.now_s += seconds


def run(robot, policy, operator=None, **options):
    arguments = {"pacing": Pacing(), **options}
    return run_episode(robot, policy, operator, "reach", 3, "online", **arguments)


def test_a_policy_alone_reaches_the_goal_and_the_episode_says_so():
    robot, policy = PointRobot(), PixelPolicy()
    episode = run(robot, policy)
    assert episode.success
    assert episode.terminated[-1]
    assert not episode.terminated[:-1].any()
    assert episode.reward.sum() == 1.0
    assert len(episode.h) == len(episode) + 1
    assert len(episode.images["head"]) == len(episode) + 1
    assert (episode.task, episode.source, episode.robot, episode.seed) == (
        "reach",
        "online",
        "point",
        3,
    )
    assert (episode.policy_version, episode.encoder_hash) == (7, "blobs")
    assert not episode.is_intervention.any()
    assert np.isnan(episode.human_action).all()
    assert set(policy.tasks) == {"reach"}
    assert robot.stops == 1


def test_a_policy_that_drifts_is_cut_at_the_limit():
    episode = run(PointRobot(), PixelPolicy(gain=0.0, drift=0.3))
    assert not episode.success
    assert len(episode) == LIMIT
    assert episode.truncated[-1]
    assert not episode.terminated.any()


def test_the_human_acts_in_the_policys_place_and_both_are_kept():
    robot, policy = PointRobot(), PixelPolicy(gain=0.0, drift=0.01)
    operator = Helper(robot, first=2, count=4)
    episode = run(robot, policy, operator)
    rows = np.flatnonzero(episode.is_intervention)
    np.testing.assert_array_equal(rows, [2, 3, 4, 5])
    np.testing.assert_allclose(episode.policy_action[:, :2], 0.01, rtol=1e-6)
    np.testing.assert_array_equal(episode.executed_action[rows], episode.human_action[rows])
    np.testing.assert_array_equal(np.stack(robot.actions), episode.executed_action)
    assert (episode.refinement[rows] != NULL_COMMAND.index).all()
    assert operator.begun == [("reach", 3, 3)]
    np.testing.assert_array_equal(np.stack(operator.seen), episode.policy_action)


def test_talk_reaches_the_policy_and_the_episode():
    command = RefinementCommand((1, 0, 0))
    robot, policy = PointRobot(), PixelPolicy()
    episode = run(robot, policy, Helper(robot, count=0, command=command))
    assert set(policy.commands) == {command}
    assert set(episode.spoken.tolist()) == {command.index}


def test_actions_are_clipped_for_the_robot_and_kept_as_the_policy_gave_them():
    robot = PointRobot()
    episode = run(robot, PixelPolicy(gain=1e4))
    assert np.abs(episode.policy_action).max() > 1
    assert np.abs(episode.executed_action).max() == 1
    assert np.abs(np.stack(robot.actions)).max() == 1


def test_a_policy_that_breaks_leaves_the_robot_stopped_and_unmoved():
    robot = PointRobot()
    with pytest.raises(HilDaftError, match="finite"):
        run(robot, PixelPolicy(drift=math.nan))
    assert robot.stops == 1
    assert robot.actions == []


def test_an_interrupt_stops_the_robot():
    class Interrupting(PixelPolicy):
        def act(self, encoded, command):
            raise KeyboardInterrupt

    robot = PointRobot()
    with pytest.raises(KeyboardInterrupt):
        run(robot, Interrupting())
    assert robot.stops == 1


def test_a_demonstration_is_the_humans_alone():
    robot = PointRobot()
    operator = Helper(robot)
    episode = record_demonstration(
        robot, PixelPolicy(), operator.demonstrate, operator.begin, "reach", 4, pacing=Pacing()
    )
    assert episode.success
    assert (episode.source, episode.policy_version) == ("demo", -1)
    assert np.isnan(episode.policy_action).all()
    np.testing.assert_array_equal(episode.human_action, episode.executed_action)
    assert not episode.is_intervention.any()
    assert operator.begun == [("reach", 4, 4)]
    assert robot.stops == 1


def test_the_loop_is_deterministic():
    one, other = (run(PointRobot(), PixelPolicy()) for _ in range(2))
    np.testing.assert_array_equal(one.h, other.h)
    assert one.images == other.images


def test_ten_hertz_are_kept_without_late_steps():
    time = Time(cost_s=0.002)
    pacing = Pacing(10.0, clock=time.clock, wait=time.wait)
    episode = run(PointRobot(), PixelPolicy(gain=0.0), pacing=pacing)
    timing = pacing.timing()
    assert timing.steps == len(episode) == LIMIT
    assert timing.late_steps == 0
    assert timing.achieved_hz == pytest.approx(10.0, rel=0.03)
    assert len(time.waits_s) == LIMIT - 1
    assert timing.jitter.p99_ms < 5
    # A duration spans one reading of the clock.
    assert timing.act.p50_ms == pytest.approx(2.0)
    assert timing.encode.p99_ms == pytest.approx(2.0)


def test_a_late_step_is_counted_and_starts_no_burst():
    time = Time()
    pacing = Pacing(10.0, clock=time.clock, wait=time.wait)
    starts = []
    for step in range(8):
        time.now_s += 0.35 if step == 3 else 0.02
        pacing.tick()
        starts.append(time.now_s)
    assert pacing.timing().late_steps == 1
    periods = np.diff(starts)
    assert periods[2] == pytest.approx(0.35)
    np.testing.assert_allclose(np.delete(periods, 2), 0.1, rtol=1e-9)
    assert pacing.timing().jitter.p99_ms > 100


def test_waiting_leaves_the_grid_where_it_was():
    time = Time()

    def sloppy(seconds):
        time.now_s += seconds + 0.0005

    pacing = Pacing(10.0, clock=time.clock, wait=sloppy)
    for _ in range(101):
        time.now_s += 0.01
        pacing.tick()
    assert pacing.timing().late_steps == 0
    assert pacing.timing().achieved_hz == pytest.approx(10.0, rel=1e-3)


def test_the_first_step_of_an_episode_is_never_late():
    time = Time()
    pacing = Pacing(10.0, clock=time.clock, wait=time.wait)
    for _ in range(3):
        pacing.begin_episode()
        pacing.tick()
        time.now_s += 60.0
    assert pacing.timing().late_steps == 0
    assert math.isnan(pacing.timing().achieved_hz)


def test_unpaced_loops_are_measured_but_never_wait():
    time = Time(cost_s=0.001)
    pacing = Pacing(clock=time.clock, wait=time.wait)
    run(PointRobot(), PixelPolicy(), pacing=pacing)
    assert time.waits_s == []
    assert pacing.timing().achieved_hz > 10
    assert math.isnan(pacing.timing().jitter.p50_ms)
    assert pacing.timing().late_steps == 0


@pytest.mark.parametrize("hz", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(hz):
    with pytest.raises(HilDaftError, match="hz="):
        Pacing(hz)


def test_the_worker_loop_loads_no_torch():
    check = "import sys, hildaft.runtime.interaction; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


class Keys:
    """Gives marks, and holds the robot, before chosen steps."""

    def __init__(self, robot, marks=None, hold_before=None, idles=3):
        self.robot, self.marks, self.hold_before, self.idles = (
            robot,
            marks or {},
            hold_before,
            idles,
        )
        self.idled = 0

    def take_mark(self):
        return self.marks.pop(self.robot.steps, None)

    def holds(self):
        return self.robot.steps == self.hold_before and self.idled < self.idles

    def idle(self):
        self.idled += 1


STILL = {"gain": 0.0, "drift": 0.01}


@pytest.mark.parametrize(
    ("mark", "reward", "terminated"),
    [("success", 1.0, True), ("failure", 0.0, True), ("stop", 0.0, False)],
)
def test_a_mark_ends_the_episode_at_the_step_that_was_judged(mark, reward, terminated):
    robot = PointRobot()
    episode = run(robot, PixelPolicy(**STILL), keys=Keys(robot, {4: mark}))
    assert len(episode) == 4
    assert len(robot.actions) == 4
    assert len(episode.h) == 5
    assert episode.reward.tolist() == [0, 0, 0, reward]
    assert bool(episode.terminated[-1]) is terminated
    assert bool(episode.truncated[-1]) is not terminated
    assert episode.success is (mark == "success")
    assert robot.stops == 1


def test_again_throws_the_episode_away_and_starts_it_anew():
    robot = PointRobot()
    operator = Helper(robot, count=0)
    episode = run(robot, PixelPolicy(**STILL), operator, keys=Keys(robot, {3: "again"}))
    assert operator.begun == [("reach", 3, 3)] * 2
    assert len(episode) == LIMIT
    assert len(robot.actions) == 3 + LIMIT


def test_a_stop_before_the_first_step_leaves_the_robot_where_it_is():
    robot = PointRobot()
    operator = Helper(robot, first=0)
    episode = run(robot, PixelPolicy(), operator, keys=Keys(robot, {0: "stop"}))
    assert len(episode) == 1
    assert episode.truncated[-1]
    np.testing.assert_array_equal(robot.actions[0][:6], 0.0)
    assert not episode.is_intervention.any()


def test_a_held_robot_is_stopped_once_and_takes_no_step_and_is_not_late():
    robot = PointRobot()
    time = Time(cost_s=0.002)
    keys = Keys(robot, hold_before=5, idles=4)
    wait = keys.idle

    def idle():
        time.now_s += 10.0
        wait()

    keys.idle = idle
    pacing = Pacing(10.0, clock=time.clock, wait=time.wait)
    episode = run(robot, PixelPolicy(**STILL), keys=keys, pacing=pacing)
    assert keys.idled == 4
    assert len(episode) == LIMIT
    assert robot.stops == 2
    assert pacing.timing().late_steps == 0


def test_a_step_of_the_hand_over_is_executed_but_no_correction():
    class Handover(Helper):
        def tweak(self, policy_action):
            given = super().tweak(policy_action)
            return given and Tweak(given.action, is_correction=False)

    robot = PointRobot()
    episode = run(robot, PixelPolicy(**STILL), Handover(robot, first=2, count=3))
    assert not episode.is_intervention.any()
    assert np.isnan(episode.human_action).all()
    assert (episode.executed_action[2:5] != episode.policy_action[2:5]).any()
    np.testing.assert_array_equal(np.stack(robot.actions), episode.executed_action)


def test_a_person_judges_their_demonstration_too():
    robot = PointRobot()
    operator = Helper(robot)

    def still():
        return np.zeros(7, np.float32)

    episode = record_demonstration(
        robot,
        PixelPolicy(),
        still,
        operator.begin,
        "reach",
        4,
        pacing=Pacing(),
        keys=Keys(robot, {6: "success"}),
    )
    assert len(episode) == 6
    assert episode.success
