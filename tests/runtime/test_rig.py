"""One robot's side on both channels: what it makes, what acts, and what ends an episode."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from hildaft.data.episode_builder import EpisodeBuilder
from hildaft.data.episodes import EpisodeStore
from hildaft.runtime.channel import Channel, InProcessChannel
from hildaft.runtime.interaction import Pacing
from hildaft.runtime.link.spool import Spool
from hildaft.runtime.rig import Companion, Rig
from link_peers import linked, serving, wait_until
from point_robot import Helper, PixelPolicy, PointRobot


class Learnt(PixelPolicy):
    """Steers the better the newer its weights; remembers what it was given, and when."""

    def __init__(self, robot):
        super().__init__(gain=0.0)
        self.robot, self.version, self.taken, self.begun = robot, 0, [], []

    def begin(self, seed):
        self.begun.append(seed)

    def load(self, tensors, version):
        self.version = version
        self.taken.append((self.robot.steps, tensors))


class Marks:
    def __init__(self, robot, marks):
        self.robot, self.marks = robot, marks

    def take_mark(self):
        return self.marks.pop(self.robot.steps, None)

    def holds(self):
        return False

    def idle(self):
        raise AssertionError


@contextlib.contextmanager
def in_process(tmp_path):
    channel = InProcessChannel(EpisodeStore(tmp_path / "episodes"))
    yield channel, channel.publish


@contextlib.contextmanager
def over_the_link(tmp_path):
    spool = Spool(tmp_path / "spool", "run", "arm", say=lambda line: None)
    with (
        contextlib.closing(spool),
        serving(tmp_path / "episodes") as server,
        linked(server, spool) as link,
    ):
        yield link, server._shelf.publish
        assert link.drain(20.0)


@pytest.fixture(params=[in_process, over_the_link])
def ends(request, tmp_path):
    return request.param(tmp_path)


def rig_of(channel, robot, policy, keys=None, **options):
    robot.reset("reach", 0)
    person = Companion.simulated(Helper(robot, first=1, count=1))
    return Rig(robot, policy, replace(person, keys=keys), channel, Pacing(), **options)


def test_both_channels_bring_episodes_and_weights(ends, tmp_path):
    robot = PointRobot()
    policy = Learnt(robot)
    with ends as (channel, publish):
        assert isinstance(channel, Channel)
        assert channel.weights is None
        rig = rig_of(channel, robot, policy)
        assert rig.policy.refresh() is None
        publish(b"first", 1)
        wait_until(lambda: channel.weights is not None)
        assert rig.demonstrate("reach", 1).success
        made = rig.roll_out("reach", 2)
        assert channel.weight_age_s < 20
    assert (made.policy_version, policy.begun, len(policy.taken)) == (1, [2], 1)
    store = EpisodeStore(tmp_path / "episodes")
    assert [(s.source, s.seed) for s in store.summaries()] == [("demo", 1), ("online", 2)]
    np.testing.assert_array_equal(store.read(1).executed_action, made.executed_action)


def test_newer_weights_are_taken_over_between_two_steps(tmp_path):
    robot = PointRobot()
    policy = Learnt(robot)
    with in_process(tmp_path) as (channel, publish):
        publish(b"first", 1)

        class Publishing(Marks):
            def take_mark(self):
                if self.robot.steps == 7:
                    publish(b"second", 2)

        made = rig_of(channel, robot, policy, keys=Publishing(robot, {})).roll_out("reach", 2)
    assert made.policy_version == 1
    assert [(max(0, step), tensors) for step, tensors in policy.taken[1:]] == [(8, b"second")]


def test_weights_that_grow_too_old_end_the_episode_at_that_step(tmp_path, monkeypatch):
    robot = PointRobot()
    with in_process(tmp_path) as (channel, publish):
        publish(b"first", 1)
        monkeypatch.setattr(
            InProcessChannel, "weight_age_s", property(lambda self: float(robot.steps))
        )
        rig = rig_of(channel, robot, Learnt(robot), max_weight_age_s=5.5)
        made = rig.roll_out("reach", 2)
        assert len(made) == 6
        assert made.truncated[-1]
        assert robot.stops == 1
        # An evaluation that was cut short says nothing of the policy.
        assert rig.evaluate("reach", 3) is None
    assert [s.source for s in EpisodeStore(tmp_path / "episodes").summaries()] == ["online"]


@pytest.mark.parametrize(("mark", "success"), [("success", True), ("failure", False)])
def test_a_mark_reaches_the_learner_and_outlives_a_kill(tmp_path, mark, success, monkeypatch):
    robot = PointRobot()
    with over_the_link(tmp_path) as (link, publish):
        publish(b"first", 1)
        rig = rig_of(link, robot, Learnt(robot), keys=Marks(robot, {4: mark}))
        assert rig.roll_out("reach", 2).success is success
        # Killed after the mark, before the finished episode is written.
        monkeypatch.setattr(EpisodeBuilder, "build", lambda *_: pytest.fail("killed"))
        with pytest.raises(BaseException, match="killed"):
            rig_of(link, robot, Learnt(robot), keys=Marks(robot, {3: mark})).roll_out("reach", 5)
        monkeypatch.undo()
        link.journal.recover()
        assert link.drain(20.0)
    first, second = EpisodeStore(tmp_path / "episodes").summaries()
    assert (first.steps, first.success) == (4, success)
    assert (second.steps, second.success) == (3, success)


def test_an_episode_that_is_done_again_leaves_nothing(tmp_path):
    robot = PointRobot()
    with over_the_link(tmp_path) as (link, publish):
        publish(b"first", 1)
        made = rig_of(link, robot, Learnt(robot), keys=Marks(robot, {3: "again"})).roll_out(
            "reach", 2
        )
    assert [s.steps for s in EpisodeStore(tmp_path / "episodes").summaries()] == [len(made)]


def test_a_failed_demonstration_leaves_nothing(ends, tmp_path):
    robot = PointRobot()
    with ends as (channel, publish):
        publish(b"first", 1)
        rig = rig_of(channel, robot, Learnt(robot), keys=Marks(robot, {2: "failure"}))
        assert not rig.demonstrate("reach", 1).success
    assert len(EpisodeStore(tmp_path / "episodes")) == 0
