"""The worker's loop: when it acts, and when the robot is held instead."""

import threading
from types import SimpleNamespace

import pytest

from hildaft.runtime import worker as worker_module
from hildaft.runtime.channel import Weights
from hildaft.runtime.interaction import Pacing
from hildaft.runtime.link import link_pb2 as pb
from hildaft.runtime.rig import Companion
from hildaft.runtime.worker import Worker
from point_robot import Helper, PixelPolicy, PointRobot

# A link that reads from a list stands for one to a learner.
pytestmark = pytest.mark.usefixtures("unchecked_calls")

OLD_S, YOUNG_S = 400.0, 1.0


class Policy(PixelPolicy):
    version = 0

    def begin(self, seed):
        pass

    def load(self, tensors, version):
        pass


class CountedRobot(PointRobot):
    resets = 0

    def reset(self, task, seed):
        self.resets += 1
        return super().reset(task, seed)


class ScriptedLink:
    """Hands out (assignment, age of the weights) one after another; None for a learner that is away."""

    journal = None
    weights = Weights("w1", 1, b"")

    def __init__(self, robot, script):
        self._robot, self._script = robot, list(script)
        self.weight_age_s, self.put_episodes, self.resets = 0.0, [], []

    def check(self):
        self.resets.append(self._robot.resets)

    def next(self):
        activity, self.weight_age_s = self._script.pop(0)
        if activity is None:
            return None
        return pb.Assignment(activity=activity, task="reach", seed=3, weights="w1")

    def put(self, episode):
        self.put_episodes.append(episode)

    def drain(self, deadline_s):
        return True


def work(monkeypatch, *script):
    monkeypatch.setattr(worker_module, "_WAIT_S", 0.0)
    robot, said, chosen = CountedRobot(), [], []

    def local_seed(index):
        chosen.append(index)
        return index

    link = ScriptedLink(robot, [*script, (pb.Assignment.FINISHED, 0.0)])
    worker = Worker(
        robot,
        Policy(),
        Companion.simulated(Helper(robot)),
        SimpleNamespace(shortage=""),
        ("reach", "push"),
        Pacing(),
        local_seed=local_seed,
        say=said.append,
        stop=threading.Event(),
        max_weight_age_s=300.0,
    )
    assert worker.run(link)
    return robot, link, said, chosen


@pytest.mark.parametrize("activity", [pb.Assignment.ROLLOUT, pb.Assignment.EVALUATE])
def test_weights_that_are_too_old_hold_the_robot_whatever_the_learner_assigns(
    monkeypatch, activity
):
    held = [(activity, OLD_S)] * 5
    robot, link, said, _ = work(monkeypatch, *held, (activity, YOUNG_S))
    # Neither a reset nor an episode while they are old; both once they are confirmed.
    assert link.resets == [0] * 6 + [1]
    assert len(link.put_episodes) == 1
    assert len(link.put_episodes[0]) > 1
    assert said == [
        "the weights were last confirmed 400 s ago, 300 s are allowed; the robot holds until the "
        "learner confirms them"
    ]
    # Held once, then at the end of the episode and of the run.
    assert robot.stops == 3


def test_alone_the_worker_goes_on_while_its_weights_are_young_and_skips_no_scene(monkeypatch):
    script = [(pb.Assignment.ROLLOUT, 0.0), (None, 200.0), (None, OLD_S), (None, OLD_S)]
    _, link, said, chosen = work(monkeypatch, *script, (None, YOUNG_S))
    assert [(e.task, e.seed) for e in link.put_episodes] == [
        ("reach", 3),
        ("push", 1),
        ("reach", 2),
    ]
    assert chosen == [1, 2, 2, 2]
    assert len(said) == 1


def test_a_demonstration_needs_no_weights(monkeypatch):
    _, link, said, _ = work(monkeypatch, (pb.Assignment.DEMONSTRATE, OLD_S))
    assert [episode.source for episode in link.put_episodes] == ["demo"]
    assert said == []
