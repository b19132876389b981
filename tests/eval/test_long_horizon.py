"""Chains under a policy: who is told what, and where a chain broke."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from hildaft.eval.long_horizon import run_chain
from hildaft.eval.steering_figure import SteeredState, draw_states
from hildaft.jobs import draw_commands
from hildaft.robots.bolt_sim.chain import BoltChain
from hildaft.teleop.oracle import oracle_action
from hildaft.teleop.simulated_operator import OperatorConfig, SimulatedOperator
from hildaft.types import (
    NULL_COMMAND,
    Action,
    Encoded,
    HilDaftError,
    Observation,
    RefinementCommand,
)


class Scripted:
    """Acts as told, and remembers the commands it was given."""

    version, encoder_hash = 0, ""

    def __init__(self, act: Callable[[], Action]) -> None:
        self._act = act
        self.heard: list[RefinementCommand] = []

    def begin(self, seed: int) -> None:
        pass

    def encode(self, observation: Observation, task: str) -> Encoded:
        return Encoded(*(np.zeros(n, np.float32) for n in (4, 3, 2)))

    def act(self, encoded: Encoded, command: RefinementCommand) -> Action:
        self.heard.append(command)
        return self._act()


@pytest.fixture
def chain():
    chain = BoltChain("A", 1)
    yield chain
    chain.close()


def operator(chain: BoltChain, talk: str) -> SimulatedOperator:
    config = replace(OperatorConfig(), tweaks=False, talk=talk)
    return SimulatedOperator(chain.scene_state, chain.env.action_scale, config)


def test_the_oracle_hears_nothing_and_fails_nowhere(chain: BoltChain) -> None:
    policy = Scripted(lambda: oracle_action(chain.scene_state(), chain.env.action_scale))
    outcome = run_chain(chain, policy, operator(chain, "none"), seed=0)
    assert outcome.result.success
    assert (outcome.bolts_done, outcome.failed_task, outcome.reason) == (1, None, None)
    assert len(policy.heard) == outcome.result.task_steps
    assert outcome.spoken_steps == 0
    assert outcome.to_json()["success"] is True


def test_standing_still_is_spoken_to_and_explained(chain: BoltChain) -> None:
    still = np.array([0, 0, 0, 0, 0, 0, -1], dtype=np.float32)
    policy = Scripted(lambda: still)
    outcome = run_chain(chain, policy, operator(chain, "right"), seed=0)
    assert (outcome.bolts_done, outcome.failed_bolt, outcome.failed_task) == (0, 0, "upright")
    assert outcome.reason == "never gripped"
    assert outcome.spoken_steps == sum(not command.is_null for command in policy.heard) > 0


def test_the_picture_of_the_commands_has_a_row_per_state() -> None:
    images = {
        "head": np.full((256, 256, 3), 120, np.uint8),
        "wrist": np.zeros((128, 128, 3), np.uint8),
    }
    eye = np.eye(3)
    state = SteeredState(
        task="pick",
        step=3,
        wanted=NULL_COMMAND,
        observation=Observation(images=images, proprio=np.zeros(2, np.float32)),
        silent_mm=np.array([1.0, 2.0, -3.0]),
        steered_mm=np.concatenate([eye, -eye]),
        at_uv={name: np.array([0.5, 0.98]) for name in images},
        silent_uv={name: np.array([0.52, 0.9]) for name in images},
        steered_uv={name: np.full((6, 2), 0.4) for name in images},
    )
    figure = draw_states([state, replace(state, task="upright")], "two states")
    assert isinstance(figure, Figure)
    panels = figure.axes
    assert len(panels) == 6
    for panel, size in ((panels[0], 256), (panels[1], 128)):
        low, high = panel.get_xlim()
        bottom, top = panel.get_ylim()
        # The window lies within the picture.
        assert -0.5 <= low < high <= size - 0.5
        assert -0.5 <= top < bottom <= size - 0.5


def test_a_picture_that_is_no_png_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(HilDaftError, match=r"x\.bmp: a name that ends in \.png"):
        draw_commands(tmp_path / "no run", tmp_path / "x.bmp", 0)
