"""The losses: one pure function of tensors per equation.

Axes: n tasks, e ensemble members, b rows, m sampled actions, a action components. No modules, no
configuration, no randomness; every weight that the paper leaves open is an argument.
"""

import math
from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_LEAST_EXPONENT: Final = -20.0
"""Of X4's weights: exp(-20) is nothing beside 1, and not 0."""


def q_loss(q_value: Float[Tensor, "*n b"]) -> Float[Tensor, "*n"]:
    """The negated mean value of the primary actor's own actions, one figure per task.

    Paper: Eq. 4.
    """
    return -q_value.mean(dim=-1)


def bc_loss(
    action: Float[Tensor, "*b a"], demonstrated: Float[Tensor, "*b a"], weight: Float[Tensor, "*b"]
) -> Float[Tensor, ""]:
    """Squared distance to the demonstrated action, summed over its components, mean over the rows of a weight above 0.

    Paper: Eq. 5.
    """
    return ((action - demonstrated).square().sum(dim=-1) * weight).sum() / weight.count_nonzero()


def advantage_weights(
    advantage: Float[Tensor, "n b"],
    keep: Bool[Tensor, "n b"],
    scale: Float[Tensor, "#n 1"],
    limit: float,
) -> Float[Tensor, "n b"]:
    """exp(advantage / scale), at most `limit`, for the rows eq. 5 keeps; 0 for the others. No gradient passes.

    Differs from the paper (X4): eq. 5 follows all actions alike, a person's pauses and slips too. Weights of
    advantage-weighted regression (Peng et al., 2019) follow those that the critics find better than the policy's own.
    """
    # Where all of a task's rows are far worse than the policy's own actions they weigh alike; zeros would have no mean.
    exponent = (advantage.detach() / scale).clamp(min=_LEAST_EXPONENT)
    return exponent.exp().clamp(max=limit) * keep


def karras_bc_loss(
    action: Float[Tensor, "*b a"],
    demonstrated: Float[Tensor, "*b a"],
    sigma: Float[Tensor, "*b"],
    weight: Float[Tensor, "*b"],
    sigma_data: float,
) -> Float[Tensor, ""]:
    """ConRFT's form of eq. 5: denoising at many noise levels.

    Rows weigh 1/sigma^2 + 1/sigma_data^2 (Karras et al.) times their own weight; mean over the components, as in
    ConRFT's code.
    """
    levels = (sigma**-2 + sigma_data**-2) * weight
    return (levels * (action - demonstrated).square().mean(dim=-1)).sum() / weight.count_nonzero()


def refinement_bc_loss(
    action: Float[Tensor, "*b a"], tweak: Float[Tensor, "*b a"]
) -> Float[Tensor, ""]:
    """Squared distance of the steered action to the human's, summed over components.

    Paper: Eq. 8.
    """
    return (action - tweak).square().sum(dim=-1).mean()


def refinement_q_loss(q_value: Float[Tensor, "*b"]) -> Float[Tensor, ""]:
    """The negated mean value of the steered actions.

    Paper: Eq. 9.
    """
    return -q_value.mean()


def refinement_reg_loss(
    null_action: Float[Tensor, "*b a"], primary_action: Float[Tensor, "*b a"]
) -> Float[Tensor, ""]:
    """Squared distance of the action steered by "[null]" to the primary mode's.

    The latter is held fixed. Both actions come from the same noise sample; with independent samples
    the noise alone would make the term positive.

    Paper: Eq. 10.
    """
    return (null_action - primary_action.detach()).square().sum(dim=-1).mean()


def counterfactual_loss(
    action: Float[Tensor, "*b a"],
    primary_action: Float[Tensor, "*b a"],
    direction: Float[Tensor, "*b 3"],
    step: float,
) -> Float[Tensor, ""]:
    """Asks of a random command that it moves the primary mode's action by `step` along it.

    Differs from the paper (X2): commands and states are confounded in the intervention data, so a
    network that ignores the words fits eq. 8 as well; random commands break the tie.
    """
    wanted = primary_action.detach().clone()
    wanted[..., :3] += step * direction
    return (action - wanted).square().sum(dim=-1).mean()


def uniform_task_q_loss(q_value: Float[Tensor, "n b"]) -> Float[Tensor, ""]:
    """Every task's eq. 4 with the same weight.

    Paper: Eq. 14.
    """
    return q_loss(q_value).mean()


def weighted_task_q_loss(
    q_value: Float[Tensor, "n b"], task_weights: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Every task's eq. 4 with the weight of eq. 16.

    Paper: Eq. 15.
    """
    return (task_weights * q_loss(q_value)).mean()


def compute_task_weights(
    mean_q: Float[Tensor, " n"],
    *,
    constant: float,
    low: float,
    high: float,
    of_all: Float[Tensor, " all"] | None = None,
) -> Float[Tensor, " n"]:
    """Weights that grow as a task's mean value falls below the others'; no gradient passes.

    `of_all` holds every task's mean where `mean_q` is of some of them. Negative means count as 0, since the formula
    has a pole at -`constant` and reverses its intent beyond it.

    Paper: Eq. 16.
    """
    mean_q = mean_q.detach().clamp(min=0.0)
    every = mean_q if of_all is None else of_all.detach().clamp(min=0.0)
    return (every.sum() / (len(every) * (mean_q + constant))).clamp(low, high)


def bellman_target(
    reward: Float[Tensor, "n b"],
    not_terminal: Float[Tensor, "n b"],
    next_q: Float[Tensor, "n e b"],
    discount: float,
    max_return: float | None,
) -> Float[Tensor, "n b"]:
    """Reward plus the discounted value of the next state, the least over the target ensemble.

    `not_terminal` is 0 after a true end only, so truncated episodes bootstrap. With `max_return`
    the target is clipped to [0, max_return].
    """
    target = reward + discount * not_terminal * next_q.amin(dim=1)
    return target if max_return is None else target.clamp(0.0, max_return)


def bellman_loss(
    q_value: Float[Tensor, "n e b"], target: Float[Tensor, "n b"]
) -> Float[Tensor, " n"]:
    """Squared temporal-difference error per task, mean over members and rows."""
    return (q_value - target.detach().unsqueeze(1)).square().mean(dim=(1, 2))


def conservative_loss(
    q_data: Float[Tensor, "n e b"],
    q_uniform: Float[Tensor, "n e b m1"],
    q_policy: Float[Tensor, "n e b m2"],
    mc_return: Float[Tensor, "n b"],
    *,
    temperature: float,
    floor_uniform: bool,
) -> Float[Tensor, " n"]:
    """Cal-QL's penalty per task: soft maximum over sampled actions less the data action's value.

    The values of the policy's actions are floored at the Monte-Carlo return, which calibrates them;
    `floor_uniform` floors the uniform ones too, as ConRFT does. The data action counts among the
    sampled ones and log(count) is taken off, so that equal values give 0.
    """
    floor = mc_return[:, None, :, None]
    q_policy = torch.maximum(q_policy, floor)
    if floor_uniform:
        q_uniform = torch.maximum(q_uniform, floor)
    candidates = torch.cat([q_uniform, q_policy, q_data.unsqueeze(-1)], dim=-1)
    soft_maximum = torch.logsumexp(candidates / temperature, dim=-1)
    soft_maximum = temperature * (soft_maximum - math.log(candidates.shape[-1]))
    return (soft_maximum - q_data).mean(dim=(1, 2))
