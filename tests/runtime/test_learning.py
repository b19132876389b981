"""A learner that is resumed shows at once how far it is."""

import threading
from types import SimpleNamespace

import pytest

from hildaft.runtime.learning import RemoteSession
from hildaft.runtime.link.server import Progress
from hildaft.runtime.session import Plan

# A learner that only counts stands for one that trains.
pytestmark = pytest.mark.usefixtures("unchecked_calls")


class RestoredRun:
    """A run that goes on from a checkpoint, and looks at what the status shows when it is next asked for anything."""

    def __init__(self, learner, look):
        self.learner, self._look = learner, look
        self.metrics = SimpleNamespace(close=lambda: None)

    def restore(self):
        learner = self.learner
        learner.warmup_updates, learner.online_updates, learner.online_transitions = 12, 34, 56

    def warm_up(self, updates):
        self._look()

    def acting_weights(self):
        return b""

    def checkpoint(self):
        pass


def test_a_resumed_learner_shows_what_it_has_before_the_next_episode():
    learner = SimpleNamespace(warmup_updates=0, online_updates=0, online_transitions=0)
    progress, stop, shown = Progress(wanted_transitions=100), threading.Event(), []

    def look():
        shown.append(
            (progress.warmup_updates, progress.online_updates, progress.online_transitions)
        )
        stop.set()

    plan = Plan(
        tasks=("reach",),
        seed=0,
        real_time=False,
        demonstrations=1,
        warmup_updates=12,
        online_transitions=100,
        episodes=1,
        episodes_before=1,
        episodes_during=1,
        evaluate_every=100,
    )
    session = RemoteSession(
        RestoredRun(learner, look),
        plan,
        SimpleNamespace(),
        SimpleNamespace(stage=""),
        SimpleNamespace(publish=lambda tensors, version: None),
        progress,
        None,
        SimpleNamespace(stage=lambda name, total: None),
        stop,
    )
    assert not session.run()
    assert shown == [(12, 34, 56)]
