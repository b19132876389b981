"""Which rows eq. 5 follows, and how closely."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hildaft.algo import losses
from hildaft.algo.config import DualActorConfig
from hildaft.algo.crew import Crew
from hildaft.data.replay import Batch


def cloned_rows(batch: Batch, config: DualActorConfig) -> Bool[Tensor, "n b"]:
    """The rows that eq. 5 sees (`bc_data`)."""
    if config.bc_data == "all":
        return torch.ones_like(batch.from_demos)
    if config.bc_data == "demos":
        return batch.from_demos
    # Only an episode that ended in success has a return.
    return batch.from_demos | (batch.mc_return > 0)


@torch.no_grad()
def weigh_by_advantage(
    advantage: Float[Tensor, "n b"],
    keep: Bool[Tensor, "n b"],
    config: DualActorConfig,
    crew: Crew,
) -> Float[Tensor, "n b"]:
    """X4: weights of the kept rows, 1 in each task's mean, over the rows of all processes."""

    def total(values: Float[Tensor, "n b"]) -> Float[Tensor, "n 1"]:
        return crew.mean(values.sum(dim=1, keepdim=True))

    rows, advantage = total(keep.float()), advantage * keep
    centred = (advantage - total(advantage) / rows) * keep
    spread = (total(centred.square()) / rows).sqrt().clamp(min=1e-6)
    weight = losses.advantage_weights(
        advantage, keep, config.advantage_temperature * spread, config.advantage_weight_max
    )
    return weight * rows / total(weight)
