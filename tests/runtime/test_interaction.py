import math
import subprocess
import sys

import numpy as np
import pytest

from hildaft.runtime.interaction import Pacing, record_demonstration, run_episode
from hildaft.types import NULL_COMMAND, HilDaftError, RefinementCommand
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
