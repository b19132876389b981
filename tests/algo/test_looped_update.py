"""The batched updates against the same updates as plain loops over tasks, members and actions."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hildaft.algo import cloning_weights
from hildaft.algo.dual_actor import HILDAFT, PAPER, Dims, DualActor, DualActorConfig
from hildaft.data.replay import Batch, TalkTweakBatch
from hildaft.models.critic import CriticConfig
from loop_learner import LoopLearner
from reference_critic import reference_of

TASKS = ("upright", "pick", "assemble")
DIMS = Dims(h=6, features=9, proprio=2)
N, B = 3, 12
STEP = 3e-4
"""The least of the learning rates: what Adam moves an entry by in one update."""


def build(config: DualActorConfig) -> DualActor:
    table = torch.randn(27, 5, generator=torch.Generator().manual_seed(4))
    return DualActor(config, TASKS, DIMS, table, seed=1)


def batches() -> tuple[Batch, TalkTweakBatch]:
    generator = torch.Generator().manual_seed(5)

    def normal(*width: int) -> Tensor:
        return torch.randn(N, B, *width, generator=generator)

    batch = Batch(
        tasks=range(N),
        h=normal(6),
        features=normal(9),
        proprio=normal(2),
        action=normal(7).clamp(-1.0, 1.0),
        reward=(normal() > 1.0).float(),
        not_terminal=(normal() > -1.0).float(),
        mc_return=torch.rand(N, B, generator=generator),
        next_h=normal(6),
        next_features=normal(9),
        next_proprio=normal(2),
        from_demos=(torch.arange(B) < B // 2).expand(N, B),
        is_chosen=torch.ones(N, B, dtype=torch.bool),
    )
    talk = TalkTweakBatch(
        h=normal(6),
        features=normal(9),
        proprio=normal(2),
        action=normal(7).clamp(-1.0, 1.0),
        command=torch.randint(27, (N, B), generator=generator),
        tasks=tuple(range(N)),
    )
    return batch, talk


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    # Adam divides by the gradient's size, so where that is next to nothing its rounding decides the step of an entry:
    # one entry in ten thousand may go its own way.
    for (name, own), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        apart = (own - other).detach().abs() / STEP
        assert int((apart > 0.02).sum()) <= 1 + own.numel() / 10_000, name
        assert apart.max() <= 4.0, name


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("warmup", [False, True], ids=["online", "warmup"])
@pytest.mark.parametrize("preset", [HILDAFT, PAPER], ids=["hildaft", "paper"])
def test_two_updates_agree_to_rounding(
    preset: DualActorConfig, warmup: bool, members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloning_weights, "BEGINS_AT", 0)
    config = replace(
        preset,
        critic=CriticConfig(members=members, hidden=32),
        bc_data="demos",
        target_clip=True,
        calql_actions=3,
        advantage_temperature=float(preset is HILDAFT),
    )
    ours, twin = build(config), build(config)
    loop = LoopLearner.like(twin)
    batch, talk = batches()
    phase = "warmup" if warmup else "online"
    for _ in range(2):
        ours.update_critics(batch, phase)
        loop.update_critics(batch, warmup=warmup)
        ours.update_primary(batch, phase, None if warmup else talk)
        loop.update_primary(batch, None if warmup else talk, warmup=warmup)
        if not warmup:
            ours.update_refinement(talk)
            loop.update_refinement(talk)
    assert_same(ours.actors.primary, twin.actors.primary)
    assert_same(ours.actors.refinement, twin.actors.refinement)
    assert_same(ours._acting.primary, loop.average)
    for task in range(N):
        for member in range(members):
            assert_same(
                reference_of(ours.ensembles.critics, config.critic, task, member),
                loop.critics[task][member],
            )
            assert_same(
                reference_of(ours.ensembles.targets, config.critic, task, member),
                loop.targets[task][member],
            )
