"""The critics: every task's ensemble in one batched pass, no two members sharing a weight."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hildaft.types import ACTION_DIM, HilDaftError

CriticWeights: TypeAlias = Mapping[str, Tensor]
"""By name; the first two axes are (task, member)."""


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """Shape of one critic, and how many make an ensemble."""

    members: int = 2
    """Independent critics per task. Not in the paper; 2 as in ConRFT."""

    feature_projection: int = 128
    """Width the image features are projected to. Not in the paper."""

    proprio_projection: int = 32
    """Width the proprioception is projected to. Not in the paper."""

    action_projection: int = 64
    """Width the action is projected to. Not in the paper."""

    hidden: int = 256
    """Width of the two hidden layers of the head. From ConRFT."""

    def __post_init__(self) -> None:
        for name in (
            "members",
            "feature_projection",
            "proprio_projection",
            "action_projection",
            "hidden",
        ):
            if getattr(self, name) < 1:
                msg = f"critic.{name}={getattr(self, name)}: must be >= 1"
                raise HilDaftError(msg)


@final
class Critics(nn.Module):
    """Q(s, a) for n tasks with e members each (Sec. IV-C).

    Image features, proprioception and action are each projected (linear, LayerNorm, tanh),
    concatenated, and go through a two-layer head (linear, LayerNorm, SiLU). The head's first layer
    is split into a state part and an action part (exact), so that many actions of one state share
    the former. LayerNorm has no gain or bias of its own. Weights are stacked over (task, member);
    every pass is a batched matmul.
    """

    def __init__(self, config: CriticConfig, tasks: int, features: int, proprio: int) -> None:
        super().__init__()
        state = config.feature_projection + config.proprio_projection
        self._linear("features_in", (tasks, config.members), features, config.feature_projection)
        self._linear("proprio_in", (tasks, config.members), proprio, config.proprio_projection)
        self._linear("action_in", (tasks, config.members), ACTION_DIM, config.action_projection)
        # Both halves of one layer over the concatenation are initialised for its whole fan-in.
        fan_in = state + config.action_projection
        self._linear("state_to_hidden", (tasks, config.members), state, config.hidden, fan_in)
        self._linear(
            "action_to_hidden",
            (tasks, config.members),
            config.action_projection,
            config.hidden,
            fan_in,
            bias=False,
        )
        self._linear("hidden", (tasks, config.members), config.hidden, config.hidden)
        self._linear("out", (tasks, config.members), config.hidden, 1)

    def _linear(
        self,
        name: str,
        groups: tuple[int, int],
        inputs: int,
        outputs: int,
        fan_in: int | None = None,
        *,
        bias: bool = True,
    ) -> None:
        bound = (fan_in or inputs) ** -0.5
        weight = torch.empty(*groups, inputs, outputs).uniform_(-bound, bound)
        self.register_parameter(f"{name}_weight", nn.Parameter(weight))
        if bias:
            offset = torch.empty(*groups, 1, outputs).uniform_(-bound, bound)
            self.register_parameter(f"{name}_bias", nn.Parameter(offset))

    def weights(self) -> dict[str, Tensor]:
        """Every task's weights, as they are trained."""
        return dict(self.named_parameters())

    def task_weights(self, task: int) -> dict[str, Tensor]:
        """One task's weights as new leaves that share memory with the parameters."""
        return {
            name: parameter.detach()[task : task + 1].requires_grad_()
            for name, parameter in self.named_parameters()
        }


def embed_state(
    weights: CriticWeights, features: Float[Tensor, "n b f"], proprio: Float[Tensor, "n b p"]
) -> Float[Tensor, "n e b hidden"]:
    """The state's share of the head's first layer, from standardised features."""
    members = weights["out_weight"].shape[1]
    projected = [
        _normalised(_linear(weights, "features_in", _per_member(features, members))).tanh(),
        _normalised(_linear(weights, "proprio_in", _per_member(proprio, members))).tanh(),
    ]
    return _linear(weights, "state_to_hidden", torch.cat(projected, dim=-1))


def q_values(
    weights: CriticWeights, state: Float[Tensor, "n e b hidden"], action: Float[Tensor, "n b m 7"]
) -> Float[Tensor, "n e b m"]:
    """Values of m actions per state; actions are clipped to [-1, 1], as the robot clips them."""
    n, e, b, hidden = state.shape
    m = action.shape[2]
    action = _per_member(action.clamp(-1.0, 1.0).flatten(1, 2), e)
    projected = _normalised(_linear(weights, "action_in", action)).tanh()
    pushed = _linear(weights, "action_to_hidden", projected).view(n, e, b, m, hidden)
    first = F.silu(_normalised(pushed + state.unsqueeze(3))).flatten(2, 3)
    second = F.silu(_normalised(_linear(weights, "hidden", first)))
    return _linear(weights, "out", second).view(n, e, b, m)


def _per_member(values: Float[Tensor, "n b c"], members: int) -> Float[Tensor, "n e b c"]:
    return values.unsqueeze(1).expand(-1, members, -1, -1)


def _linear(
    weights: CriticWeights, name: str, inputs: Float[Tensor, "n e b i"]
) -> Float[Tensor, "n e b o"]:
    weight = weights[f"{name}_weight"]
    bias = weights.get(f"{name}_bias")
    groups = weight.shape[:2]
    flat, weight = inputs.flatten(0, 1), weight.flatten(0, 1)
    if bias is None:
        return torch.bmm(flat, weight).unflatten(0, groups)
    return torch.baddbmm(bias.flatten(0, 1), flat, weight).unflatten(0, groups)


def _normalised(values: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
    return F.layer_norm(values, values.shape[-1:])
