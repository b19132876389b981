"""A dual actor small enough to train in a test, and random rows of its widths."""

from dataclasses import replace

import torch
from torch import Tensor

from hildaft.algo.dual_actor import Dims, DualActorConfig
from hildaft.data.replay import Batch
from hildaft.models.critic import CriticConfig
from hildaft.models.refinement import RefinementConfig

TASKS = ("upright", "pick", "assemble")
DIMS = Dims(h=5, features=6, proprio=2)
TABLE = torch.randn(27, 4, generator=torch.Generator().manual_seed(9))
"""Stands for the embedded refinement commands."""
N, B = len(TASKS), 8
"""Tasks, and rows of each."""


def shrink(config: DualActorConfig) -> DualActorConfig:
    """The same method with networks of 8 units, reporting at every update."""
    return replace(
        config,
        primary=replace(config.primary, hidden=8),
        critic=CriticConfig(
            feature_projection=8, proprio_projection=4, action_projection=8, hidden=8
        ),
        refinement=RefinementConfig(projection=4, hidden=8),
        metrics_every=1,
    )


def make_batch(tasks: range = range(N), seed: int = 1) -> Batch:
    """B rows of each task, half of them from demonstrations."""
    generator, n = torch.Generator().manual_seed(seed), len(tasks)

    def normal(*width: int) -> Tensor:
        return torch.randn(n, B, *width, generator=generator)

    return Batch(
        tasks=tasks,
        h=normal(5),
        features=normal(6),
        proprio=normal(2),
        action=normal(7).clamp(-1.0, 1.0),
        reward=(normal() > 1.0).float(),
        not_terminal=(normal() > -1.0).float(),
        mc_return=torch.rand(n, B, generator=generator),
        next_h=normal(5),
        next_features=normal(6),
        next_proprio=normal(2),
        from_demos=(torch.arange(B) < B // 2).expand(n, B),
        is_chosen=torch.ones(n, B, dtype=torch.bool),
    )
