"""Learning, on a problem small enough for a unit test: does the refinement actor come to listen?"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hildaft.algo.dual_actor import HILDAFT, PAPER, Dims, DualActor, DualActorConfig
from hildaft.data.replay import Batch, States, TalkTweakBatch
from hildaft.models.consistency import ConsistencyConfig
from hildaft.models.critic import CriticConfig
from hildaft.models.refinement import RefinementConfig
from hildaft.types import RefinementCommand

DIMS = Dims(h=6, features=6, proprio=2)
ROWS = 64


class LinearProblem:
    """The right action is linear in the state; the human's words are a function of the state, as in life."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.gain = 0.3 * torch.randn(6, 7, generator=self.generator)

    def states(self, rows: int) -> Tensor:
        return torch.randn(1, rows, 6, generator=self.generator)

    def batch(self) -> Batch:
        state = self.states(ROWS)
        zeros = torch.zeros(1, ROWS)
        return Batch(
            tasks=range(1),
            h=state,
            features=state,
            proprio=torch.zeros(1, ROWS, 2),
            action=(state @ self.gain).clamp(-1.0, 1.0),
            reward=zeros,
            not_terminal=zeros,
            mc_return=zeros,
            next_h=state,
            next_features=state,
            next_proprio=torch.zeros(1, ROWS, 2),
            from_demos=torch.ones(1, ROWS, dtype=torch.bool),
            is_chosen=torch.ones(1, ROWS, dtype=torch.bool),
        )

    def talk_tweak(self) -> TalkTweakBatch:
        batch = self.batch()
        signs = (2.0 * batch.action[..., :3]).round().clamp(-1, 1).int().tolist()[0]
        command = [RefinementCommand((x, y, z)).index for x, y, z in signs]
        return TalkTweakBatch(
            h=batch.h,
            features=batch.features,
            proprio=batch.proprio,
            action=batch.action,
            command=torch.tensor([command]),
            tasks=(0,),
        )


def train(config: DualActorConfig, refinement_updates: int) -> dict[str, float]:
    problem = LinearProblem()
    config = replace(
        config,
        primary=ConsistencyConfig(hidden=32),
        critic=CriticConfig(hidden=8),
        refinement=RefinementConfig(projection=16, hidden=32),
        primary_learning_rate=3e-3,
        refinement_learning_rate=3e-3,
    )
    table = torch.randn(27, 16, generator=torch.Generator().manual_seed(1))
    actor = DualActor(config, ("pick",), DIMS, table, seed=0)
    for _ in range(600):
        actor.update_primary(problem.batch(), "warmup")
    for _ in range(refinement_updates):
        actor.update_refinement(problem.talk_tweak())
    held_out = problem.states(200)[0]
    return actor.diagnostics(States(held_out, held_out, torch.zeros(200, 2)))


def test_with_tied_noise_and_random_commands_the_policy_listens() -> None:
    found = train(HILDAFT, 300)
    assert found["obedience"] >= 0.85
    assert found["size_mm"] >= 0.5
    assert found["null_drift_mm"] <= 0.5
    # delta = 0.05 of 15 mm is 0.75 mm of spread.
    assert found["spread_mm"] == pytest.approx(0.75, abs=0.25)


def test_literal_losses_leave_no_noise_to_steer_with() -> None:
    # Fitting a target that does not depend on the noise makes the head ignore it.
    assert train(PAPER, 0)["spread_mm"] < 0.3
