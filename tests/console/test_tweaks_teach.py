"""From a key in the browser to a policy that listens: tweaks, labels, buffers, training, obedience."""

from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
import torch
from live import ObedientPolicy, live_console

from hildaft.algo.config import HILDAFT
from hildaft.algo.dual_actor import DualActor
from hildaft.data.replay import Dims, Replay, States
from hildaft.models.consistency import ConsistencyConfig
from hildaft.models.critic import CriticConfig
from hildaft.models.refinement import RefinementConfig
from hildaft.teleop.talk import OperatorFrame
from hildaft.types import COMMAND_COUNT, Encoded, RefinementCommand

WIDTH = 3
FRAME = OperatorFrame(forward="-x", left="-y")
SIGNS = {
    "w": (1, 0, 0),
    "s": (-1, 0, 0),
    "a": (0, 1, 0),
    "d": (0, -1, 0),
    "r": (0, 0, 1),
    "f": (0, 0, -1),
}
"""What each key means as the operator sees it: (forward, left, up)."""


class WanderingPolicy(ObedientPolicy):
    """Sees states that say nothing about where the person will push."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def encode(self, observation, task):
        state = self.rng.normal(size=WIDTH).astype(np.float32)
        return Encoded(h=state, features=state, proprio=observation.proprio)


def pushed(live, first):
    """Steps of the hand since the `first`: nothing else moves as fast."""
    return sum(np.abs(action[:3]).max() >= 0.5 for _, action in live.robot.steps[first:])


@pytest.fixture(scope="module")
def episode(chromium):
    """A rollout in which a person held each of the six keys on the real page for a while."""
    with live_console(hz=20.0, policy=WanderingPolicy(), frame=FRAME) as live:
        page = chromium.new_page()
        try:
            page.goto(live.address)
            page.wait_for_selector("body.seated")
            for key in SIGNS:
                live.wait(lambda: live.station.operator.control == "policy")
                first = len(live.robot.steps)
                page.keyboard.down(key)
                live.wait(lambda first=first: pushed(live, first) >= 22, 60.0)
                page.keyboard.up(key)
                live.wait(lambda: live.station.operator.control != "human")
            page.keyboard.press("y")
            live.wait(lambda: live.episodes)
        finally:
            page.close()
    return live.episodes[0]


def replay_of(episode):
    replay = Replay(("reach",), Dims(h=WIDTH, features=WIDTH, proprio=2), discount=0.97)
    replay.add_episode(episode)
    return replay


def test_tweaks_arrive_in_the_interventions_with_the_words_of_their_key(episode):
    wanted = [FRAME.to_base(RefinementCommand(signs)).index for signs in SIGNS.values()]
    rows = np.flatnonzero(episode.is_intervention)
    # One label per key, in order; a busy machine may let the hand go for a moment in between.
    labels = [(int(index), len(list(same))) for index, same in groupby(episode.refinement[rows])]
    assert [index for index, _ in labels] == wanted
    assert all(count >= 18 for _, count in labels)
    # Nobody spoke: the words are the tweaks' own.
    assert set(episode.spoken) == {13}
    replay = replay_of(episode)
    counts = replay.counts()["reach"]
    assert counts["interventions"] == counts["talk_tweak"] == len(rows)
    assert counts["rollouts"] == len(episode) - len(rows)
    batch = replay.sample_talk_tweak(256, torch.Generator().manual_seed(0))
    assert set(batch.command.flatten().tolist()) == set(wanted)
    for action, index in zip(batch.action[0], batch.command[0].tolist(), strict=True):
        signs = RefinementCommand.from_index(index).signs
        assert np.sign(action[:3].numpy()).tolist() == list(signs)


def obedience(episode, *, opposite=False, **changes):
    """Before and after the refinement actor has learned from these tweaks; `opposite` turns their words round."""
    replay = replay_of(episode)
    config = replace(
        HILDAFT,
        primary=ConsistencyConfig(hidden=32),
        critic=CriticConfig(hidden=8),
        refinement=RefinementConfig(projection=16, hidden=32),
        primary_learning_rate=3e-3,
        refinement_learning_rate=3e-3,
        refinement_q_weight=0.0,
        **changes,
    )
    table = torch.randn(COMMAND_COUNT, 16, generator=torch.Generator().manual_seed(1))
    actor = DualActor(config, ("reach",), replay.dims, table, seed=0)
    generator = torch.Generator().manual_seed(0)
    # The primary actor stands for one that errs: it was cloned from the drift.
    rollouts = replace(episode, source="demo", is_intervention=np.zeros(len(episode), bool))
    clones = Replay(("reach",), replay.dims, discount=0.97)
    clones.add_episode(rollouts)
    for _ in range(400):
        actor.update_primary(clones.sample(64, generator, "warmup"), "warmup")
    before = measure(actor)
    for _ in range(200):
        batch = replay.sample_talk_tweak(64, generator)
        if opposite:
            batch = replace(batch, command=COMMAND_COUNT - 1 - batch.command)
        actor.update_refinement(batch)
    return before, measure(actor)


def measure(actor):
    states = torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(2))
    proprio = torch.tensor([[1.0, 0.0]]).expand(200, 2)
    return actor.diagnostics(States(states, states, proprio))["obedience"]


def test_the_refinement_actor_trained_on_the_tweaks_obeys(episode):
    before, after = obedience(episode)
    assert before < 0.7
    assert after >= 0.95


def test_it_is_the_words_of_the_tweaks_that_teach(episode):
    # X2 alone would teach it to listen; without X2 all it knows is these few seconds of tweaks.
    _, said = obedience(episode, counterfactual_weight=0.0)
    _, contrary = obedience(episode, opposite=True, counterfactual_weight=0.0)
    assert said >= 0.9
    assert contrary <= 0.1
