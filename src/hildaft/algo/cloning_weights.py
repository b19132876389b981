"""Which rows eq. 5 follows, and how closely."""

from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hildaft.algo import losses
from hildaft.algo.config import DualActorConfig
from hildaft.algo.crew import Crew
from hildaft.data.replay import Batch, Phase

BEGINS_AT: Final = 5_000
"""Updates of the primary actor, those of the warm-up included, before X4: begun at once, 3,000 transitions left success
at 85 and 87 % where it was 99 and 92 without; begun at the 3,000th, one seed of two had 4 of 25 in `upright` there, and
15 without (docs/LOG.md)."""
WEIGHT_LIMIT: Final = 5.0
"""Of X4's weights, before they are scaled to a mean of 1."""


def cloned_rows(batch: Batch, config: DualActorConfig) -> Bool[Tensor, "n b"]:
    """The rows that eq. 5 sees (`bc_data`); none of a hand-over, whose action nobody chose."""
    if config.bc_data == "all":
        return batch.is_chosen
    if config.bc_data == "demos":
        # A hand-over's steps are no demonstrations.
        return batch.from_demos
    # Only an episode that ended in success has a return.
    return (batch.from_demos | (batch.mc_return > 0)) & batch.is_chosen


def weighs_by_advantage(config: DualActorConfig, phase: Phase, updates: int) -> bool:
    """Whether X4 is on and has begun, after so many updates of the primary actor."""
    return phase == "online" and config.advantage_temperature > 0.0 and updates >= BEGINS_AT


@torch.no_grad()
def weigh_by_advantage(
    advantage: Float[Tensor, "n b"],
    keep: Bool[Tensor, "n b"],
    config: DualActorConfig,
    crew: Crew,
) -> Float[Tensor, "n b"]:
    """X4: weights of the kept rows, 1 in each task's mean, over the rows of all processes.

    One scale serves all tasks: with one for each, `assemble` failed more often (docs/LOG.md).
    """

    def total(values: Float[Tensor, "n b"]) -> Float[Tensor, "n 1"]:
        return crew.mean(values.sum(dim=1, keepdim=True))

    rows, advantage = total(keep.float()), advantage * keep
    centred = (advantage - total(advantage) / rows) * keep
    squares = total(centred.square()).sum(dim=0, keepdim=True)
    spread = (squares / rows.sum(dim=0, keepdim=True)).sqrt().clamp(min=1e-6)
    weight = losses.advantage_weights(
        advantage, keep, config.advantage_temperature * spread, WEIGHT_LIMIT
    )
    return weight * rows / total(weight)
